"""The options of a train job besides its config: its first weights and its checkpoints."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Keep = Literal["last", "best"]
KEEPS: tuple[Keep, ...] = get_args(Keep)
KEEP_CHECKPOINTS = (1, 100)
DEFAULT_KEEP_CHECKPOINTS = 2


@dataclass(frozen=True)
class FirstWeights:
    """The weights of a model to begin with: its name, its digest, the prefix of its artifacts."""

    model: str
    digest: str
    prefix: str


@dataclass(frozen=True)
class Origin:
    """The checkpoint of an earlier job that this one goes on from."""

    job: str
    step: int


@dataclass(frozen=True)
class TrainOptions:
    """The options of a train job.

    `keep` says which weights become the model, the last or those of the best checkpoint;
    `keep_checkpoints` says how many of the last checkpoints stay. `warnings` are those of its plan,
    and `seconds` the time that it was expected to take.
    """

    keep: Keep = "last"
    keep_checkpoints: int = DEFAULT_KEEP_CHECKPOINTS
    fine_tune: FirstWeights | None = None
    resumed_from: Origin | None = None
    warnings: tuple[str, ...] = ()
    seconds: float | None = None

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainOptions":
        known = {name: value for name, value in values.items() if name != "dataset_digest"}
        if known.get("fine_tune"):
            known["fine_tune"] = FirstWeights(**known["fine_tune"])
        if known.get("resumed_from"):
            known["resumed_from"] = Origin(**known["resumed_from"])
        known["warnings"] = tuple(known.get("warnings", ()))
        return cls(**known)
