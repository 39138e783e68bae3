"""What a training will come to, before it starts: its steps, its time, and warnings.

The rules are those of models.training.speed. They say when images will not be good yet; that they
will be good, nobody can say before the training.
"""

import math
from dataclasses import dataclass

from models.training.config import TrainConfig
from models.training.speed import images_needed, images_per_second

# A run of fewer steps makes noise, or blobs of colour: the larger of the two counts.
NOISE_WARMUPS = 2  # warm-ups of the learning rate
NOISE_STEPS_PER_PIXEL = 5  # of the longer side


@dataclass(frozen=True)
class Forecast:
    """`steps` and `seconds` are estimates where the config does not fix them, and None where the
    speed is not known. `good_minutes` is the least time for images like those of the data."""

    steps: int | None
    seconds: float | None
    good_minutes: int | None
    warnings: tuple[str, ...]


def forecast(
    config: TrainConfig, num_images: int, flops_per_second: float | None, *, is_new: bool = True
) -> Forecast:
    """Estimate what a run on `num_images` images comes to at a speed in models.training.speed's
    units, None where it is not known. Weights that are trained already (`is_new` is False) need no
    least time."""
    rate = None
    if flops_per_second is not None:
        rate = images_per_second(config.net, config.image_size, flops_per_second)
    steps, seconds = _budget(config, rate)
    if not is_new:
        return Forecast(steps, seconds, None, ())
    needed = images_needed(num_images)
    good_minutes = rounded(needed / rate / 60.0) if rate else None
    warnings = _warnings(config, steps, needed, good_minutes)
    return Forecast(steps, seconds, good_minutes, warnings)


def _budget(config: TrainConfig, rate: float | None) -> tuple[int | None, float | None]:
    """Return the steps and the seconds that the run takes: `steps` or `minutes`, whichever is used
    up first."""
    seconds = None if config.minutes is None else 60.0 * config.minutes
    if rate is None:
        return config.steps, seconds if config.steps is None else None
    steps = None if seconds is None else max(1, int(seconds * rate / config.batch_size))
    if config.steps is not None and (steps is None or config.steps <= steps):
        return config.steps, config.steps * config.batch_size / rate
    return steps, seconds


def _warnings(
    config: TrainConfig, steps: int | None, needed: int, good_minutes: int | None
) -> tuple[str, ...]:
    if steps is None or (steps + 1) * config.batch_size > needed:
        return ()
    height, width = config.image_size
    if steps < max(NOISE_WARMUPS * config.warmup_steps, NOISE_STEPS_PER_PIXEL * max(height, width)):
        expected = f"about {steps:,} steps: expect noise or blobs of colour"
    else:
        seen = steps * config.batch_size
        expected = f"about {steps:,} steps, in which {seen:,} images are seen: expect vague shapes"
    if good_minutes is None:
        return (f"{expected}; images like these need at least about {needed:,}",)
    return (
        f"{expected}; images of {width} x {height} pixels need at least about "
        f"{good_minutes:,} minutes here",
    )


def rounded(minutes: float) -> int:
    """Return whole minutes, at least 1 and never less than given, of two digits."""
    unit: int = 10 ** max(0, len(str(math.ceil(minutes))) - 2)
    return max(1, math.ceil(minutes / unit) * unit)
