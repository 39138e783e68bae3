"""Whether images of a model in int8 are as good as in float32, by its scores in both.

The scores are results of models.evaluation.evaluate by precision, as JSON.
"""

import math
from collections.abc import Mapping
from typing import Any

from models.nets.precision import Ranges, ranges_of

MAX_RATIO = 1.03  # of the Frechet distance in int8 to that in float32
_SAME_REAL = 0.01  # relative: a classifier that learns on a GPU is not the same twice


def int8_refusal(scores: Mapping[str, Any]) -> str | None:
    """Return why a model with these scores is not offered in int8, None where it is."""
    missing = [precision for precision in ("float32", "int8") if precision not in scores]
    if missing:
        return f"the model has not been evaluated in {' and '.join(missing)}"
    exact, rounded = scores["float32"], scores["int8"]
    if (differing := _first_difference(exact, rounded)) is not None:
        return f"the model's evaluations in float32 and int8 differ in {differing}"
    distances: tuple[float, float] = exact["made"]["frechet"], rounded["made"]["frechet"]
    ratio = distances[1] / distances[0] if distances[0] else math.inf
    if ratio <= MAX_RATIO:
        return None
    return f"the model's Frechet distance in int8 is {ratio:.3f} times that in float32"


def int8_ranges(scores: Mapping[str, Any]) -> Ranges:
    """Return the ranges with which the scores in int8 were found; empty where there are none."""
    return ranges_of(scores["int8"]["config"]["ranges"]) if "int8" in scores else ()


def _first_difference(exact: Mapping[str, Any], rounded: Mapping[str, Any]) -> str | None:
    """Return what the evaluations do not share, None where they compare."""
    ours, theirs = exact["config"], rounded["config"]
    name: str
    for name in theirs:
        apart = name in ("precision", "ranges") or name.startswith("likelihood")
        if not apart and ours.get(name) != theirs[name]:
            return name
    real = [(score["features"], score["real"]["num_reference"]) for score in (exact, rounded)]
    distances = [score["real"]["frechet"] for score in (exact, rounded)]
    if real[0] != real[1] or not math.isclose(*distances, rel_tol=_SAME_REAL):
        return "their real images"
    return None
