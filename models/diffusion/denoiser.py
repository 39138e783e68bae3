"""An image's way up to a noise level and back: noised(), denoise() and what they share.

    x_t    = alpha x0 + sigma noise
    x0_hat = p_x x_t + p_F net(c_in x_t, c_noise, label)

with numbers per row (models.diffusion.prediction), so that each row of a batch may stand at a noise
level of its own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.arrays import Float64, Int64
from models.diffusion.model import DiffusionModel
from models.diffusion.prediction import read_off


@dataclass(frozen=True)
class NoiseLevels:
    """The noise level of each row: float64 (B,) each, sigma > 0."""

    alpha: Float64
    sigma: Float64
    c_noise: Float64

    @classmethod
    def at(cls, model: DiffusionModel, t: Int64) -> "NoiseLevels":
        """Return the levels of the model's own schedule at t (B,) int64 in 1..T."""
        schedule = model.schedule
        return cls(schedule.alpha[t], schedule.sigma[t], schedule.c_noise(t))

    @classmethod
    def of_ratio(cls, model: DiffusionModel, ratio: Float64) -> "NoiseLevels":
        """Return the levels with sigma / alpha = `ratio` (B,), which may lie between two t."""
        alpha, sigma, c_noise, _ = model.schedule.between(ratio)
        return cls(alpha, sigma, c_noise)


def noised(x0: Tensor, levels: NoiseLevels, noise: Tensor) -> Tensor:
    """Return x_t = alpha x0 + sigma noise, (B, C, H, W) like x0 and noise."""
    return column(levels.alpha, x0) * x0 + column(levels.sigma, x0) * noise


def denoise(
    model: DiffusionModel,
    x_t: Tensor,
    levels: NoiseLevels,
    label: Tensor | None = None,
    guidance_scale: float = 1.0,
) -> Tensor:
    """Return x0_hat (B, C, H, W) of x_t. `label` is (B,) int64, None for an unconditional model.

    With a guidance_scale g other than 1 the network is called twice, with the class and without:
    uncond + g (cond - uncond) (Ho & Salimans 2021).
    """
    if label is None or guidance_scale == 1.0:
        return _denoise_once(model, x_t, levels, label)
    twice = NoiseLevels(*(np.tile(v, 2) for v in (levels.alpha, levels.sigma, levels.c_noise)))
    null = torch.full_like(label, model.null_label)
    both = _denoise_once(model, torch.cat([x_t, x_t]), twice, torch.cat([label, null]))
    cond, uncond = both.chunk(2)
    return uncond + guidance_scale * (cond - uncond)


def _denoise_once(
    model: DiffusionModel, x_t: Tensor, levels: NoiseLevels, label: Tensor | None
) -> Tensor:
    k = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma)
    c_noise = torch.from_numpy(levels.c_noise).to(x_t.device, torch.float32)
    y = model.net(column(k.c_in, x_t) * x_t, c_noise, label)
    x0_hat: Tensor = read_off(y, x_t, column(k.p_x, x_t), column(k.p_F, x_t))
    return x0_hat


def column(values: Float64, like: Tensor) -> Tensor:
    """Return float64 (B,) as float32 (B, 1, 1, 1), on the device of the images `like`."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device, torch.float32)[
        :, None, None, None
    ]
