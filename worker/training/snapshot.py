"""A snapshot of a training: the error on held-out images per noise level, and a grid of samples,
both from the averaged weights and with the job's seed, so that snapshots can be compared.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.arrays import to_float
from models.evaluation.denoising_error import LevelError, denoising_error
from models.images.dataset import Dataset
from models.images.files import encode_image, image_grid
from models.sampling.generate import sample_images
from models.sampling.request import DEFAULT_CONSISTENCY_STEPS, DEFAULT_STEPS, SampleRequest
from models.sampling.samplers import DISTILLED_SAMPLER, SamplerName
from models.training.batches import Split
from models.training.config import TrainConfig
from models.training.state import TrainState

SAMPLES = 16
HELD_OUT_IMAGES = 128
LEAST_ERROR = 1e-12  # of a level: smaller ones count as this much, 0 has no logarithm


@dataclass(frozen=True)
class Snapshot:
    """The state of a training at a step.

    `levels` is empty and `score` None where no image is held out. The score is the geometric mean
    of the levels' errors, in which each level counts by its own scale; less is better.
    """

    step: int
    levels: Sequence[LevelError]
    score: float | None
    grid: bytes  # PNG


def take_snapshot(state: TrainState, dataset: Dataset) -> Snapshot:
    levels = _levels(state, dataset)
    return Snapshot(state.step, levels, score_of(levels), _grid(state))


def score_of(levels: Sequence[LevelError]) -> float | None:
    if not levels:
        return None
    logs = [math.log(max(level.mse, LEAST_ERROR)) for level in levels]
    return math.exp(sum(logs) / len(logs))


def _levels(state: TrainState, dataset: Dataset) -> list[LevelError]:
    model, config = state.ema_model(), state.config
    held_out = Split.of(dataset, config).held_out[:HELD_OUT_IMAGES]
    if not len(held_out):
        return []
    images = to_float(torch.from_numpy(dataset.images[held_out.numpy()])).to(model.device)
    labels = torch.from_numpy(dataset.labels[held_out.numpy()]).to(model.device)
    return denoising_error(model, images, labels if config.class_names else None, config.seed)


def _sampler(config: TrainConfig) -> tuple[SamplerName, int]:
    """Return the sampler and the number of steps with which the model will be sampled."""
    if config.objective == "consistency":
        return DISTILLED_SAMPLER, DEFAULT_CONSISTENCY_STEPS
    return SampleRequest.sampler, min(DEFAULT_STEPS, config.schedule.num_train_timesteps)


def _grid(state: TrainState) -> bytes:
    config = state.config
    classes = len(config.class_names)
    sampler, steps = _sampler(config)
    count = min(SAMPLES, 2 * classes) if classes else SAMPLES
    samples = sample_images(
        state.ema_model(),
        num_images=count,
        seed=config.seed,
        labels=[i % classes for i in range(count)] if classes else None,
        sampler=sampler,
        num_inference_steps=steps,
        guidance_scale=config.guidance_scale if classes else 1.0,
    )
    return encode_image(image_grid(samples, padding=1), "png")
