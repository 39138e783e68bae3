"""The objective of a training step: its noise levels, its target and the weight of each error.

`denoising` trains a model from nothing; `consistency` tunes a trained one
(models.training.consistency). The denoising loss of an image is the mean squared error on the
network's own target (models.diffusion.prediction), times a weight:

    uniform    1: for `ddpm` Ho et al. 2020, eq. 14; for `edm` that of Karras et al. 2022, table 1
    min_snr    min(snr, 5), as seen by x0_hat (Hang et al. 2023)
    learned    1 / e^u(sigma), where u learns the logarithm of the error (Karras et al. 2024,
               eq. 20-21), so that every level counts alike however hard it is

Levels: t uniform in 1..T, or ln sigma ~ N(-1.2, 1.2^2) for `edm`. If stratified, each image of a
batch draws from an interval of its own.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from models.arrays import Float64
from models.diffusion.denoiser import NoiseLevels, column, noised
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, bits, uniform
from models.diffusion.prediction import read_off
from models.training.consistency import draw_ratios, lower_ratios, pseudo_huber, ratio_range
from models.training.defaults import LossWeighting

EDM_LOG_SIGMA_MEAN, EDM_LOG_SIGMA_STD = -1.2, 1.2
MIN_SNR_GAMMA = 5.0


@dataclass(frozen=True)
class Batch:
    """Part of a training batch, before any noise.

    `x0` is (B, C, H, W) in [-1, 1], `label` int64 (B,) or None. All randomness of an image is a
    function of the seed, the step and its `slot`, int64 (B,): its place in the whole batch of
    `batch_size`. `progress` in 0..1 is the share of the budget that is used. `augmentation` is the
    embedding of what models.training.augment did, (B, width).
    """

    x0: Tensor
    label: Tensor | None
    slot: Tensor
    step: int
    batch_size: int
    progress: float = 0.0
    augmentation: Tensor | None = None


class Loss(NamedTuple):
    """float32 (B,) each: the loss whose mean is minimised, and the one that is shown."""

    minimised: Tensor
    shown: Tensor


@dataclass(frozen=True)
class Network:
    """The network as training calls it. `net` is that of `model`, or its compiled form.

    All calls with one batch drop out the same values.
    """

    model: DiffusionModel
    net: nn.Module
    seed: int

    def __call__(self, batch: Batch, x_t: Tensor, levels: NoiseLevels) -> Tensor:
        """Return y (B, C, H, W) for x_t at these levels."""
        c_in = self.model.prediction.denoiser_coefficients(levels.alpha, levels.sigma).c_in
        c_noise = torch.from_numpy(levels.c_noise).to(x_t.device, torch.float32)
        x_in = (column(c_in, x_t) * x_t).contiguous(memory_format=torch.channels_last)
        if self.model.config.net.dropout:
            first = batch.slot[:1].cpu()
            seed = int(bits(self.seed, first, batch.step, 1, Stream.DROPOUT))
            # torch.manual_seed formats the stack for each kind of GPU that is not there.
            (torch.default_generator if x_t.device.type == "cpu" else torch).manual_seed(seed)
        y: Tensor = self.net(x_in, c_noise, batch.label, batch.augmentation)
        return y


class Objective(Protocol):
    """The noise levels that a step draws, and its loss for the network's output there."""

    def draw_levels(self, batch: Batch) -> NoiseLevels:
        """Return one noise level for each image."""

    def loss(
        self, batch: Batch, levels: NoiseLevels, noise: Tensor, x_t: Tensor, y: Tensor
    ) -> Loss:
        """Return the loss of each image for y, the output for x_t = alpha x0 + sigma noise."""


# Denoising ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Denoising:
    """The error on the network's target. `u` weights the levels if the weighting is `learned`."""

    model: DiffusionModel
    seed: int
    stratified: bool
    weighting: LossWeighting
    u: "LearnedWeighting | None" = None

    def draw_levels(self, batch: Batch) -> NoiseLevels:
        return draw_levels(self.model, batch, self.seed, self.stratified)

    def loss(
        self, batch: Batch, levels: NoiseLevels, noise: Tensor, x_t: Tensor, y: Tensor
    ) -> Loss:
        a, b = self.model.prediction.target_coefficients(levels.alpha, levels.sigma)
        target = column(a, x_t) * batch.x0 + column(b, x_t) * noise
        loss = mse_loss(y.float(), target, reduction="none").mean((1, 2, 3))
        return Loss(self._weighted(loss, levels), loss)

    def _weighted(self, loss: Tensor, levels: NoiseLevels) -> Tensor:
        if self.weighting == "min_snr":
            return torch.from_numpy(min_snr_weight(self.model, levels)).to(loss) * loss
        if self.u is not None:
            log_ratio = np.log(levels.sigma) - np.log(np.maximum(levels.alpha, 1e-4))
            u: Tensor = self.u(torch.from_numpy(log_ratio).to(loss))
            return loss / u.exp() + u
        return loss


def draw_levels(model: DiffusionModel, batch: Batch, seed: int, stratified: bool) -> NoiseLevels:
    """Return one noise level for each image, a function of its slot and the step."""
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
    """Return the weight (B,) of the error on the network's target.

    An error there is p_F times as large in x0_hat, for which the paper gives min(snr, 5).
    """
    snr = np.square(levels.alpha / levels.sigma)
    p_F = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma).p_F
    return np.asarray(np.minimum(snr, MIN_SNR_GAMMA) * np.square(p_F))


class LearnedWeighting(nn.Module):
    """u of ln(sigma / alpha) (B,): random waves and a linear layer, which begins at 0. It belongs
    to the training, not to the model."""

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


# Consistency --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Consistency:
    """The distance between two estimates of one clean image, from a higher and a lower noise level
    with the same noise (models.training.consistency). Only the higher one is trained."""

    network: Network

    def draw_levels(self, batch: Batch) -> NoiseLevels:
        return NoiseLevels.of_ratio(self.network.model, self._ratios(batch))

    def loss(
        self, batch: Batch, levels: NoiseLevels, noise: Tensor, x_t: Tensor, y: Tensor
    ) -> Loss:
        model, high = self.network.model, self._ratios(batch)
        low, lowest = lower_ratios(high, batch.progress), ratio_range(model.schedule)[0]
        estimate = _x0_hat(model, y, x_t, levels)
        with torch.no_grad():
            lower = NoiseLevels.of_ratio(model, np.maximum(low, lowest))
            x_s = noised(batch.x0, lower, noise)
            target = _x0_hat(model, self.network(batch, x_s, lower), x_s, lower)
            is_clean = torch.from_numpy(low < lowest).to(target.device)[:, None, None, None]
            target = torch.where(is_clean, batch.x0, target)
        weight = column(1.0 / (high - low), x_t)[:, 0, 0, 0]
        loss = pseudo_huber(estimate, target) * weight
        return Loss(loss, loss)

    def _ratios(self, batch: Batch) -> Float64:
        schedule, seed = self.network.model.schedule, self.network.seed
        return draw_ratios(schedule, seed, batch.slot, batch.step, batch.batch_size)


def _x0_hat(model: DiffusionModel, y: Tensor, x_t: Tensor, levels: NoiseLevels) -> Tensor:
    k = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma)
    x0_hat: Tensor = read_off(y, x_t, column(k.p_x, x_t), column(k.p_F, x_t))
    return x0_hat
