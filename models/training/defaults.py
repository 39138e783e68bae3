"""Default hyperparameters, chosen from the data, the time and the device.

Each choice comes with the reason that is shown beside it; it names what was looked at, and no more.
docs/recipes.md has the measurements behind them. The values that a caller gives are not known here:
models.training.config puts them on top.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from models.nets.config import UNetConfig
from models.training.speed import BENCHMARKED, images_needed, images_per_second

LossWeighting = Literal["uniform", "min_snr", "learned"]
Optimizer = Literal["adam", "muon"]
Device = Literal["cpu", "cpu_bf16", "cuda"]
DEVICES: tuple[Device, ...] = get_args(Device)

DEFAULT_MAX_SIDE = 64  # larger images are scaled down unless image_size says otherwise
MIN_SIDE = 8
FEW_IMAGES = 5_000
MANY_PASSES = 100  # over the images; from here on a small net memorises them
MUCH_CUT = 0.1  # of an image's area
MUON_RATE = 1e-2
GUIDANCE = 2.0
COMPILE_MINUTES = 5.0  # shorter runs on a GPU do not earn the minute of compiling back


@dataclass(frozen=True)
class DatasetFacts:
    """The properties of a dataset that choices depend on. `image_size` is (height, width), the most
    common one; `class_names` is empty where there are no classes."""

    num_images: int
    channels: int
    image_size: tuple[int, int]
    class_names: tuple[str, ...]
    sizes: Mapping[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True)
class ChoiceInputs:
    """Everything that the choices depend on. `image_size` is (height, width) of the run's images;
    `minutes` or `steps` is None where it does not limit the run."""

    facts: DatasetFacts
    image_size: tuple[int, int]
    num_classes: int
    minutes: float | None
    steps: int | None
    device: Device

    @property
    def longest_side(self) -> int:
        """The longer side of the run's images, in pixels."""
        return max(self.image_size)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


@dataclass(frozen=True)
class Choice:
    """A chosen value and the reason for it."""

    value: Any
    reason: str


def choose(inputs: ChoiceInputs) -> dict[str, Choice]:
    """Return the choices by the name of their field in models.training.config.TrainConfig.

    The net is one choice, as a whole.
    """
    return {
        "net": _net(inputs),
        "fit": _fit(inputs),
        "batch_size": _batch_size(inputs),
        "augmentation": _augmentation(inputs),
        "precision": _precision(inputs),
        "compile": _compile(inputs),
        "lr_schedule": Choice("linear", "the budget ends with small steps"),
        "class_dropout": _class_dropout(inputs),
        "ema_half_life_images": Choice(500_000, "the average forgets half in at most this many"),
    }


def default_image_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the data's own size, scaled down to at most DEFAULT_MAX_SIDE.

    Each side is rounded to a multiple of 4, or of 8 from 32 pixels up, so that the net can halve
    it.
    """
    scale = min(1.0, DEFAULT_MAX_SIDE / max(size))
    scaled = [side * scale for side in size]
    multiple = 8 if max(scaled) >= 32 else 4
    height, width = (max(MIN_SIDE, round(side / multiple) * multiple) for side in scaled)
    return height, width


def optimizer(device: Device, *, is_new: bool) -> Choice:
    """Choose Muon where it was found better: for new weights on a CPU."""
    if not is_new:
        return Choice("adam", "Muon was not measured with weights that are trained already")
    if device == "cuda":
        return Choice("adam", "Muon was not measured on a GPU")
    return Choice("muon", "on photographs of 32 pixels a half to two thirds of Adam's distance")


def learning_rate(net: UNetConfig, optimizer: Optimizer, *, distilled: bool = False) -> Choice:
    """Choose MUON_RATE for Muon. For Adam choose 2e-3 for nets of 32 channels, and less for wider
    ones, as 1 / sqrt(width)."""
    if optimizer == "muon":
        return Choice(MUON_RATE, "for Muon, whose updates do not depend on the width of the net")
    width = net.block_out_channels[0]
    rate = 2e-3 * math.sqrt(32 / max(32, width))
    reason = f"2e-3 at 32 channels, as 1 / sqrt(width) at {width}"
    if distilled:
        return Choice(rate / 2, f"half of {reason}: this net is trained already")
    return Choice(rate, reason)


def warmup_steps(optimizer: Optimizer) -> Choice:
    """Choose fewer steps for Muon than for Adam."""
    if optimizer == "muon":
        return Choice(20, "for Muon: a lower error on photographs than with 100, in one run each")
    return Choice(100, "for Adam, whose averages of squares need some steps to settle")


def guidance_scale(
    image_size: tuple[int, int], num_classes: int, device: Device, *, distilled: bool
) -> Choice:
    """Choose GUIDANCE for classes of images from 32 pixels up, which a CPU has too little time to
    learn well."""
    if not num_classes:
        return Choice(1.0, "without effect, since no classes are learned")
    if distilled:
        return Choice(1.0, "guidance was not measured with distilled models")
    if device == "cuda":
        return Choice(1.0, "guidance was not measured with models from a GPU")
    if max(image_size) < 32:
        return Choice(1.0, "on digits of 8 pixels guidance makes images more alike")
    return Choice(GUIDANCE, "on photographs of 32 pixels nearer to the real ones than without")


def loss_weighting(image_size: tuple[int, int], *, edm: bool) -> Choice:
    """Choose `learned` for the `edm` preset from 32 pixels up, else `uniform`."""
    if edm and max(image_size) >= 32:
        reason = "every noise level counts alike: better by a quarter on photographs of 32 pixels"
        return Choice("learned", reason)
    if edm:
        return Choice("uniform", "on digits of 8 pixels `learned` scored no better")
    return Choice("uniform", "`learned` is chosen for preset edm from 32 pixels up only")


def _fit(inputs: ChoiceInputs) -> Choice:
    """Choose `crop`, and say how many images lose much by it; only the most common sizes are
    known."""
    shape = inputs.image_size[0] / inputs.image_size[1]
    losing = sum(
        count
        for (height, width), count in inputs.facts.sizes.items()
        if 1 - min(shape, height / width) / max(shape, height / width) > MUCH_CUT
    )
    of_these = "of the most common sizes"
    if not losing:
        return Choice("crop", f"no image {of_these} loses more than {MUCH_CUT:.0%} of its area")
    return Choice(
        "crop",
        f"{losing} images {of_these} lose more than {MUCH_CUT:.0%} of their area "
        "at the edges; `pad` and `stretch` keep all of it",
    )


def _net(inputs: ChoiceInputs) -> Choice:
    size, channels = inputs.image_size, inputs.facts.channels
    num_classes = inputs.num_classes
    if inputs.on_gpu:
        net = UNetConfig.large(size, channels, num_classes)
        few = inputs.facts.num_images < FEW_IMAGES
        net = replace(net, dropout=0.25 if few else 0.1)
        width = f"{net.block_out_channels[0]} channels, as for every training on a GPU"
        return Choice(net, f"{width}; {_few(few)}")
    net = UNetConfig.small(size, channels, num_classes)
    enough = _has_time_for(net, inputs)
    why = "for images of this size, what a CPU trains in the time"
    if inputs.longest_side >= 32:
        seen = f"{images_needed(inputs.facts.num_images):,} images in the minutes"
        why = f"a CPU shows this net {seen}" if enough else f"a CPU shows no wider net {seen}"
    if inputs.longest_side >= 32 and not enough:
        halved = tuple(max(32, width // 2) for width in net.block_out_channels)
        net = replace(net, block_out_channels=halved)
    passes = _passes_on_a_cpu(inputs)
    net = replace(net, norm_num_groups=8, dropout=0.25 if passes >= MANY_PASSES else 0.0)
    width = f"{net.block_out_channels[0]} channels: {why}"
    return Choice(net, f"{width}; {_dropout(net.dropout, inputs, passes)}")


def _has_time_for(net: UNetConfig, inputs: ChoiceInputs) -> bool:
    """Return whether a CPU shows the net as many images as it needs in the minutes."""
    if inputs.minutes is None:
        return False
    rate = images_per_second(net, inputs.image_size, BENCHMARKED[inputs.device])
    return 60.0 * inputs.minutes * rate >= images_needed(inputs.facts.num_images)


def _passes_on_a_cpu(inputs: ChoiceInputs) -> float:
    """Estimate how often each image will be seen, at 1,500 images of 8 x 8 pixels a second, which
    two cores reach."""
    if inputs.minutes is None:
        images = (inputs.steps or 0) * _batch_size(inputs).value
    else:
        height, width = inputs.image_size
        images = 60.0 * inputs.minutes * 1500.0 * 64.0 / (height * width)
    return float(images / inputs.facts.num_images)


def _dropout(dropout: float, inputs: ChoiceInputs, passes: float) -> str:
    estimate = "" if inputs.minutes is None else ", by an estimate for two cores"
    seen = f"each image is seen about {passes:.{1 if passes < 10 else 0}f} times{estimate}"
    if dropout:
        return f"dropout {dropout:g}, since {seen}"
    return f"no dropout, since {seen}: less than {MANY_PASSES}"


def _few(few: bool) -> str:
    if few:
        return f"dropout 0.25, since there are fewer than {FEW_IMAGES} images"
    return f"dropout 0.1, since there are {FEW_IMAGES} images or more"


def _class_dropout(inputs: ChoiceInputs) -> Choice:
    if inputs.num_classes:
        return Choice(0.1, "one in ten is learned without its class, for guidance")
    return Choice(0.1, "without effect, since no classes are learned")


def _batch_size(inputs: ChoiceInputs) -> Choice:
    most = inputs.facts.num_images
    if inputs.on_gpu:
        width, reason = 512, "as for every training on a GPU"
    elif inputs.longest_side >= 32:
        width, reason = 32, "small, so that a CPU makes more steps: images of 32 pixels or more"
    else:
        width, reason = 128, "as for all images below 32 pixels on a CPU"
    if most < width:
        return Choice(most, f"all images at once, since there are fewer than {width}")
    return Choice(width, reason)


def _augmentation(inputs: ChoiceInputs) -> Choice:
    if inputs.on_gpu and inputs.facts.num_images < FEW_IMAGES:
        return Choice(0.12, f"a GPU, and fewer than {FEW_IMAGES} images")
    if inputs.on_gpu:
        return Choice(0.0, f"there are {FEW_IMAGES} images or more")
    return Choice(0.0, "off on a CPU: on digits it did not score better than dropout alone")


def _precision(inputs: ChoiceInputs) -> Choice:
    if inputs.on_gpu:
        return Choice("bfloat16", "a GPU; weights and averages stay float32")
    if inputs.device == "cpu":
        return Choice("float32", "the CPU has no instructions for bfloat16")
    if inputs.longest_side >= 32:
        return Choice("bfloat16", "the CPU has instructions for it, which pay from 32 pixels up")
    return Choice("float32", "images below 32 pixels, for which bfloat16 was slower on a CPU")


def _compile(inputs: ChoiceInputs) -> Choice:
    if inputs.on_gpu and (inputs.minutes or COMPILE_MINUTES) >= COMPILE_MINUTES:
        return Choice(True, f"a GPU, and no budget below {COMPILE_MINUTES:g} minutes")
    if inputs.on_gpu:
        return Choice(False, f"less than {COMPILE_MINUTES:g} minutes: compiling takes about one")
    return Choice(False, "on a CPU an hour did not earn the minute of compiling back")
