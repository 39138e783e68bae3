"""The forward process on one picture: uint8 in, uint8 out, by numpy in between, which on small
arrays is faster than torch.

To be seen, x_t is divided by max(1, sqrt(alpha^2 + sigma^2)), clipped to [-1, 1] and rounded. The
divisor is 1 wherever the process keeps the variance or lowers it. It matters for `edm`, whose noise
grows to 80 times the image's range: clipping alone would show black and white dots from a tenth of
the way on.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from app.noise.schema import Method
from models.arrays import UInt8
from models.diffusion.forward import diffuse
from models.diffusion.noise import normal
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig

Float32 = NDArray[np.float32]  # (C, H, W)

_FIRST = torch.zeros(1, dtype=torch.int64)  # the index of the only image


@dataclass(frozen=True)
class NoisedPicture:
    t: int
    alpha: float
    sigma: float
    snr: float | None  # None where there is no noise
    display_scale: float
    image: UInt8


@lru_cache(maxsize=64)
def noise_schedule(config: ScheduleConfig) -> NoiseSchedule:
    return NoiseSchedule.from_config(config)


def noise_picture(
    image: UInt8, schedule: NoiseSchedule, timesteps: Sequence[int], method: Method, seed: int
) -> list[NoisedPicture]:
    """One picture (H, W, C) for each t of `timesteps`, in their order."""
    x0 = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    x0 /= 127.5
    x0 -= 1.0
    levels = sorted(set(timesteps))
    process = _walk if method == "step_by_step" else _jumps
    pictures = {t: _picture(schedule, t, x_t) for t, x_t in process(schedule, x0, levels, seed)}
    return [pictures[t] for t in timesteps]


def _jumps(
    schedule: NoiseSchedule, x0: Float32, levels: Sequence[int], seed: int
) -> Iterator[tuple[int, Float32]]:
    """As models.diffusion.forward.closed_form, with the noise drawn once for all t."""
    noise = _noise(x0, seed, 0) if levels[-1] > 0 else x0
    for t in levels:
        yield t, diffuse(schedule, x0, 0, t, noise)


def _walk(
    schedule: NoiseSchedule, x0: Float32, levels: Sequence[int], seed: int
) -> Iterator[tuple[int, Float32]]:
    """As models.diffusion.forward.step_by_step, passing every t on one walk to the last."""
    x, here = x0, 0
    for t in levels:
        for s in range(here, t):
            x = diffuse(schedule, x, s, s + 1, _noise(x0, seed, s + 1))
        here = t
        yield t, x


def _noise(x0: Float32, seed: int, step: int) -> Float32:
    noise: Float32 = normal(seed, _FIRST, step, x0.shape)[0].numpy()
    return noise


def _picture(schedule: NoiseSchedule, t: int, x_t: Float32) -> NoisedPicture:
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
