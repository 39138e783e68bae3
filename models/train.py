"""Training: noise in different amounts, denoise, measure, update the weights.

`train` is a generator of optimiser steps; whoever consumes it stores, reports and stops. All
randomness of step n (which images, how much noise, which noise) is a function of (seed, n), so a
run that stopped at any step goes on as if it had not.

The loss is the mean squared error on the network's own target (models.prediction): for `ddpm` the
noise at t drawn uniformly from 1..T (Ho et al. 2020, eq. 14), for `edm` their F at
ln sigma ~ N(-1.2, 1.2^2), stratified over the batch (Karras et al. 2022, table 1).
"""

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from models.data import Dataset
from models.denoiser import NoiseLevels, column
from models.generate import to_float
from models.model import DiffusionModel
from models.noise import Stream, bits, normal, uniform
from models.recipe import TrainConfig
from models.schedule import Float64
from models.unet import UNet

EDM_LOG_SIGMA_MEAN, EDM_LOG_SIGMA_STD = -1.2, 1.2
ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class TrainStep:
    """What is known after an optimiser step. `steps` is the expected total; `progress` in 0..1."""

    step: int
    steps: int | None
    loss: float
    learning_rate: float
    images_seen: int
    images_per_second: float
    progress: float
    eta_seconds: float | None


@dataclass
class TrainState:
    """Everything that training changes. `seconds` is the time spent in earlier sittings."""

    config: TrainConfig
    model: DiffusionModel
    ema: UNet
    optimizer: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def create(cls, config: TrainConfig, dataset: Dataset, device: str = "cpu") -> "TrainState":
        """Fresh weights, a function of the seed."""
        sigma_data = config.sigma_data or measure_sigma_data(dataset)
        torch.manual_seed(config.seed)
        return cls.assemble(config, sigma_data, UNet(config.net), device)

    @classmethod
    def assemble(
        cls, config: TrainConfig, sigma_data: float, net: UNet, device: str
    ) -> "TrainState":
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ema = copy.deepcopy(net).requires_grad_(False).eval()
        optimizer = torch.optim.Adam(
            net.parameters(), lr=config.learning_rate, betas=ADAM_BETAS, fused=True
        )
        return cls(config, DiffusionModel(config.model_config(sigma_data), net), ema, optimizer)

    @property
    def images_seen(self) -> int:
        return self.step * self.config.batch_size

    def elapsed(self) -> float:
        """Seconds of training, over all sittings."""
        return self.seconds + time.monotonic() - self.started

    def progress(self) -> float:
        """The share of the budget that is used, in 0..1."""
        used = [0.0]
        if self.config.steps is not None:
            used.append(self.step / self.config.steps)
        if self.config.minutes is not None:
            used.append(self.elapsed() / (60.0 * self.config.minutes))
        return min(1.0, max(used))

    def ema_model(self) -> DiffusionModel:
        """The averaged weights: what is evaluated, sampled and kept. A view, not a copy."""
        return DiffusionModel(self.model.config, self.ema)


def train(state: TrainState, dataset: Dataset) -> Iterator[TrainStep]:
    """One TrainStep per optimiser step until the budget is used. Between steps `state` is whole
    and may be saved (models.checkpoint).

    Raises ValueError when the loss is no longer finite.
    """
    config, device = state.config, state.model.device
    split = Split.of(dataset, config)
    images = torch.from_numpy(np.array(dataset.images)).to(device)
    labels = torch.from_numpy(dataset.labels).to(device) if config.class_names else None
    order = BatchOrder(config.seed, split.training, config.batch_size)
    speed = Speed(state.step)
    state.started = time.monotonic()
    state.model.net.train()
    while (progress := state.progress()) < 1.0:
        index = order.batch(state.step).to(device)
        loss = _loss(state, to_float(images[index]), None if labels is None else labels[index])
        learning_rate = _learning_rate(config, state.step, progress)
        _update(state, loss, learning_rate)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise ValueError(
                f"the loss at step {state.step} is {value}; "
                f"try a learning_rate below {config.learning_rate:g}"
            )
        state.step += 1
        yield _report(state, value, learning_rate, speed)


def measure_sigma_data(dataset: Dataset) -> float:
    """The pixels' standard deviation in [-1, 1], from at most 4,096 images; at least 0.05."""
    stride = max(1, len(dataset.images) // 4096)
    return max(0.05, float(to_float(np.array(dataset.images[::stride])).std()))


# Which images -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """Positions in the data set: int64, disjoint. `held_out` is never trained on."""

    training: Tensor
    held_out: Tensor

    @classmethod
    def of(cls, dataset: Dataset, config: TrainConfig) -> "Split":
        count = len(dataset.images)
        held_out = min(config.held_out, count // 10)
        shuffled = permutation(config.seed, 0, count, Stream.HELD_OUT)
        return cls(shuffled[held_out:].sort().values, shuffled[:held_out].sort().values)


class BatchOrder:
    """Batch n is positions n B .. (n + 1) B of an endless row of permutations."""

    def __init__(self, seed: int, positions: Tensor, batch_size: int) -> None:
        self._seed, self._positions, self._batch_size = seed, positions, batch_size
        self._epochs: dict[int, Tensor] = {}

    def batch(self, step: int) -> Tensor:
        size = len(self._positions)
        place = torch.arange(step * self._batch_size, (step + 1) * self._batch_size)
        first, last = int(place[0]) // size, int(place[-1]) // size
        self._epochs = {e: self._epoch(e) for e in range(first, last + 1)}
        return torch.stack([self._epochs[p // size][p % size] for p in place.tolist()])

    def _epoch(self, epoch: int) -> Tensor:
        if epoch in self._epochs:
            return self._epochs[epoch]
        shuffled = permutation(self._seed, epoch, len(self._positions), Stream.ORDER)
        return self._positions[shuffled]


def permutation(seed: int, epoch: int, count: int, stream: Stream) -> Tensor:
    """A random order of 0..count - 1."""
    words = bits(seed, torch.zeros(1, dtype=torch.int64), epoch, 2 * count, stream)[0]
    keys = (words[:count] << 31) ^ words[count:]  # 63 bits
    return torch.argsort(keys, stable=True)


# One step -----------------------------------------------------------------------------------------


def _loss(state: TrainState, x0: Tensor, label: Tensor | None) -> Tensor:
    config, model, step = state.config, state.model, state.step
    slot = torch.arange(len(x0), device=x0.device)
    if config.horizontal_flip:
        flip = uniform(config.seed, slot, step, Stream.FLIP)[:, :, None, None] < 0.5
        x0 = torch.where(flip, x0.flip(3), x0)
    if label is not None:
        drop = uniform(config.seed, slot, step, Stream.CLASS_DROP)[:, 0] < config.class_dropout
        label = torch.where(drop, model.null_label, label)
    if config.net.dropout:
        torch.manual_seed(int(bits(config.seed, slot[:1].cpu(), step, 1, Stream.DROPOUT)))
    levels = _draw_levels(state, len(x0))
    noise = normal(config.seed, slot, step, x0.shape[1:], Stream.TRAINING)
    x_t = column(levels.alpha, x0) * x0 + column(levels.sigma, x0) * noise
    a, b = model.prediction.target_coefficients(levels.alpha, levels.sigma)
    c_in = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma).c_in
    c_noise = torch.from_numpy(levels.c_noise).to(x0.device, torch.float32)
    y = model.net(
        (column(c_in, x0) * x_t).contiguous(memory_format=torch.channels_last), c_noise, label
    )
    return mse_loss(y, column(a, x0) * x0 + column(b, x0) * noise)


def _draw_levels(state: TrainState, batch_size: int) -> NoiseLevels:
    slot = torch.arange(batch_size)
    u: Float64 = uniform(state.config.seed, slot, state.step, Stream.LEVEL)[:, 0].numpy()
    schedule = state.model.schedule
    if state.model.prediction.type == "edm":
        stratified = torch.from_numpy((np.arange(batch_size) + u) / batch_size)
        log_sigma = EDM_LOG_SIGMA_MEAN + EDM_LOG_SIGMA_STD * torch.special.ndtri(stratified).numpy()
        return NoiseLevels(np.ones(batch_size), np.exp(log_sigma), log_sigma / 4.0)
    t = 1 + np.floor(u * schedule.num_train_timesteps).astype(np.int64)
    return NoiseLevels.at(state.model, t)


def _learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up, then linear decay to 0 at the end of the budget."""
    return config.learning_rate * min(1.0, (step + 1) / config.warmup_steps) * (1.0 - progress)


def _update(state: TrainState, loss: Tensor, learning_rate: float) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(state.model.net.parameters(), state.config.max_grad_norm)
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate
    state.optimizer.step()
    _average(state)


@torch.no_grad()
def _average(state: TrainState) -> None:
    """Exponential average with a half-life that grows with the images seen, so that the first
    weights are soon forgotten (Karras et al. 2022, section F.1)."""
    config, seen = state.config, (state.step + 1) * state.config.batch_size
    half_life = min(config.ema_half_life_images, config.ema_warmup * seen)
    keep = 0.5 ** (config.batch_size / half_life)
    torch._foreach_lerp_(
        list(state.ema.parameters()), list(state.model.net.parameters()), 1.0 - keep
    )


# Reports ------------------------------------------------------------------------------------------


class Speed:
    """Steps per second over about the last ten seconds."""

    def __init__(self, step: int) -> None:
        self._marks = [(time.monotonic(), step)]

    def update(self, step: int) -> float:
        now = time.monotonic()
        then, before = self._marks[0]
        if now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, step))
            self._marks = self._marks[-11:]
        return (step - before) / max(now - then, 1e-9)


def _report(state: TrainState, loss: float, learning_rate: float, speed: Speed) -> TrainStep:
    config = state.config
    steps_per_second = speed.update(state.step)
    remaining = []
    if config.steps is not None:
        remaining.append((config.steps - state.step) / steps_per_second)
    if config.minutes is not None:
        remaining.append(60.0 * config.minutes - state.elapsed())
    eta = max(0.0, min(remaining))
    return TrainStep(
        step=state.step,
        steps=state.step + round(eta * steps_per_second),
        loss=loss,
        learning_rate=learning_rate,
        images_seen=state.images_seen,
        images_per_second=steps_per_second * config.batch_size,
        progress=state.progress(),
        eta_seconds=eta,
    )
