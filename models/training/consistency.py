"""Consistency tuning: a trained model learns to jump to the clean image from any noise level, so
that it samples in one, two or four steps (Geng et al. 2024, "Consistency Models Made Easy").

Its estimate at a noise level is pulled towards its own estimate, taken as fixed, at a lower level
of the same image and the same noise; stage by stage that level comes closer.

    r_s = r_t (1 - n(r_t) / 2^stage),   n(r) = 1 + 8 / (1 + e^r)

with r = sigma / alpha, in stages of equal length. The first two of the paper, whose target is the
clean image nearly everywhere, are left out: a denoiser knows that already, and loses some of what
it knows to the other distance. Where r_s falls below the lowest level the
target is the image itself. The distance is |.| (their pseudo-Huber with c -> 0), weighted by
1 / (r_t - r_s).
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

from models.diffusion.denoiser import NoiseLevels, column, noised, read_off
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, normal, uniform
from models.diffusion.schedule import Float64
from models.training.objective import Batch

STAGES = (3, 4, 5, 6, 7, 8)
LOG_RATIO_MEAN, LOG_RATIO_STD = -1.1, 2.0  # of ln(sigma / alpha), as drawn
HUBER = 0.00054  # times the square root of the number of values (Song & Dhariwal 2023)


def consistency_loss(
    model: DiffusionModel,
    net: nn.Module,
    batch: Batch,
    seed: int,
    progress: float,
    dropout_seed: int | None = None,
) -> Tensor:
    """(B,) float32. `progress` in 0..1 says how far the tuning is. Both estimates are made with the
    same dropout."""
    high = _drawn_ratios(model, batch, seed)
    low = lower_ratios(high, progress)
    noise = normal(seed, batch.slot, batch.step, batch.x0.shape[1:], Stream.TRAINING)
    if dropout_seed is not None:
        torch.manual_seed(dropout_seed)
    estimate = _estimate(model, net, batch, noise, high)
    if dropout_seed is not None:
        torch.manual_seed(dropout_seed)
    with torch.no_grad():
        floor = _ratio_range(model)[0]
        target = _estimate(model, net, batch, noise, np.maximum(low, floor))
        clean = torch.from_numpy(low < floor).to(target.device)[:, None, None, None]
        target = torch.where(clean, batch.x0, target)
    c = HUBER * math.sqrt(target[0].numel())
    distance = ((estimate - target).square().sum((1, 2, 3)) + c * c).sqrt() - c
    return distance * column(1.0 / (high - low), batch.x0)[:, 0, 0, 0]


def lower_ratios(ratio: Float64, progress: float) -> Float64:
    """Where the target looks; below 0 and up to the lowest level means the clean image."""
    stage = STAGES[min(len(STAGES) - 1, math.floor(progress * len(STAGES)))]
    n = 1.0 + 8.0 / (1.0 + np.exp(np.minimum(ratio, 50.0)))
    return np.asarray(np.maximum(ratio * (1.0 - n / 2.0**stage), 0.0))


def _drawn_ratios(model: DiffusionModel, batch: Batch, seed: int) -> Float64:
    u = uniform(seed, batch.slot, batch.step, Stream.STUDENT)[:, 0].cpu().numpy()
    u = (batch.slot.cpu().numpy() + u) / batch.batch_size
    normal_u = torch.special.ndtri(torch.from_numpy(u)).numpy()
    drawn = np.exp(LOG_RATIO_MEAN + LOG_RATIO_STD * normal_u)
    return np.asarray(np.clip(drawn, *_ratio_range(model)))


def _ratio_range(model: DiffusionModel) -> tuple[float, float]:
    schedule = model.schedule
    rows = np.flatnonzero(schedule.alpha[1:] > 0.0) + 1
    ratio = schedule.sigma[rows] / schedule.alpha[rows]
    return float(ratio[0]), float(ratio[-1])


def _estimate(
    model: DiffusionModel, net: nn.Module, batch: Batch, noise: Tensor, ratio: Float64
) -> Tensor:
    """x0_hat (B, C, H, W) at these levels, of the same images with the same noise."""
    levels = NoiseLevels.of_ratio(model, ratio)
    x0 = batch.x0
    x_t = noised(x0, levels, noise)
    k = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma)
    told = torch.from_numpy(levels.c_noise).to(x0.device, torch.float32)
    y = net(column(k.c_in, x0) * x_t, told, batch.label, batch.told)
    return read_off(y, x_t, column(k.p_x, x0), column(k.p_F, x0))
