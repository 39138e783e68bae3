"""The forward process: noise is added to an image, in one jump or step by step.

q(x_t | x_s) = N(alpha_ts x_s, sigma2_ts I) for any s < t (models.diffusion.schedule.transition).
From s = 0 it is the closed form x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps; from s = t - 1 it is
one step of the chain, x_t = sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps.
"""

import math

from models.arrays import AnyArray, library
from models.diffusion.noise import normal
from models.diffusion.schedule import NoiseSchedule, transition
from models.fields import Invalid


def diffuse(schedule: NoiseSchedule, x_s: AnyArray, s: int, t: int, noise: AnyArray) -> AnyArray:
    """Return x_t from x_s and standard normal noise of the same shape, float32 of torch or numpy.
    With t = s it is x_s itself.

    Raises Invalid unless 0 <= s <= t <= num_train_timesteps.
    """
    _check_times(schedule, s, t)
    if s == t:
        return x_s
    alpha_ts, sigma2_ts = transition(schedule.alpha, schedule.sigma, s, t)
    return alpha_ts * x_s + math.sqrt(sigma2_ts) * noise


def closed_form(schedule: NoiseSchedule, x0: AnyArray, t: int, seed: int) -> AnyArray:
    """Return x_t (B, C, H, W) of clean images x0 in one jump. The noise is the same for every t, so
    that a series of t shows one image dissolve."""
    return diffuse(schedule, x0, 0, t, _noise(x0, seed, 0))


def step_by_step(schedule: NoiseSchedule, x0: AnyArray, t: int, seed: int) -> AnyArray:
    """Return x_t by t steps of the chain, with fresh noise at each."""
    _check_times(schedule, 0, t)
    x = x0
    for s in range(t):
        x = diffuse(schedule, x, s, s + 1, _noise(x0, seed, s + 1))
    return x


def _check_times(schedule: NoiseSchedule, s: int, t: int) -> None:
    if not 0 <= s <= t <= schedule.num_train_timesteps:
        raise Invalid.because(
            f"s, t are {s}, {t}; they must satisfy 0 <= s <= t <= {schedule.num_train_timesteps}",
            field="t",
        )


def _noise(x0: AnyArray, seed: int, step: int) -> AnyArray:
    index = library(x0).arange(len(x0), device=x0.device)
    return normal(seed, index, step, x0.shape[1:])
