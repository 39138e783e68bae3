"""What a training step minimises: at which noise levels, against which target, with which weight.

The loss of an image is the mean squared error on the network's own target
(models.diffusion.prediction), times a weight:

    uniform    1: for `ddpm` Ho et al. 2020, eq. 14; for `edm` that of Karras et al. 2022, table 1
    min_snr    min(snr, 5), as seen by x0_hat (Hang et al. 2023)
    learned    1 / e^u(sigma), where u learns the logarithm of the error (Karras et al. 2024,
               eq. 20-21), so that every level counts alike however hard it is

Levels: t uniform in 1..T, or ln sigma ~ N(-1.2, 1.2^2) for `edm`; stratified, each image of a batch
draws from a part of its own.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from models.diffusion.denoiser import NoiseLevels
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, uniform
from models.diffusion.schedule import Float64

LossWeighting = Literal["uniform", "min_snr", "learned"]
LOSS_WEIGHTINGS: tuple[LossWeighting, ...] = get_args(LossWeighting)

EDM_LOG_SIGMA_MEAN, EDM_LOG_SIGMA_STD = -1.2, 1.2
MIN_SNR_GAMMA = 5.0


@dataclass(frozen=True)
class Batch:
    """Part of a training batch. `slot` int64 (B,) is each image's place in the whole batch of
    `batch_size`, which all its randomness is a function of."""

    x0: Tensor
    label: Tensor | None
    slot: Tensor
    step: int
    batch_size: int
    told: Tensor | None = None  # of augmentation


def draw_levels(model: DiffusionModel, batch: Batch, seed: int, stratified: bool) -> NoiseLevels:
    """One noise level for each image."""
    u: Float64 = uniform(seed, batch.slot, batch.step, Stream.LEVEL)[:, 0].cpu().numpy()
    if stratified:
        u = (batch.slot.cpu().numpy() + u) / batch.batch_size
    if not model.schedule.family.is_made_of_timesteps:
        normal = torch.special.ndtri(torch.from_numpy(u)).numpy()
        log_sigma = EDM_LOG_SIGMA_MEAN + EDM_LOG_SIGMA_STD * normal
        return NoiseLevels(np.ones_like(u), np.exp(log_sigma), log_sigma / 4.0)
    t = 1 + np.floor(u * model.schedule.num_train_timesteps).astype(np.int64)
    return NoiseLevels.at(model, t)


def min_snr_weight(model: DiffusionModel, levels: NoiseLevels) -> Float64:
    """On the network's target: an error of it is p_F times as large in x0_hat."""
    snr = np.square(levels.alpha / levels.sigma)
    p_F = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma).p_F
    return np.asarray(np.minimum(snr, MIN_SNR_GAMMA) * np.square(p_F))


class LearnedWeighting(nn.Module):
    """u of ln(sigma / alpha) (B,): random waves and a linear layer, nothing at first. Belongs to
    the training, not to the model."""

    def __init__(self, num_waves: int = 64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(num_waves, generator=generator))
        self.register_buffer("phases", 2 * math.pi * torch.rand(num_waves, generator=generator))
        self.linear = nn.Linear(num_waves, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, log_ratio: Tensor) -> Tensor:
        frequencies, phases = self.get_buffer("frequencies"), self.get_buffer("phases")
        waves = torch.cos(0.5 * log_ratio[:, None] * frequencies + phases)
        u: Tensor = self.linear(math.sqrt(2.0) * waves)[:, 0]
        return u
