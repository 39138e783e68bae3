"""From a noisy image to the estimate of the clean one, for rows at any noise levels.

x0_hat = p_x x_t + p_F net(c_in x_t, c_noise, label), with numbers per row
(models.diffusion.prediction).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import Float64


@dataclass(frozen=True)
class NoiseLevels:
    """Where each row stands: float64 (B,) each, sigma > 0."""

    alpha: Float64
    sigma: Float64
    c_noise: Float64

    @classmethod
    def at(cls, model: DiffusionModel, t: "np.typing.NDArray[np.int64]") -> "NoiseLevels":
        """The levels of the model's own schedule at t (B,) int64 in 1..T."""
        schedule = model.schedule
        return cls(schedule.alpha[t], schedule.sigma[t], schedule.c_noise(t))


def denoise(
    model: DiffusionModel,
    x_t: Tensor,
    levels: NoiseLevels,
    label: Tensor | None = None,
    guidance_scale: float = 1.0,
) -> Tensor:
    """x0_hat (B, C, H, W) of x_t. `label` (B,) int64, None for an unconditional model.

    With a guidance_scale g other than 1 the network is asked twice, with the class and without:
    uncond + g (cond - uncond) (Ho & Salimans 2021).
    """
    if label is None or guidance_scale == 1.0:
        return _read_off(model, x_t, levels, label)
    twice = NoiseLevels(*(np.tile(v, 2) for v in (levels.alpha, levels.sigma, levels.c_noise)))
    null = torch.full_like(label, model.null_label)
    both = _read_off(model, torch.cat([x_t, x_t]), twice, torch.cat([label, null]))
    cond, uncond = both.chunk(2)
    return uncond + guidance_scale * (cond - uncond)


def _read_off(
    model: DiffusionModel, x_t: Tensor, levels: NoiseLevels, label: Tensor | None
) -> Tensor:
    k = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma)
    c_noise = torch.from_numpy(levels.c_noise).to(x_t.device, torch.float32)
    y = model.net(column(k.c_in, x_t) * x_t, c_noise, label)
    x0_hat: Tensor = column(k.p_x, x_t) * x_t + column(k.p_F, x_t) * y.float()
    return x0_hat


def column(values: Float64, like: Tensor) -> Tensor:
    """float64 (B,) as float32 (B, 1, 1, 1) beside the images `like`."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device, torch.float32)[
        :, None, None, None
    ]
