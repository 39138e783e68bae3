"""The forward process on one picture: uint8 in, uint8 out.

The arithmetic is numpy's, which is faster than torch on small arrays.

For display, x_t is divided by max(1, sqrt(alpha^2 + sigma^2)), clipped to [-1, 1] and rounded. The
divisor is 1 unless the process raises the variance. `edm` does: its noise grows to 80 times the
image's range, and clipping alone would show black and white dots from a tenth of the way on.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from app.noise.schema import Method
from models.arrays import UInt8
from models.diffusion.forward import diffuse
from models.diffusion.noise import normal
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig

Float32 = NDArray[np.float32]  # (C, H, W)

_FIRST = np.zeros(1, np.int64)  # the index of the only image


@dataclass(frozen=True)
class NoisedPicture:
    t: int
    alpha: float
    sigma: float
    snr: float | None  # None if there is no noise
    display_scale: float
    image: UInt8


@lru_cache(maxsize=64)
def noise_schedule(config: ScheduleConfig) -> NoiseSchedule:
    return NoiseSchedule.from_config(config)


def noise_picture(
    image: UInt8, schedule: NoiseSchedule, timesteps: Sequence[int], method: Method, seed: int
) -> list[NoisedPicture]:
    """Return one picture (H, W, C) for each t of `timesteps`, in their order."""
    x0 = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    x0 /= 127.5
    x0 -= 1.0
    levels = sorted(set(timesteps))
    process = _step_by_step if method == "step_by_step" else _closed_form
    pictures = {t: _to_picture(schedule, t, x_t) for t, x_t in process(schedule, x0, levels, seed)}
    return [pictures[t] for t in timesteps]


def _closed_form(
    schedule: NoiseSchedule, x0: Float32, levels: Sequence[int], seed: int
) -> Iterator[tuple[int, Float32]]:
    """Yield (t, x_t) as models.diffusion.forward.closed_form; the noise is drawn once for all t."""
    noise = _draw_noise(x0, seed, 0) if levels[-1] > 0 else x0
    for t in levels:
        yield t, diffuse(schedule, x0, 0, t, noise)


def _step_by_step(
    schedule: NoiseSchedule, x0: Float32, levels: Sequence[int], seed: int
) -> Iterator[tuple[int, Float32]]:
    """Yield (t, x_t) as models.diffusion.forward.step_by_step, on one chain through every t."""
    x, reached = x0, 0
    for t in levels:
        for s in range(reached, t):
            x = diffuse(schedule, x, s, s + 1, _draw_noise(x0, seed, s + 1))
        reached = t
        yield t, x


def _draw_noise(x0: Float32, seed: int, step: int) -> Float32:
    noise: Float32 = normal(seed, _FIRST, step, x0.shape)[0]
    return noise


def _to_picture(schedule: NoiseSchedule, t: int, x_t: Float32) -> NoisedPicture:
    alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
    scale = max(1.0, math.hypot(alpha, sigma))
    shown = x_t * (127.5 / scale)
    shown += 127.5
    np.rint(shown, out=shown)
    np.clip(shown, 0.0, 255.0, out=shown)
    return NoisedPicture(
        t=t,
        alpha=alpha,
        sigma=sigma,
        snr=(alpha / sigma) ** 2 if sigma > 0 else None,
        display_scale=scale,
        image=np.ascontiguousarray(shown.astype(np.uint8).transpose(1, 2, 0)),
    )
