"""The configs of jobs other than trainings, as their records have them.

The API writes them and the job's process reads them. Configs of the core within them stay JSON
here, since `store` does not know `models`. (The config of a training is a TrainConfig of
models.training.config; its beginning and its checkpoints are in store.jobs.options.)
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from store.database import JsonObject


@dataclass(frozen=True)
class HeldOut:
    """The images that a training kept aside: those that its dataset sets apart, else `most` of
    them, chosen by its `seed`."""

    seed: int
    most: int

    @classmethod
    def of_training(cls, config: Mapping[str, Any]) -> "HeldOut":
        """Read it from the config of a train job."""
        return cls(seed=config["seed"], most=config["held_out"])


@dataclass(frozen=True)
class EvaluateConfig:
    """The config of a job that evaluates a model.

    `prefix` and `digest` say where the model's artifacts are and which weights they hold.
    `evaluation` is an EvaluationConfig of models.evaluation. `held_out` says which images of the
    dataset the model has not seen, None where that is not known. `fit` is how the dataset's images
    come to the model's size, a Fit of models.images.
    """

    evaluation: JsonObject
    prefix: str
    digest: str
    held_out: HeldOut | None = None
    fit: str = "crop"

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "EvaluateConfig":
        held_out = values.get("held_out")
        return cls(
            evaluation=values["evaluation"],
            prefix=values["prefix"],
            digest=values["digest"],
            held_out=HeldOut(**held_out) if held_out else None,
            fit=values.get("fit", "crop"),
        )


@dataclass(frozen=True)
class SampleJobConfig:
    """The config of a job that makes images from a model.

    `prefix` and `digest` say where the model's artifacts are and which weights they hold. `request`
    is a SampleRequest of models.sampling.request. `used` is shown to callers, so that
    they can make the same images again.
    """

    request: JsonObject
    prefix: str
    digest: str
    deterministic: bool = False
    precision: str = "float32"  # of the network, a PrecisionChoice of the core
    ranges: list[list[float]] = field(default_factory=list)  # of int8, Ranges of the core
    used: JsonObject = field(default_factory=dict)

    @property
    def num_images(self) -> int:
        return int(self.request["num_images"])

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SampleJobConfig":
        return cls(**values)


@dataclass(frozen=True)
class ImportConfig:
    """The config of a job that fetches a dataset.

    `name` is that of the dataset; `url` is of HTTP or of S3 (store.urls). `labels`, `frames` and
    `range` are those of an upload. The bounds are those of the service that accepted the job.
    """

    name: str
    url: str
    labels: str
    frames: str
    range: str
    max_bytes: int  # of the archive
    max_pixels: int  # of an image

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ImportConfig":
        return cls(**values)
