"""What a training run is made of, and how the parts are chosen from the data.

`TrainConfig` is complete: a run is a function of it and the images. `resolve_config` fills it from
a preset, what models.training.defaults makes of the data, and whatever the caller insists on.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch

from models.diffusion.model import ModelConfig
from models.diffusion.prediction import PredictionType
from models.diffusion.schedule import ScheduleConfig
from models.fields import Invalid, check_number, check_whole
from models.nets.precision import PRECISIONS, Precision
from models.nets.unet import UNet, UNetConfig
from models.training.defaults import (
    MIN_SIDE,
    DatasetFacts,
    Device,
    Situation,
    choose,
    default_image_size,
    learning_rate,
    loss_weighting,
)
from models.training.objective import LOSS_WEIGHTINGS, LossWeighting

Preset = Literal["ddpm", "edm"]
PRESETS: tuple[Preset, ...] = get_args(Preset)
Objective = Literal["denoising", "consistency"]
LrSchedule = Literal["linear", "cosine", "constant"]
LR_SCHEDULES: tuple[LrSchedule, ...] = get_args(LrSchedule)

DEFAULT_MINUTES = 10.0
MAX_SIDE = 256
MAX_BATCH_SIZE = 4096
MAX_CHECKPOINT_EVERY = 10**9
MAX_STEPS = 10**8
MAX_HELD_OUT = 10**6
MINUTES_RANGE = (0.01, 60 * 24 * 30)
LEARNING_RATE_RANGE = (1e-7, 1.0)
MAX_PARAMETERS = 10**9  # training keeps four numbers for each: 16 GB


@dataclass(frozen=True)
class TrainConfig:
    """`class_names` is empty for an unconditional model. The run ends with whichever of `steps` and
    `minutes` is used up first; `sigma_data` of None is measured from the images. `batch_size` is
    that of an optimiser step; it is worked off in parts of `micro_batch_size` (None: at once).
    `reasons` says of a choice why it was made."""

    preset: Preset
    image_size: tuple[int, int]
    channels: int
    class_names: tuple[str, ...]
    net: UNetConfig
    schedule: ScheduleConfig
    prediction_type: PredictionType
    steps: int | None
    minutes: float | None
    batch_size: int
    learning_rate: float
    seed: int
    checkpoint_every: int
    sigma_data: float | None = None
    warmup_steps: int = 100
    class_dropout: float = 0.1  # how often the class is withheld, for guidance
    horizontal_flip: bool = False
    max_grad_norm: float = 1.0
    ema_half_life_images: int = 500_000
    ema_warmup: float = 0.05  # the half-life never exceeds this share of the images seen
    held_out: int = 512  # at most this many images, and at most a tenth, are kept from training
    objective: Objective = "denoising"
    loss_weighting: LossWeighting = "uniform"
    stratified: bool = True  # noise levels spread evenly over a batch
    lr_schedule: LrSchedule = "linear"
    augmentation: float = (
        0.0  # how often an image is moved, scaled, turned (models.training.augment)
    )
    precision: Precision = "float32"
    compile: bool = False
    micro_batch_size: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        check_whole("checkpoint_every", self.checkpoint_every, 1, MAX_CHECKPOINT_EVERY)
        check_number("learning_rate", self.learning_rate, *LEARNING_RATE_RANGE)
        check_number("class_dropout", self.class_dropout, 0.0, 0.9)
        check_number("augmentation", self.augmentation, 0.0, 1.0)
        check_whole("held_out", self.held_out, 0, MAX_HELD_OUT)
        check_whole("ema_half_life_images", self.ema_half_life_images, 1, 10**9)
        if self.micro_batch_size is not None:
            check_whole("micro_batch_size", self.micro_batch_size, 1, MAX_BATCH_SIZE)
        for name, value, known in (
            ("objective", self.objective, get_args(Objective)),
            ("loss_weighting", self.loss_weighting, LOSS_WEIGHTINGS),
            ("lr_schedule", self.lr_schedule, LR_SCHEDULES),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise Invalid(name, value, f"it must be one of {known}")
        if self.steps is None and self.minutes is None:
            raise Invalid.because(
                "steps and minutes are both missing; give at least one", field="steps"
            )
        if self.steps is not None:
            check_whole("steps", self.steps, 1, MAX_STEPS)
        if self.minutes is not None:
            check_number("minutes", self.minutes, *MINUTES_RANGE)
        for side in self.image_size:
            check_whole("image_size", side, MIN_SIDE, MAX_SIDE)
        if self.channels not in (1, 3):
            raise Invalid("channels", self.channels, "it must be 1 or 3")
        self.model_config(self.sigma_data or 0.5)  # refuses parts that do not fit together

    def model_config(self, sigma_data: float) -> ModelConfig:
        return ModelConfig(
            net=self.net,
            schedule=self.schedule,
            prediction_type=self.prediction_type,
            sigma_data=sigma_data,
            image_size=self.image_size,
            class_names=self.class_names,
            consistency=self.objective == "consistency",
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        known = dict(values)
        known["net"] = UNetConfig.from_dict(known["net"])
        known["schedule"] = ScheduleConfig(**known["schedule"])
        for name in ("image_size", "class_names"):
            known[name] = tuple(known[name])
        return cls(**known)


def resolve_config(
    facts: DatasetFacts,
    *,
    preset: Preset | None = None,
    device: Device = "cpu",
    image_size: tuple[int, int] | None = None,
    class_conditional: bool | None = None,
    net: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    **overrides: Any,
) -> TrainConfig:
    """The preset's recipe for this data, time and device, with what the caller overrides (None
    means: choose). `reasons` of the result says why what was chosen was.

    Raises Invalid that begins with the field's name, as `net.dropout`, and names its bound.
    """
    preset = preset or _default_preset(schedule, overrides.get("prediction_type"))
    if preset not in PRESETS:
        raise Invalid("preset", preset, f"it must be one of {PRESETS}")
    if class_conditional and not facts.class_names:
        raise Invalid.because(
            "class_conditional is true, but the dataset has no classes (no folders in its archive)",
            field="class_conditional",
        )
    class_names = facts.class_names if class_conditional is not False else ()
    size = image_size or default_image_size(facts.image_size)
    for side in size:
        check_whole("image_size", side, MIN_SIDE, MAX_SIDE)
    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    choices = choose(Situation(facts, size, len(class_names), minutes, steps, device))
    given = {name: value for name, value in overrides.items() if value is not None}
    if net:
        given["net"] = _with_parts(choices["net"].value, net)
    distilled = given.get("objective") == "consistency"
    choices["learning_rate"] = learning_rate(
        given.get("net", choices["net"].value), distilled=distilled
    )
    choices["loss_weighting"] = loss_weighting(size, edm=preset == "edm" and not distilled)
    family = _family(preset, schedule)
    return TrainConfig(
        preset=preset,
        image_size=size,
        channels=facts.channels,
        class_names=class_names,
        steps=steps,
        minutes=minutes,
        **{
            "seed": 0,
            "checkpoint_every": 1000,
            **{name: choice.value for name, choice in choices.items()},
            **family,
            **given,
        },
        reasons={name: choice.reason for name, choice in choices.items() if name not in given},
    )


def _default_preset(schedule: Mapping[str, Any] | None, prediction_type: str | None) -> Preset:
    """`edm`, which makes the better model in the same time, unless what is asked for is not its."""
    names = ((schedule or {}).get("name"), prediction_type)
    return "edm" if all(name in (None, "edm") for name in names) else "ddpm"


def _family(preset: Preset, schedule: Mapping[str, Any] | None) -> dict[str, Any]:
    family: dict[str, Any] = (
        {"schedule": ScheduleConfig("edm"), "prediction_type": "edm"}
        if preset == "edm"
        else {"schedule": ScheduleConfig("linear"), "prediction_type": "epsilon"}
    )
    if schedule:
        with _part("schedule"):
            family["schedule"] = ScheduleConfig(**{"name": family["schedule"].name, **schedule})
    return family


def _with_parts(chosen: UNetConfig, net: Mapping[str, Any]) -> UNetConfig:
    with _part("net"):
        unet = replace(chosen, **_block_types(net), **net)
        _check_parameters(unet)
    return unet


def _block_types(net: Mapping[str, Any]) -> dict[str, Any]:
    """Attention at the lowest resolution, where the caller says only how many levels there are."""
    if "block_out_channels" not in net or "down_block_types" in net or "up_block_types" in net:
        return {}
    plain = max(0, len(net["block_out_channels"]) - 1)
    return {
        "down_block_types": ("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
    }


@contextmanager
def _part(name: str) -> Iterator[None]:
    """A field that an error names is one of this part."""
    try:
        yield
    except Invalid as error:
        raise error.within(name) from None


def _check_parameters(net: UNetConfig) -> None:
    with torch.device("meta"):  # counts without the memory
        count = sum(p.numel() for p in UNet(net).parameters())
    if count > MAX_PARAMETERS:
        raise Invalid.because(
            f"block_out_channels and layers_per_block make a net of {count} parameters; "
            f"at most {MAX_PARAMETERS} are allowed",
            field="block_out_channels",
        )
