"""Grids: the noise levels that a sampler visits, and the spacings that choose them.

A spacing is registered where it is written, by the decorator `spacing`; names, descriptions and the
schedules that it fits are read from `SPACINGS`.

Float64 throughout; knows nothing of networks, images or torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from models.arrays import Float64
from models.diffusion.schedule import SCHEDULES, NoiseSchedule, ScheduleName, karras_sigmas
from models.fields import Invalid


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels from the noisiest to the clean image; all float64 (N + 1,).

    `c_noise` is the label that conditions the network, `t` the schedule's time for display
    (interpolated where the level lies between two of its rows). Both are 0 at the clean end, where
    the network is never called.
    """

    alpha: Float64
    sigma: Float64
    c_noise: Float64
    t: Float64

    def __len__(self) -> int:
        return len(self.alpha) - 1


def timestep_grid(
    schedule: NoiseSchedule,
    num_inference_steps: int,
    spacing: str | None = None,
    steps_offset: int = 0,
) -> Grid:
    """Return the levels that a sampler visits. None is the first of `spacings_of`. `steps_offset`
    moves the levels of `leading`.

    Raises Invalid for a spacing that does not fit, or steps outside 1..T.
    """
    T = schedule.num_train_timesteps
    fitting = spacings_of(schedule.config.name)
    spacing = spacing or fitting[0]
    if spacing not in SPACINGS:
        raise Invalid("spacing", spacing, f"it must be one of {tuple(SPACINGS)}")
    if not 1 <= num_inference_steps <= T:
        raise Invalid(
            "num_inference_steps",
            num_inference_steps,
            f"it must lie in 1..{T}, the model's num_train_timesteps",
        )
    if spacing not in fitting:
        raise Invalid.because(
            f"spacing {spacing!r} does not fit schedule {schedule.config.name!r}; "
            f"it takes one of {fitting}",
            field="spacing",
        )
    if steps_offset and spacing == leading.__name__:
        return _leading(schedule, num_inference_steps, steps_offset)
    return SPACINGS[spacing].grid(schedule, num_inference_steps)


def spacings_of(schedule: ScheduleName) -> tuple[str, ...]:
    """Return the spacings that fit a schedule, its default first. A stride over timesteps means
    nothing where the schedule is not made of timesteps (`edm`)."""
    strides_fit = SCHEDULES[schedule].family.is_made_of_timesteps
    return tuple(name for name, kind in SPACINGS.items() if strides_fit or not kind.is_stride)


def grid_from(grid: Grid, first: int) -> Grid:
    """Return the tail of a grid from level `first`, where img2img starts; a sampler's history
    starts afresh there. Raises Invalid for a level outside 0..N - 1."""
    if not 0 <= first < len(grid):
        raise Invalid("first", first, f"it must lie in 0..{len(grid) - 1}")
    return Grid(grid.alpha[first:], grid.sigma[first:], grid.c_noise[first:], grid.t[first:])


def first_level(grid: Grid, strength: float) -> int:
    """Return the level where `grid_from` starts for a strength in (0, 1]: that share of the N steps
    is taken, rounded, at least one. Raises Invalid for a strength out of range."""
    if not 0.0 < strength <= 1.0:
        raise Invalid("strength", strength, "it must lie above 0 and at most at 1")
    return len(grid) - max(1, math.floor(strength * len(grid) + 0.5))


# The registry -------------------------------------------------------------------------------------

SpacingFunction = Callable[[NoiseSchedule, int], Grid]


@dataclass(frozen=True)
class SpacingKind:
    """One entry: `grid(schedule, n)` makes the levels of n steps. `is_stride`: the levels are
    strides over the timesteps of a schedule."""

    grid: SpacingFunction
    about: str
    is_stride: bool


SPACINGS: dict[str, SpacingKind] = {}


def spacing(*, about: str, is_stride: bool) -> Callable[[SpacingFunction], SpacingFunction]:
    """Register the decorated function under its own name."""

    def register(function: SpacingFunction) -> SpacingFunction:
        SPACINGS[function.__name__] = SpacingKind(function, about, is_stride)
        return function

    return register


# Strides over the rows of the schedule ------------------------------------------------------------


@spacing(
    about="even strides that begin at T; the safe choice where no signal is left there",
    is_stride=True,
)
def trailing(schedule: NoiseSchedule, n: int) -> Grid:
    T = schedule.num_train_timesteps
    return _at_rows(schedule, np.round(T - np.arange(n) * (T / n)).astype(np.int64))


@spacing(
    about="even strides that end at t = 1 and do not begin at T, as early code has them",
    is_stride=True,
)
def leading(schedule: NoiseSchedule, n: int) -> Grid:
    return _leading(schedule, n, 0)


def _leading(schedule: NoiseSchedule, n: int, offset: int) -> Grid:
    T = schedule.num_train_timesteps
    steps = np.arange(n)[::-1] * (T // n) + 1 + offset
    if steps[0] > T:
        rule = f"with the model's steps_offset of {offset} it would begin at t = {steps[0]}, beyond"
        raise Invalid("num_inference_steps", n, f"{rule} {T}")
    return _at_rows(schedule, steps)


@spacing(about="evenly from T to 1, both included", is_stride=True)
def linspace(schedule: NoiseSchedule, n: int) -> Grid:
    T = schedule.num_train_timesteps
    steps = np.linspace(0, T - 1, n)[::-1] if n > 1 else np.array([T - 1])
    return _at_rows(schedule, np.round(steps).astype(np.int64) + 1)  # ties as in diffusers


# Levels of their own, from T exactly to t = 1; a single level is T however it is spaced -----------


@spacing(
    about="even in (sigma / alpha)^(1/7), most of them at low noise (Karras et al. 2022)",
    is_stride=False,
)
def karras(schedule: NoiseSchedule, n: int) -> Grid:
    """Space levels evenly in (sigma / alpha)^(1 / rho) (EDM, eq. 5)."""
    if n == 1:
        return trailing(schedule, n)
    high, low = _ratio_range(schedule)
    return _at_ratios(schedule, karras_sigmas(high, low, schedule.config.rho, n))


@spacing(
    about="even in ln(alpha / sigma), most of them at low noise (Lu et al. 2022)", is_stride=False
)
def logsnr(schedule: NoiseSchedule, n: int) -> Grid:
    if n == 1:
        return trailing(schedule, n)
    return _at_ratios(schedule, np.geomspace(*_ratio_range(schedule), n))


@spacing(about="as karras, without the last level", is_stride=False)
def coarse(schedule: NoiseSchedule, n: int) -> Grid:
    """Make `karras` of one level more and leave the last out, which is as good as clean: for a
    model that jumps to the clean image from any level."""
    if n == 1:
        return trailing(schedule, n)
    grid = karras(schedule, n + 1)
    return Grid(*(np.delete(v, n) for v in (grid.alpha, grid.sigma, grid.c_noise, grid.t)))


def _at_rows(schedule: NoiseSchedule, steps: "np.typing.NDArray[np.int64]") -> Grid:
    return _with_clean_end(
        schedule.alpha[steps], schedule.sigma[steps], schedule.c_noise(steps), steps.astype(float)
    )


def _ratio_range(schedule: NoiseSchedule) -> tuple[float, float]:
    """Return the largest and the least sigma / alpha between which levels are spread. Where no
    signal is left at T, the spread begins at T - 1; `_at_ratios` puts T in place of its first
    level."""
    last = schedule.num_train_timesteps
    noisiest = last if schedule.alpha[last] > 0.0 else last - 1
    high, low = (float(schedule.sigma[t] / schedule.alpha[t]) for t in (noisiest, 1))
    return high, low


def _at_ratios(schedule: NoiseSchedule, ratio: Float64) -> Grid:
    """Make the levels with sigma / alpha = `ratio`, noisiest first; the first is T exactly."""
    last = np.array([schedule.num_train_timesteps])
    alpha, sigma, c_noise, t = schedule.between(ratio[1:])
    return _with_clean_end(
        np.append(schedule.alpha[last], alpha),
        np.append(schedule.sigma[last], sigma),
        np.append(schedule.c_noise(last), c_noise),
        np.append(last.astype(float), t),
    )


def _with_clean_end(alpha: Float64, sigma: Float64, c_noise: Float64, t: Float64) -> Grid:
    return Grid(
        alpha=np.append(alpha, 1.0),
        sigma=np.append(sigma, 0.0),
        c_noise=np.append(c_noise, 0.0),
        t=np.append(t, 0.0),
    )


# Any of the names above; pydantic and OpenAPI see the list of them.
if TYPE_CHECKING:
    SpacingName = str
else:
    SpacingName = Literal[tuple(SPACINGS)]
