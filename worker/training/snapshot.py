"""How a training goes: the error on held-out images per noise level, and a grid of samples, both
from the averaged weights and with the job's seed, so that one glance can be compared with another.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from models.arrays import to_float
from models.evaluation.denoising_error import denoising_error
from models.images.dataset import Dataset
from models.images.files import encode_image, image_grid
from models.sampling.generate import sample_images
from models.sampling.plan import DEFAULT_CONSISTENCY_STEPS, DEFAULT_STEPS
from models.training.batches import Split
from models.training.config import TrainConfig
from models.training.state import TrainState

SAMPLES = 16
HELD_OUT_IMAGES = 128
LEAST_ERROR = 1e-12  # of a level, so that it has a logarithm


@dataclass(frozen=True)
class Glance:
    """`levels` is empty and `score` None where no image is held out. The score is the geometric
    mean of the levels' errors, in which each level counts by its own scale; less is better."""

    step: int
    levels: list[dict[str, Any]]
    score: float | None
    grid: bytes  # PNG


def glance(state: TrainState, dataset: Dataset) -> Glance:
    levels = _levels(state, dataset)
    return Glance(state.step, levels, score_of(levels), _grid(state))


def score_of(levels: list[dict[str, Any]]) -> float | None:
    if not levels:
        return None
    logs = [math.log(max(level["mse"], LEAST_ERROR)) for level in levels]
    return math.exp(sum(logs) / len(logs))


def _levels(state: TrainState, dataset: Dataset) -> list[dict[str, Any]]:
    model, config = state.ema_model(), state.config
    held_out = Split.of(dataset, config).held_out[:HELD_OUT_IMAGES]
    if not len(held_out):
        return []
    images = to_float(dataset.images[held_out.numpy()]).to(model.device)
    labels = torch.from_numpy(dataset.labels[held_out.numpy()]).to(model.device)
    errors = denoising_error(model, images, labels if config.class_names else None, config.seed)
    return [asdict(error) for error in errors]


def _walk(config: TrainConfig) -> dict[str, Any]:
    """As the model will be sampled."""
    if config.objective == "consistency":
        return {"sampler": "consistency", "num_inference_steps": DEFAULT_CONSISTENCY_STEPS}
    return {"num_inference_steps": min(DEFAULT_STEPS, config.schedule.num_train_timesteps)}


def _grid(state: TrainState) -> bytes:
    config = state.config
    classes = len(config.class_names)
    count = min(SAMPLES, 2 * classes) if classes else SAMPLES
    samples = sample_images(
        state.ema_model(),
        num_images=count,
        seed=config.seed,
        labels=[i % classes for i in range(count)] if classes else None,
        **_walk(config),
    )
    return encode_image(image_grid(samples, padding=1), "png")
