"""What a training run is made of, and how the parts are chosen from the data.

`TrainConfig` is complete: a run is a function of it and the images. `resolve_config` fills it from
a preset, the facts of a data set and whatever the caller insists on.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch

from models.bounds import check_number, check_whole
from models.model import ModelConfig
from models.prediction import PredictionType
from models.schedule import ScheduleConfig
from models.unet import UNet, UNetConfig

Preset = Literal["ddpm", "edm"]
PRESETS: tuple[Preset, ...] = get_args(Preset)

DEFAULT_MINUTES = 10.0
DEFAULT_MAX_SIDE = 64  # larger images are scaled down unless image_size says otherwise
MIN_SIDE, MAX_SIDE = 8, 256
MAX_BATCH_SIZE = 4096
MAX_CHECKPOINT_EVERY = 10**9
MAX_STEPS = 10**8
MINUTES_RANGE = (0.01, 60 * 24 * 30)
LEARNING_RATE_RANGE = (1e-7, 1.0)
MAX_PARAMETERS = 10**9  # training keeps four numbers for each: 16 GB


@dataclass(frozen=True)
class DatasetFacts:
    num_images: int
    channels: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class TrainConfig:
    """`class_names` is empty for an unconditional model. The run ends with whichever of `steps` and
    `minutes` is used up first; `sigma_data` of None is measured from the images."""

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

    def __post_init__(self) -> None:
        check_whole("batch_size", self.batch_size, 1, MAX_BATCH_SIZE)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        check_whole("checkpoint_every", self.checkpoint_every, 1, MAX_CHECKPOINT_EVERY)
        check_number("learning_rate", self.learning_rate, *LEARNING_RATE_RANGE)
        check_number("class_dropout", self.class_dropout, 0.0, 0.9)
        if self.steps is None and self.minutes is None:
            raise ValueError("steps and minutes are both missing; give at least one")
        if self.steps is not None:
            check_whole("steps", self.steps, 1, MAX_STEPS)
        if self.minutes is not None:
            check_number("minutes", self.minutes, *MINUTES_RANGE)
        for side in self.image_size:
            check_whole("image_size", side, MIN_SIDE, MAX_SIDE)
        if self.channels not in (1, 3):
            raise ValueError(f"channels is {self.channels}; it must be 1 or 3")
        self.model_config(self.sigma_data or 0.5)  # refuses parts that do not fit together

    def model_config(self, sigma_data: float) -> ModelConfig:
        return ModelConfig(
            net=self.net,
            schedule=self.schedule,
            prediction_type=self.prediction_type,
            sigma_data=sigma_data,
            image_size=self.image_size,
            class_names=self.class_names,
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
    preset: Preset = "ddpm",
    image_size: tuple[int, int] | None = None,
    class_conditional: bool | None = None,
    net: Mapping[str, Any] | None = None,
    schedule: Mapping[str, Any] | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    **overrides: Any,
) -> TrainConfig:
    """The preset's recipe for this data, with what the caller overrides (None means: choose).

    Raises ValueError that begins with the field's name, as `net.dropout`, and names its bound.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset is {preset!r}; it must be one of {PRESETS}")
    if class_conditional and not facts.class_names:
        raise ValueError(
            "class_conditional is true, but the dataset has no classes (no folders in its archive)"
        )
    class_names = facts.class_names if class_conditional is not False else ()
    size = image_size or default_image_size(facts.image_size)
    for side in size:
        check_whole("image_size", side, MIN_SIDE, MAX_SIDE)
    unet = UNetConfig.small(size, facts.channels, len(class_names))
    if net:
        with _part("net"):
            unet = replace(unet, **_block_types(net), **net)
            _check_parameters(unet)
    family: dict[str, Any] = (
        {"schedule": ScheduleConfig("edm"), "prediction_type": "edm"}
        if preset == "edm"
        else {"schedule": ScheduleConfig("linear"), "prediction_type": "epsilon"}
    )
    if schedule:
        with _part("schedule"):
            family["schedule"] = ScheduleConfig(**{"name": family["schedule"].name, **schedule})
    recipe: dict[str, Any] = {
        "preset": preset,
        "image_size": size,
        "channels": facts.channels,
        "class_names": class_names,
        "net": unet,
        "steps": steps,
        "minutes": DEFAULT_MINUTES if steps is None and minutes is None else minutes,
        "batch_size": max(1, min(128, facts.num_images)),
        "learning_rate": default_learning_rate(unet),
        "seed": 0,
        "checkpoint_every": 1000,
    }
    chosen = {name: value for name, value in overrides.items() if value is not None}
    return TrainConfig(**(recipe | family | chosen))


def _block_types(net: Mapping[str, Any]) -> dict[str, Any]:
    """Attention at the lowest resolution, where the caller says only how many levels there are."""
    if "block_out_channels" not in net or "down_block_types" in net or "up_block_types" in net:
        return {}
    plain = max(0, len(net["block_out_channels"]) - 1)
    return {
        "down_block_types": ("DownBlock2D",) * plain + ("AttnDownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",) + ("UpBlock2D",) * plain,
    }


def default_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """The data's own size, scaled down to at most DEFAULT_MAX_SIDE, each side to a multiple of 4
    (of 8 from 32 pixels up), so that the net can halve it."""
    scale = min(1.0, DEFAULT_MAX_SIDE / max(size))
    scaled = [side * scale for side in size]
    multiple = 8 if max(scaled) >= 32 else 4
    height, width = (max(MIN_SIDE, round(side / multiple) * multiple) for side in scaled)
    return height, width


def default_learning_rate(net: UNetConfig) -> float:
    """2e-3 for nets of 32 channels, less for wider ones as 1 / sqrt(width)."""
    return 2e-3 * math.sqrt(32 / max(32, net.block_out_channels[0]))


@contextmanager
def _part(name: str) -> Iterator[None]:
    """A field that an error names is one of this part."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from None


def _check_parameters(net: UNetConfig) -> None:
    with torch.device("meta"):  # counts without the memory
        count = sum(p.numel() for p in UNet(net).parameters())
    if count > MAX_PARAMETERS:
        raise ValueError(
            f"block_out_channels and layers_per_block make a net of {count} parameters; "
            f"at most {MAX_PARAMETERS} are allowed"
        )
