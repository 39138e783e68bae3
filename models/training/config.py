"""The complete recipe of a training run, and how it is filled in for a dataset.

`TrainConfig` is complete: a run is a function of it and the images. Its fields are declared once,
here; the API, the console and the command line offer what carries a `Label`. `resolve_config` fills
it from a preset, from the choices that models.training.defaults makes for the data, and from the
values that the caller gives.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Interval
from typing_extensions import Doc

from models.diffusion.config import MAX_GUIDANCE, ModelConfig, SamplingConfig
from models.diffusion.noise import MAX_SEED
from models.diffusion.prediction import PredictionType
from models.diffusion.schedule import ScheduleConfig
from models.fields import (
    Example,
    Invalid,
    Label,
    NotOffered,
    check_field,
    check_fields,
    declared,
)
from models.images.formats import FITS, Fit
from models.nets.config import UNetConfig, block_types
from models.nets.graph import unet_graph
from models.nets.precision import FloatPrecision
from models.training.defaults import (
    DEFAULT_MAX_SIDE,
    MIN_SIDE,
    ChoiceInputs,
    DatasetFacts,
    Device,
    LossWeighting,
    Optimizer,
    choose,
    default_image_size,
    guidance_scale,
    learning_rate,
    loss_weighting,
    optimizer,
    warmup_steps,
)

Preset = Literal["ddpm", "edm"]
Objective = Literal["denoising", "consistency"]
LrSchedule = Literal["linear", "cosine", "constant"]

DEFAULT_MINUTES = 10.0
MAX_SIDE = 256
MAX_BATCH_SIZE = 4096
MAX_STEPS = 10**8
MAX_PARAMETERS = 10**9  # training keeps four numbers for each: 16 GB

Side = Annotated[int, Interval(ge=MIN_SIDE, le=MAX_SIDE)]  # pixels


@dataclass(frozen=True)
class MayChange:
    """Mark of a field that may change where a run goes on from a checkpoint.

    All other fields decide about the steps that are done, so that the run would not be the same.
    """


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The recipe of a run. The run ends with `steps` or `minutes`, whichever is used up first."""

    preset: Annotated[
        Preset,
        Doc(
            "`edm`: preconditioned, with noise levels from 0.002 to 80 (Karras et al. "
            "2022). `ddpm`: the classic, which predicts the noise on the linear schedule (Ho et "
            "al. 2020). `edm` where left out, unless schedule or prediction_type are not its."
        ),
        Label("Preset"),
    ]
    steps: Annotated[
        int | None,
        Interval(ge=1, le=MAX_STEPS),
        Doc("optimiser steps; resumed exactly on a CPU"),
        Label("Steps, at most"),
        MayChange(),
    ]
    minutes: Annotated[
        float | None,
        Interval(ge=0.01, le=60 * 24 * 30),
        Doc(f"of training; {DEFAULT_MINUTES:g} where steps is left out too"),
        Label("Minutes"),
        MayChange(),
    ]
    image_size: Annotated[
        tuple[Side, Side],
        Doc(
            f"of the images that the model makes: a side, or [height, width], "
            f"{MIN_SIDE}..{MAX_SIDE}. The dataset's images may be larger or smaller, and are "
            f"scaled to it. Where left out the most common size, at most {DEFAULT_MAX_SIDE}. Each "
            "side must be a multiple of 2 to the number of the net's halvings."
        ),
        Label("Side of the images"),
        Example(32),
    ]
    fit: Annotated[
        Fit,
        Doc(f"how images of another shape come to image_size: {FITS}. `crop` where left out."),
        Label("Images of another shape"),
    ] = "crop"
    channels: Annotated[
        Literal[1, 3], Doc("1 for greyscale, 3 for RGB"), NotOffered("the dataset decides")
    ]
    class_names: Annotated[
        tuple[str, ...],
        Doc("empty for an unconditional model"),
        NotOffered("class_conditional decides, with the dataset's classes"),
    ]
    batch_size: Annotated[
        int,
        Interval(ge=1, le=MAX_BATCH_SIZE),
        Doc("of an optimiser step; chosen from the size of the images where left out"),
        Label("Batch size"),
    ]
    learning_rate: Annotated[
        float,
        Interval(ge=1e-7, le=1.0),
        Doc(
            "the optimiser's, after a warm-up; where left out chosen for the optimiser, and for "
            "Adam from the width of the net"
        ),
        Label("Learning rate"),
        MayChange(),
    ]
    seed: Annotated[
        int,
        Interval(ge=0, le=MAX_SEED),
        Doc("of the first weights, the noise and the order; 0 where left out"),
        Label("Seed"),
    ] = 0
    checkpoint_every: Annotated[
        int,
        Interval(ge=1, le=10**9),
        Doc("steps; 1000 where left out, and at least once a minute in any case"),
        Label("Steps between checkpoints"),
        MayChange(),
    ] = 1000
    prediction_type: Annotated[
        PredictionType,
        Doc(
            "what the net predicts; where left out the preset's: `epsilon` of ddpm, `edm` "
            "of edm. `edm` goes with schedule `edm` only, `flow` with `flow` only."
        ),
        Label("What the net predicts"),
    ]
    horizontal_flip: Annotated[
        bool,
        Doc("also learn from mirror images; not for writing. No where left out."),
        Label("Learn from mirror images too"),
    ] = False
    augmentation: Annotated[
        float,
        Interval(ge=0.0, le=1.0),
        Doc(
            "how often a training image is moved, scaled or turned; the net is told, so "
            "that the images it makes are not. Helps where images are few and time is not."
        ),
        Label("Augmented share of the images"),
    ] = 0.0
    loss_weighting: Annotated[
        LossWeighting,
        Doc(
            "of noise levels: `uniform`, `min_snr` (Hang et al. 2023), or `learned` "
            "(Karras et al. 2024)"
        ),
        Label("Weighting of the noise levels"),
    ] = "uniform"
    stratified: Annotated[
        bool,
        Doc("spread the noise levels evenly over each batch; yes where left out"),
        Label("Spread the noise levels evenly"),
    ] = True
    lr_schedule: Annotated[
        LrSchedule,
        Doc("how the learning rate falls over the budget, after the warm-up"),
        Label("Fall of the learning rate"),
    ] = "linear"
    warmup_steps: Annotated[
        int,
        Interval(ge=1, le=MAX_STEPS),
        Doc(
            "optimiser steps in which the learning rate rises from 0; where left out 20 for Muon, "
            "100 for Adam"
        ),
        Label("Steps of the warm-up"),
    ] = 100
    max_grad_norm: Annotated[
        float,
        Interval(ge=1e-6, le=1e6),
        Doc("a gradient of a larger norm is scaled down to it; 1 where left out"),
        Label("Largest norm of the gradient"),
    ] = 1.0
    class_dropout: Annotated[
        float,
        Interval(ge=0.0, le=0.9),
        Doc("how often the class is withheld in training, for guidance"),
        Label("Share without its class"),
    ] = 0.1
    guidance_scale: Annotated[
        float,
        Interval(ge=0.0, le=MAX_GUIDANCE),
        Doc(
            "how far POST /sample exaggerates the class of this model's images, where a request "
            "does not say; 1 is off"
        ),
        Label("Guidance of its images"),
    ] = 1.0
    ema_half_life_images: Annotated[
        int,
        Interval(ge=1, le=10**9),
        Doc("after how many images the average of the weights has forgotten half"),
        Label("Averaging half-life, in images"),
    ] = 500_000
    ema_warmup: Annotated[
        float,
        Interval(ge=1e-4, le=1.0),
        Doc(
            "the half-life of the average never exceeds this share of the images seen; 0.05 where "
            "left out"
        ),
        Label("Averaging half-life, as a share"),
    ] = 0.05
    optimizer: Annotated[
        Optimizer,
        Doc(
            "`adam` (Kingma and Ba 2015), or `muon` (Jordan et al. 2024) for the matrices inside "
            "the net and Adam for the rest. Where left out `muon` for new weights on a CPU, else "
            "`adam`."
        ),
        Label("Optimiser"),
    ] = "adam"
    precision: Annotated[
        FloatPrecision,
        Doc("of the network in training; weights are kept in float32"),
        Label("Precision"),
    ] = "float32"
    compile: Annotated[
        bool, Doc("the network, which takes a minute"), Label("Compile the network")
    ] = False
    micro_batch_size: Annotated[
        int | None,  # None: the whole batch at once
        Interval(ge=1, le=MAX_BATCH_SIZE),
        Doc(
            "work off each batch in parts of so many images, where memory is short; "
            "changes nothing else"
        ),
        Label("Images worked off at once"),
    ] = None
    held_out: Annotated[
        int,
        Interval(ge=0, le=10**6),
        Doc(
            "images to keep from training and to measure on: at most this many, and at "
            "most a tenth. 512 where left out. A dataset with validation or test images has those "
            "kept instead, all of them."
        ),
        Label("Images held out, at most"),
    ] = 512
    net: Annotated[
        UNetConfig,
        Doc("parts of the U-Net to override; the rest follows from the images and the device"),
        Label("The net"),
    ]
    schedule: Annotated[
        ScheduleConfig,
        Doc("parts of the noise schedule to override; the rest is the preset's"),
        Label("The noise schedule"),
    ]
    sigma_data: Annotated[
        float | None,
        Interval(ge=1e-6, le=1e6),
        Doc("the standard deviation of the data; None: measured from the images"),
        NotOffered("measured from the images, or that of the model to begin with"),
    ] = None
    objective: Annotated[
        Objective,
        Doc("`consistency` tunes a trained model to sample in few steps"),
        NotOffered("distill decides"),
    ] = "denoising"
    reasons: Annotated[
        Mapping[str, str],
        Doc("why the value of a field was chosen, by the field's name"),
        NotOffered("follows from the choices"),
    ] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.steps is None and self.minutes is None:
            raise Invalid.because(
                "steps and minutes are both missing; give at least one", field="steps"
            )
        # Refuses parts that do not fit together; any sigma_data does for that.
        self.model_config(0.5 if self.sigma_data is None else self.sigma_data)

    def model_config(self, sigma_data: float) -> ModelConfig:
        """Return the config of the model that this run makes."""
        return ModelConfig(
            net=self.net,
            schedule=self.schedule,
            prediction_type=self.prediction_type,
            sigma_data=sigma_data,
            image_size=self.image_size,
            class_names=self.class_names,
            consistency=self.objective == "consistency",
            sampling=SamplingConfig(guidance_scale=self.guidance_scale),
        )

    def to_dict(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Return the config that JSON holds, where tuples are lists."""
        known = dict(values)
        known["net"] = UNetConfig.from_dict(known["net"])
        known["schedule"] = ScheduleConfig(**known["schedule"])
        for name in ("image_size", "class_names"):
            known[name] = tuple(known[name])
        return cls(**known)


# The fields that may change where a run goes on from a checkpoint.
CHANGEABLE = {field.name for field in declared(TrainConfig).values() if field.mark(MayChange)}


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
    is_new: bool = True,
    **overrides: Any,
) -> TrainConfig:
    """Return the preset's recipe for this data, budget and device, with the caller's overrides.

    `is_new` tells whether the run begins with random weights.
    A value of None means that it is to be chosen. `reasons` of the result explains each choice.

    Raises Invalid with the name of the field, as `net.dropout`, and its bound.
    """
    preset = preset or _default_preset(schedule, overrides.get("prediction_type"))
    check_field(TrainConfig, "preset", preset)
    class_names = _class_names(facts, class_conditional)
    size = image_size or default_image_size(facts.image_size)
    check_field(TrainConfig, "image_size", size)
    if steps is None and minutes is None:
        minutes = DEFAULT_MINUTES
    choices = choose(ChoiceInputs(facts, size, len(class_names), minutes, steps, device))
    given = {name: value for name, value in overrides.items() if value is not None}
    if net:
        given["net"] = _with_parts(choices["net"].value, net)
    distilled = given.get("objective") == "consistency"
    choices["optimizer"] = optimizer(device, is_new=is_new and not distilled)
    by: Optimizer = given.get("optimizer", choices["optimizer"].value)
    choices["learning_rate"] = learning_rate(
        given.get("net", choices["net"].value), by, distilled=distilled
    )
    choices["warmup_steps"] = warmup_steps(by)
    choices["guidance_scale"] = guidance_scale(size, len(class_names), device, distilled=distilled)
    choices["loss_weighting"] = loss_weighting(size, edm=preset == "edm" and not distilled)
    family = _family(preset, schedule)
    return TrainConfig(
        preset=preset,
        image_size=size,
        class_names=class_names,
        steps=steps,
        minutes=minutes,
        **{
            "channels": facts.channels,
            **{name: choice.value for name, choice in choices.items()},
            **family,
            **given,
        },
        reasons={name: choice.reason for name, choice in choices.items() if name not in given},
    )


def _class_names(facts: DatasetFacts, class_conditional: bool | None) -> tuple[str, ...]:
    """Return the classes to learn: the dataset's, unless the caller wants none."""
    if class_conditional and not facts.class_names:
        raise Invalid.because(
            "class_conditional is true, but the dataset has no classes (no folders in its archive)",
            field="class_conditional",
        )
    return () if class_conditional is False else facts.class_names


def _default_preset(schedule: Mapping[str, Any] | None, prediction_type: str | None) -> Preset:
    """Return `edm`, which makes the better model in the same time, unless the schedule or the
    prediction type that the caller asks for belongs to `ddpm`."""
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
    """Return block types with attention at the lowest resolution, where the caller gives only the
    channels of each level."""
    if "block_out_channels" not in net or "down_block_types" in net or "up_block_types" in net:
        return {}
    levels = len(net["block_out_channels"])
    down, up = block_types([False] * (levels - 1) + [True])
    return {"down_block_types": down, "up_block_types": up}


@contextmanager
def _part(name: str) -> Iterator[None]:
    """Prefix the fields of refusals raised inside with the part's name."""
    try:
        yield
    except Invalid as error:
        raise error.within(name) from None


def _check_parameters(net: UNetConfig) -> None:
    multiple = 2 ** (len(net.block_out_channels) - 1)  # the size of images changes nothing
    count = unet_graph(net, (multiple, multiple)).num_parameters
    if count > MAX_PARAMETERS:
        raise Invalid.because(
            f"block_out_channels and layers_per_block make a net of {count} parameters; "
            f"at most {MAX_PARAMETERS} are allowed",
            field="block_out_channels",
        )
