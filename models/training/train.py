"""Training: draw images and noise, denoise, measure the error, update the weights.

`train` is a generator of optimiser steps; its consumer stores, reports and stops. All randomness
of step n (which images, how much noise, which noise) is a function of (seed, n), so that a run that
stopped at any step goes on as if it had not.

A batch may be computed in parts (`micro_batch_size`), and each part by another process
(models.training.distributed). An image's noise is a function of its place in the whole batch, and
the gradient is that of the batch's mean, so that neither changes the result.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from models.diffusion.denoiser import noised
from models.diffusion.noise import Stream, normal, uniform
from models.fields import Invalid
from models.images.dataset import Dataset
from models.training.augment import augment
from models.training.batches import BatchOrder, Images, Split
from models.training.config import TrainConfig
from models.training.distributed import ProcessGroup
from models.training.objective import (
    Batch,
    Consistency,
    Denoising,
    LearnedWeighting,
    Network,
    Objective,
)
from models.training.state import TrainState


@dataclass(frozen=True)
class TrainStep:
    """The figures of an optimiser step. `steps` is the expected total; `progress` in 0..1."""

    step: int
    steps: int | None
    loss: float
    learning_rate: float
    images_seen: int
    images_per_second: float
    progress: float


def train(
    state: TrainState, dataset: Dataset, group: ProcessGroup | None = None
) -> Iterator[TrainStep]:
    """Yield one TrainStep per optimiser step until the budget is used. Between steps `state` is
    consistent and may be saved (models.training.checkpoint).

    Several processes train one model if each calls this with the same state and its `group`;
    the clock and the consumer of the first one decide when all of them end.

    Raises Invalid, of the learning rate, when the loss is no longer finite.
    """
    config, model, group = state.config, state.model, group or ProcessGroup.single()
    images = Images(dataset, model.device)
    order = BatchOrder(config.seed, Split.of(dataset, config).training, config.batch_size)
    network = Network(model, _compiled(state), config.seed)
    objective = _objective(state, network)
    speed = Speed(state.step)
    state.started = time.monotonic()
    model.net.train()
    while (progress := group.broadcast(state.progress())) < 1.0:
        positions = order.batch(state.step)
        mean_loss = torch.zeros((), device=model.device)
        state.optimizer.zero_grad()
        for slots in group.share(config.batch_size, config.micro_batch_size):
            x0, label = images.take(positions[slots.start : slots.stop])
            batch = _augmented(state, x0, label, slots, progress)
            with _autocast(config, model.device):
                levels = objective.draw_levels(batch)
                noise = normal(config.seed, batch.slot, batch.step, x0.shape[1:], Stream.TRAINING)
                x_t = noised(batch.x0, levels, noise)
                y = network(batch, x_t, levels)
                loss = objective.loss(batch, levels, noise, x_t, y)
            (loss.minimised.sum() / config.batch_size).backward()  # type: ignore[no-untyped-call]
            mean_loss += loss.shown.detach().sum() / config.batch_size
        shown = group.sum_gradients(state.trained, mean_loss)
        learning_rate = _learning_rate(config, state.step, progress)
        _update(state, learning_rate)
        if not np.isfinite(shown):
            raise _diverged(state, shown)
        state.step += 1
        yield _report(state, shown, learning_rate, speed)


# Before: objective and batch ----------------------------------------------------------------------


def _objective(state: TrainState, network: Network) -> Objective:
    config = state.config
    if config.objective == "consistency":
        return Consistency(network)
    u = None
    if config.loss_weighting == "learned":
        u = cast(LearnedWeighting, state.auxiliary["weighting"])
    return Denoising(state.model, config.seed, config.stratified, config.loss_weighting, u)


def _augmented(
    state: TrainState, x0: Tensor, label: Tensor, slots: range, progress: float
) -> Batch:
    """Return the batch with images augmented or flipped, and with some classes dropped."""
    config, step = state.config, state.step
    slot = torch.arange(slots.start, slots.stop, device=x0.device)
    embedding = None
    if config.augmentation:
        x0, done = augment(x0, config.augmentation, config.horizontal_flip, config.seed, slot, step)
        embedding = state.auxiliary["augmentation"](done)
    elif config.horizontal_flip:
        flip = uniform(config.seed, slot, step, Stream.FLIP)[:, :, None, None] < 0.5
        x0 = torch.where(flip, x0.flip(3), x0)
    classes = None
    if config.class_names:
        drop = uniform(config.seed, slot, step, Stream.CLASS_DROP)[:, 0] < config.class_dropout
        classes = torch.where(drop, state.model.null_label, label)
    return Batch(x0, classes, slot, step, config.batch_size, progress, embedding)


def _compiled(state: TrainState) -> nn.Module:
    if not state.config.compile:
        return state.model.net
    return cast(nn.Module, torch.compile(state.model.net, dynamic=False))


def _autocast(config: TrainConfig, device: torch.device) -> AbstractContextManager[None]:
    enabled = config.precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


# After: the update --------------------------------------------------------------------------------


def _learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """Return the rate of a step: linear warm-up, then the decay to 0 at the end of the budget."""
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
    state.optimizer.step(learning_rate)
    _average(state)


@torch.no_grad()
def _average(state: TrainState) -> None:
    """Move the exponential average towards the weights. Its half-life grows with the images seen,
    so that the first weights are soon forgotten (Karras et al. 2022, section F.1)."""
    config, seen = state.config, (state.step + 1) * state.config.batch_size
    half_life = min(config.ema_half_life_images, config.ema_warmup * seen)
    keep = 0.5 ** (config.batch_size / half_life)
    weights: list[Tensor] = [*state.trained[: len(state.averages)]]
    torch._foreach_lerp_(state.averages, weights, 1.0 - keep)


def _diverged(state: TrainState, loss: float) -> Invalid:
    rate = state.config.learning_rate
    return Invalid.because(
        f"the loss at step {state.step} is {loss}; try a learning_rate below {rate:g}",
        field="learning_rate",
        value=rate,
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
