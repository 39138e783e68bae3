"""The lines that a training logs, in files of one JSON object per line (store.jobs.files).

The trainer writes them; the API, and an attempt that resumes from a checkpoint, read them.
"""

import json
from dataclasses import asdict, dataclass, field
from typing import Self

STEPS_FILE, EVALUATIONS_FILE = "metrics.jsonl", "evaluations.jsonl"


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line; `at` is in seconds since 1970, None in lines of the first versions."""

    step: int
    at: float | None = None

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
    `mse`), and as `score` the geometric mean over them; None where no image is held out."""

    score: float | None = None
    levels: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)
