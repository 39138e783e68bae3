"""A diffusion model without its weights: the net's shape, its process, its images, its classes."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from models.diffusion.prediction import Prediction, PredictionType
from models.diffusion.schedule import MAX_TRAIN_TIMESTEPS, NoiseSchedule, ScheduleConfig
from models.fields import Invalid, check_fields, check_whole
from models.nets.config import UNetConfig

MAX_SIDE = 512  # of an image that a model makes, in pixels
MAX_GUIDANCE = 100.0

Variance = Literal["fixed_small", "fixed_large"]


@dataclass(frozen=True)
class SamplingConfig:
    """How a model is to be sampled unless a request says otherwise. A model from elsewhere has this
    from the config of its scheduler.

    The estimate of the clean image is kept within [-clip, clip], or left as it is where that is
    None. `spacing` of None is that of the sampler. Spacing `leading` begins and ends
    `steps_offset` timesteps further from the clean image. `variance` is that of sampler `ddpm`.
    `guidance_scale` counts where a class is asked for.
    """

    clip: Annotated[float | None, Interval(ge=1e-3, le=1e6)] = 1.0
    spacing: Literal["trailing", "leading", "linspace"] | None = None
    steps_offset: Annotated[int, Interval(ge=0, le=MAX_TRAIN_TIMESTEPS)] = 0
    variance: Variance = "fixed_small"
    guidance_scale: Annotated[float, Interval(ge=0.0, le=MAX_GUIDANCE)] = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


DEFAULT_SAMPLING = SamplingConfig()


@dataclass(frozen=True)
class ModelConfig:
    """`image_size` is (height, width). `class_names` is empty for an unconditional model. The net
    has an embedding for each class, and unless it was trained elsewhere without, one more: the null
    class, which stands for "any". `consistency` is True if the model was tuned to jump to the clean
    image from any noise level (models.training.consistency)."""

    net: UNetConfig
    schedule: ScheduleConfig
    prediction_type: PredictionType
    sigma_data: float
    image_size: tuple[int, int]
    class_names: tuple[str, ...] = ()
    consistency: bool = False
    sampling: SamplingConfig = DEFAULT_SAMPLING

    def __post_init__(self) -> None:
        self._check_images()
        schedule = NoiseSchedule.from_config(self.schedule)
        self.prediction.check(schedule)
        self.net.check_image_size(*self.image_size)
        count = len(self.class_names)
        fitting = (count + 1, count) if count else (None,)
        if self.net.num_class_embeds not in fitting:
            raise Invalid(
                "num_class_embeds",
                self.net.num_class_embeds,
                f"{count} classes need {' or '.join(map(str, fitting))}",
            )

    def _check_images(self) -> None:
        if len(self.image_size) != 2:
            raise Invalid.because(
                f"image_size has {len(self.image_size)} entries; it is height, width",
                field="image_size",
            )
        for side in self.image_size:
            check_whole("image_size", side, 1, MAX_SIDE)
        if not all(isinstance(name, str) for name in self.class_names):
            raise Invalid.because(
                "class_names holds something that is not text", field="class_names"
            )
        if len(set(self.class_names)) < len(self.class_names):
            raise Invalid.because("class_names holds a name twice", field="class_names")

    @property
    def channels(self) -> int:
        return self.net.out_channels

    @property
    def has_null_class(self) -> bool:
        """False where each of the net's embeddings is a class."""
        return self.net.num_class_embeds != len(self.class_names)

    @property
    def prediction(self) -> Prediction:
        return Prediction(self.prediction_type, self.sigma_data)
