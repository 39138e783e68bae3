"""How far a job is, as its record has it.

The job's process writes it, and the API and webhooks read it. Records of other versions can be
read: an unknown entry is ignored, a missing one has its default.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from store.database import JsonObject


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The part that jobs of every kind have: `progress` is 0..1."""

    progress: float = 0.0

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True, kw_only=True)
class TrainProgress(Progress):
    """`steps` is None where the budget is in minutes; `eta_seconds` is None until it is known."""

    step: int = 0
    steps: int | None = None
    images_seen: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class SampleProgress(Progress):
    """`images` of `num_images` are made; `eta_seconds` is None until it is known, and so is the
    `precision` that the network computes in."""

    images: int = 0
    num_images: int
    precision: str | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class EvaluationProgress(Progress):
    """`progress` is that of the stage; `result` is None until the evaluation is done."""

    stage: str = "queued"
    result: JsonObject | None = None


@dataclass(frozen=True, kw_only=True)
class ImportProgress(Progress):
    """`progress` is that of the stage. `num_bytes` are here of `total_bytes`, None as long as it is
    not known; `num_skipped` objects of a bucket are too large for files of an archive;
    `num_images` are inspected."""

    stage: str = "queued"
    num_bytes: int = 0
    total_bytes: int | None = None
    num_skipped: int = 0
    num_images: int = 0
