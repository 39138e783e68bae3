"""Consistency tuning: a trained model learns to jump to the clean image from any noise level, so
that it samples in one, two or four steps (Geng et al. 2024, "Consistency Models Made Easy").

Its estimate at a noise level is pulled towards its own estimate, taken as fixed, at a lower level
of the same image and the same noise (models.training.objective.Consistency). Stage by stage that
level comes closer:

    r_s = r_t (1 - n(r_t) / 2^stage),   n(r) = 1 + 8 / (1 + e^r)

with r = sigma / alpha, in stages of equal length. The paper's first two stages, whose target is the
clean image nearly everywhere, are left out: a denoiser knows that already, and would lose some of
its knowledge to the other distance. Where r_s falls below the lowest level, the target is the image
itself. The distance is |.| (their pseudo-Huber with c -> 0), weighted by 1 / (r_t - r_s).
"""

import math

import numpy as np
import torch
from torch import Tensor

from models.arrays import Float64
from models.diffusion.noise import Stream, uniform
from models.diffusion.schedule import NoiseSchedule

STAGES = (3, 4, 5, 6, 7, 8)
LOG_RATIO_MEAN, LOG_RATIO_STD = -1.1, 2.0  # of ln(sigma / alpha), as drawn
HUBER = 0.00054  # times the square root of the number of values (Song & Dhariwal 2023)


def draw_ratios(
    schedule: NoiseSchedule, seed: int, slot: Tensor, step: int, batch_size: int
) -> Float64:
    """Return r_t (B,) of each image, log-normal and stratified over the batch of `batch_size`.

    It is a function of (seed, step) and of `slot`, int64 (B,): the image's place in the batch.
    """
    u = uniform(seed, slot, step, Stream.STUDENT)[:, 0].cpu().numpy()
    u = (slot.cpu().numpy() + u) / batch_size
    normal = torch.special.ndtri(torch.from_numpy(u)).numpy()
    drawn = np.exp(LOG_RATIO_MEAN + LOG_RATIO_STD * normal)
    return np.asarray(np.clip(drawn, *ratio_range(schedule)))


def lower_ratios(ratio: Float64, progress: float) -> Float64:
    """Return r_s, the level of the target. `progress` in 0..1 is the share of the tuning that is
    done. A ratio from 0 up to the lowest level means the clean image."""
    stage = STAGES[min(len(STAGES) - 1, math.floor(progress * len(STAGES)))]
    n = 1.0 + 8.0 / (1.0 + np.exp(np.minimum(ratio, 50.0)))
    return np.asarray(np.maximum(ratio * (1.0 - n / 2.0**stage), 0.0))


def ratio_range(schedule: NoiseSchedule) -> tuple[float, float]:
    """Return the lowest and the highest sigma / alpha of the levels that keep some signal."""
    rows = np.flatnonzero(schedule.alpha[1:] > 0.0) + 1
    ratio = schedule.sigma[rows] / schedule.alpha[rows]
    return float(ratio[0]), float(ratio[-1])


def pseudo_huber(estimate: Tensor, target: Tensor) -> Tensor:
    """Return the distance (B,) of images (B, C, H, W): |.| but for the smallest differences."""
    c = HUBER * math.sqrt(target[0].numel())
    return ((estimate - target).square().sum((1, 2, 3)) + c * c).sqrt() - c
