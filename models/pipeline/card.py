"""The card of a model: the facts that the registry keeps beside its weights.

It is JSON in the record of a model (`details`) and in the model's folder. Records of earlier
versions lack `sigma_data` and `flops`; uploaded models lack the facts of their training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from models.diffusion.config import DEFAULT_SAMPLING, ModelConfig, SamplingConfig
from models.diffusion.prediction import Prediction, PredictionType
from models.diffusion.schedule import ScheduleConfig
from models.images.formats import Fit
from models.nets.graph import unet_graph


@dataclass(frozen=True)
class ModelCard:
    """`image_size` is (height, width); `class_names` is empty for an unconditional model.
    `has_null_class` is False for a model whose embeddings are classes all: it always needs one.
    `consistency` is True if the model was tuned to jump to the clean image from any noise level.

    None means unknown. `flops` are the floating-point operations of one network call for one image
    (models.nets.graph). `fit` is how images of another shape were brought to
    `image_size`. `preset`, `steps`, `images_seen` and `seconds` describe the training that made the
    model here; `base_model` and `base_digest` name the model and the weights that it began with.
    """

    image_size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    schedule: ScheduleConfig
    prediction_type: PredictionType
    num_parameters: int | None = None
    flops: int | None = None
    consistency: bool = False
    has_null_class: bool = True
    sampling: SamplingConfig = DEFAULT_SAMPLING
    sigma_data: float | None = None
    fit: Fit | None = None
    preset: str | None = None
    steps: int | None = None
    images_seen: int | None = None
    seconds: float | None = None
    base_model: str | None = None
    base_digest: str | None = None

    @classmethod
    def of(cls, config: ModelConfig) -> "ModelCard":
        """Return the card of a model of unknown origin."""
        graph = unet_graph(config.net, config.image_size)
        return cls(
            image_size=config.image_size,
            channels=config.net.in_channels,
            class_names=config.class_names,
            schedule=config.schedule,
            prediction_type=config.prediction_type,
            num_parameters=graph.num_parameters,
            flops=graph.flops,
            consistency=config.consistency,
            has_null_class=config.has_null_class,
            sampling=config.sampling,
            sigma_data=config.sigma_data,
        )

    @property
    def prediction(self) -> Prediction:
        if self.sigma_data is None:
            return Prediction(self.prediction_type)
        return Prediction(self.prediction_type, self.sigma_data)

    def to_dict(self) -> dict[str, object]:
        """Return the card for JSON; unknown facts are left out."""
        values = asdict(self)
        values["image_size"] = list(self.image_size)
        values["class_names"] = list(self.class_names)
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ModelCard":
        """Return the card of a record; keys of other writers, such as `scores`, are ignored."""
        known = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        height, width = known["image_size"]
        known["image_size"] = (height, width)
        known["class_names"] = tuple(known["class_names"])
        known["schedule"] = ScheduleConfig(**known["schedule"])
        known["sampling"] = SamplingConfig(**known.get("sampling", {}))
        return cls(**known)

    def first_difference(self, other: "ModelCard") -> str | None:
        """Return the first field that both know and that differs, or None."""
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if None not in (ours, theirs) and ours != theirs:
                return field.name
        return None
