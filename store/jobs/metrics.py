"""The lines that a training logs, in files of one JSON object per line (store.jobs.files).

The trainer writes them; the API, and an attempt that resumes from a checkpoint, read them.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Self

STEPS_FILE, EVALUATIONS_FILE = "metrics.jsonl", "evaluations.jsonl"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line; `at` is in seconds since 1970, None in lines of the first versions. `seconds` are
    those of training until then, pauses left out; None in lines of earlier versions."""

    step: int
    at: float | None = None
    seconds: float | None = None

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def all_of(cls, text: str) -> list[Self]:
        """Read the lines of a file."""
        return [cls(**json.loads(line)) for line in text.splitlines() if line]


@dataclass(frozen=True, kw_only=True)
class StepLine(_Line):
    """`loss` is the mean over the steps since the line before."""

    loss: float
    learning_rate: float
    images_seen: int
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class EvaluationLine(_Line):
    """The denoising error on held-out images at a step: per noise level (`t`, `alpha`, `sigma`,
    `mse`), and as `score` the geometric mean over them; None where no image is held out.
    `images_seen` is None in lines of earlier versions."""

    score: float | None = None
    images_seen: int | None = None
    levels: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


# Lines of earlier versions ------------------------------------------------------------------------


def with_seconds(lines: Sequence[StepLine]) -> list[StepLine]:
    """Return lines of one training that all have `seconds`. Where a line lacks them, they are
    estimated from the images since the line before and the speed."""
    found: list[StepLine] = []
    seconds, images = 0.0, 0
    for line in lines:
        if line.seconds is None:
            speed = line.images_per_second or 1.0
            seconds += max(0, line.images_seen - images) / speed
            line = replace(line, seconds=round(seconds, 1))
        found.append(line)
        seconds, images = line.seconds or 0.0, line.images_seen
    return found


def placed(line: EvaluationLine, steps: Sequence[StepLine], batch_size: int) -> EvaluationLine:
    """Return an evaluation that has `images_seen` and, where a step line is known, `seconds`.
    `steps` are in order and have seconds; between two of them the speed is that of the second."""
    images = line.step * batch_size if line.images_seen is None else line.images_seen
    if line.seconds is not None or not steps:
        return replace(line, images_seen=images)
    place = bisect_right([step.step for step in steps], line.step)
    before = steps[max(0, place - 1)]
    after = steps[min(place, len(steps) - 1)]
    since = (images - before.images_seen) / (after.images_per_second or 1.0)
    seconds = max(0.0, (before.seconds or 0.0) + since)
    return replace(line, images_seen=images, seconds=round(seconds, 1))
