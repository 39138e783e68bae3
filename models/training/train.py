"""Training: noise in different amounts, denoise, measure, update the weights.

`train` is a generator of optimiser steps; whoever consumes it stores, reports and stops. All
randomness of step n (which images, how much noise, which noise) is a function of (seed, n), so a
run that stopped at any step goes on as if it had not.

A batch may be worked off in parts (`micro_batch_size`), and each part by another process
(models.training.distributed): an image's noise is a function of its place in the whole batch, and
the gradient is that of the batch's mean, so that neither changes what is learned.
"""

import copy
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from models.diffusion.denoiser import NoiseLevels, column, noised
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, bits, normal, uniform
from models.fields import Invalid
from models.images.dataset import Dataset
from models.nets.unet import UNet
from models.sampling.generate import to_float
from models.training.augment import NUM_TOLD, augment
from models.training.batches import BatchOrder, Images, Split
from models.training.config import TrainConfig
from models.training.consistency import consistency_loss
from models.training.distributed import Team
from models.training.objective import Batch, LearnedWeighting, draw_levels, min_snr_weight

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


@dataclass
class TrainState:
    """Everything that training changes. `extras` is learned beside the model and stays behind when
    it is done; `seconds` is the time spent in earlier sittings. `trained` and `averages` are the
    parameters of net and extras, and of ema: walking the modules for them takes a twentieth of a
    small step."""

    config: TrainConfig
    model: DiffusionModel
    ema: UNet
    extras: nn.ModuleDict
    optimizer: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.monotonic)
    trained: list[nn.Parameter] = field(init=False, repr=False)
    averages: list[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.trained = [*self.model.net.parameters(), *self.extras.parameters()]
        self.averages = list(self.ema.parameters())

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
        """Around a net that has its weights already; the optimiser and the extras are new."""
        net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        ema = copy.deepcopy(net).requires_grad_(False).eval()
        extras = _extras(config).to(device)
        optimizer = torch.optim.Adam(
            chain(net.parameters(), extras.parameters()),
            lr=config.learning_rate,
            betas=ADAM_BETAS,
            fused=True,
        )
        model = DiffusionModel(config.model_config(sigma_data), net)
        return cls(config, model, ema, extras, optimizer)

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

    def parameters(self) -> dict[str, nn.Parameter]:
        """All that the optimiser changes, by name."""
        extras = {f"extras.{name}": p for name, p in self.extras.named_parameters()}
        return {**dict(self.model.net.named_parameters()), **extras}

    def ema_model(self) -> DiffusionModel:
        """The averaged weights: what is evaluated, sampled and kept. A view, not a copy."""
        return DiffusionModel(self.model.config, self.ema)


def train(state: TrainState, dataset: Dataset, team: Team | None = None) -> Iterator[TrainStep]:
    """One TrainStep per optimiser step until the budget is used. Between steps `state` is whole
    and may be saved (models.training.checkpoint).

    Several processes train one model where each calls this with the same state and its `team`;
    the first one's clock and the first one's consumer decide when all of them end.

    Raises Invalid, of the learning rate, when the loss is no longer finite.
    """
    config, team = state.config, team or Team.alone()
    images = Images(dataset, state.model.device)
    order = BatchOrder(config.seed, Split.of(dataset, config).training, config.batch_size)
    net = _prepared(state)
    speed = Speed(state.step)
    state.started = time.monotonic()
    state.model.net.train()
    while (progress := team.agree(state.progress())) < 1.0:
        loss = _gradient(state, net, images, order, team, progress)
        learning_rate = _learning_rate(config, state.step, progress)
        _update(state, learning_rate)
        if not np.isfinite(loss):
            raise Invalid.because(
                f"the loss at step {state.step} is {loss}; "
                f"try a learning_rate below {config.learning_rate:g}",
                field="learning_rate",
                value=config.learning_rate,
            )
        state.step += 1
        yield _report(state, loss, learning_rate, speed)


def measure_sigma_data(dataset: Dataset) -> float:
    """The pixels' standard deviation in [-1, 1], from at most 4,096 images; at least 0.05."""
    stride = max(1, len(dataset.images) // 4096)
    return max(0.05, float(to_float(np.array(dataset.images[::stride])).std()))


# One step -----------------------------------------------------------------------------------------


def _gradient(
    state: TrainState,
    net: nn.Module,
    images: Images,
    order: BatchOrder,
    team: Team,
    progress: float,
) -> float:
    """Leave the gradient of the whole batch's mean with the parameters; the mean loss."""
    config, device = state.config, state.model.device
    positions = order.batch(state.step)
    state.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=device)
    for part in team.parts(config.batch_size, config.micro_batch_size):
        x0, label = images.take(positions[part.start : part.stop])
        slot = torch.arange(part.start, part.stop, device=device)
        batch = _batch(state, x0, label if config.class_names else None, slot)
        with _autocast(config, device):
            objective, loss = _losses(state, net, batch, progress)
        (objective.sum() / config.batch_size).backward()  # type: ignore[no-untyped-call]
        total += loss.detach().sum() / config.batch_size
    return team.add_up(state.trained, total)


def _batch(state: TrainState, x0: Tensor, label: Tensor | None, slot: Tensor) -> Batch:
    """What is done to images and classes before any noise."""
    config, step = state.config, state.step
    told = None
    if config.augmentation:
        x0, what = augment(x0, config.augmentation, config.horizontal_flip, config.seed, slot, step)
        told = state.extras["augmentation"](what)
    elif config.horizontal_flip:
        flip = uniform(config.seed, slot, step, Stream.FLIP)[:, :, None, None] < 0.5
        x0 = torch.where(flip, x0.flip(3), x0)
    if label is not None:
        drop = uniform(config.seed, slot, step, Stream.CLASS_DROP)[:, 0] < config.class_dropout
        label = torch.where(drop, state.model.null_label, label)
    return Batch(x0, label, slot, step, config.batch_size, told)


def _losses(
    state: TrainState, net: nn.Module, batch: Batch, progress: float
) -> tuple[Tensor, Tensor]:
    """What is minimised and what is shown, float32 (B,) each."""
    config = state.config
    dropout_seed = _dropout_seed(config.seed, batch) if config.net.dropout else None
    if config.objective == "consistency":
        loss = consistency_loss(state.model, net, batch, config.seed, progress, dropout_seed)
        return loss, loss
    if dropout_seed is not None:
        torch.manual_seed(dropout_seed)
    return _denoising_losses(state, net, batch)


def _denoising_losses(state: TrainState, net: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    config, model, x0 = state.config, state.model, batch.x0
    levels = draw_levels(model, batch, config.seed, config.stratified)
    noise = normal(config.seed, batch.slot, batch.step, x0.shape[1:], Stream.TRAINING)
    x_t = noised(x0, levels, noise)
    a, b = model.prediction.target_coefficients(levels.alpha, levels.sigma)
    c_in = model.prediction.denoiser_coefficients(levels.alpha, levels.sigma).c_in
    c_noise = torch.from_numpy(levels.c_noise).to(x0.device, torch.float32)
    x_in = (column(c_in, x0) * x_t).contiguous(memory_format=torch.channels_last)
    y = net(x_in, c_noise, batch.label, batch.told)
    target = column(a, x0) * x0 + column(b, x0) * noise
    loss = mse_loss(y.float(), target, reduction="none").mean((1, 2, 3))
    return _weighted(state, loss, levels), loss


def _weighted(state: TrainState, loss: Tensor, levels: NoiseLevels) -> Tensor:
    match state.config.loss_weighting:
        case "min_snr":
            return torch.from_numpy(min_snr_weight(state.model, levels)).to(loss) * loss
        case "learned":
            log_ratio = np.log(levels.sigma) - np.log(np.maximum(levels.alpha, 1e-4))
            u: Tensor = state.extras["weighting"](torch.from_numpy(log_ratio).to(loss))
            return loss / u.exp() + u
        case _:
            return loss


def _dropout_seed(seed: int, batch: Batch) -> int:
    return int(bits(seed, batch.slot[:1].cpu(), batch.step, 1, Stream.DROPOUT))


def _learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Linear warm-up, then the decay to 0 at the end of the budget."""
    warm = min(1.0, (step + 1) / config.warmup_steps)
    match config.lr_schedule:
        case "linear":
            decay = 1.0 - progress
        case "cosine":
            decay = 0.5 * (1.0 + np.cos(np.pi * progress))
        case _:
            decay = 1.0
    return float(config.learning_rate * warm * decay)


def _update(state: TrainState, learning_rate: float) -> None:
    torch.nn.utils.clip_grad_norm_(state.trained, state.config.max_grad_norm)
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
    weights: list[Tensor] = [*state.trained[: len(state.averages)]]
    torch._foreach_lerp_(state.averages, weights, 1.0 - keep)


# How it is computed -------------------------------------------------------------------------------


def _extras(config: TrainConfig) -> nn.ModuleDict:
    extras = nn.ModuleDict()
    if config.loss_weighting == "learned":
        extras["weighting"] = LearnedWeighting()
    if config.augmentation:
        told = nn.Linear(NUM_TOLD, 4 * config.net.block_out_channels[0], bias=False)
        nn.init.zeros_(told.weight)
        extras["augmentation"] = told
    return extras


def _prepared(state: TrainState) -> nn.Module:
    if not state.config.compile:
        return state.model.net
    return cast(nn.Module, torch.compile(state.model.net, dynamic=False))


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    enabled = config.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


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
    left = max(0.0, min(remaining))
    return TrainStep(
        step=state.step,
        steps=state.step + round(left * steps_per_second),
        loss=loss,
        learning_rate=learning_rate,
        images_seen=state.images_seen,
        images_per_second=steps_per_second * config.batch_size,
        progress=state.progress(),
    )
