"""New images from noise: the sampling loop over a table's rows.

At each row the completely denoised image is estimated, and x goes a small part of the way, so that
later rows can correct the errors of earlier ones. The loop is a generator: whoever consumes it may
show, store or stop.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.denoiser import NoiseLevels, denoise
from models.model import DiffusionModel
from models.noise import normal
from models.sampler import SamplerName, SamplerTable, Spacing, sampler_table, timestep_grid

BATCH_SIZE = 64  # wider network calls gain nothing on a CPU and cost memory


class Stopped(Exception):
    """Whoever wanted the images has left."""


@dataclass(frozen=True)
class SampleStep:
    """After row `row` of a table: x (B, C, H, W), and the clean image seen on the way."""

    row: int
    x: Tensor
    x0_hat: Tensor


def sample_images(
    model: DiffusionModel,
    *,
    num_images: int,
    seed: int,
    sampler: SamplerName = "dpmpp_2m",
    num_inference_steps: int = 20,
    labels: Sequence[int] | None = None,
    guidance_scale: float = 1.0,
    eta: float = 0.0,
    variance: Literal["fixed_small", "fixed_large"] = "fixed_small",
    spacing: Spacing | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> NDArray[np.uint8]:
    """uint8 (N, H, W, C). `labels` is one class index per image, or None to leave the class open.

    Image i is a function of (seed, i) and the settings; raises ValueError where they do not fit,
    and Stopped at the next step once `stopped` says so.
    """
    grid = timestep_grid(model.schedule, num_inference_steps, spacing)
    table = sampler_table(sampler, grid, eta=eta, variance=variance)
    label = _labels(model, num_images, labels)
    batches = []
    for start in range(0, num_images, BATCH_SIZE):
        index = torch.arange(start, min(start + BATCH_SIZE, num_images))
        part = None if label is None else label[index]
        for step in sample(model, table, seed, index, part, guidance_scale):
            x = step.x
            if stopped():
                raise Stopped
        batches.append(to_uint8(x))
    return np.concatenate(batches)


@torch.inference_mode()
def sample(
    model: DiffusionModel,
    table: SamplerTable,
    seed: int,
    index: Tensor,
    label: Tensor | None = None,
    guidance_scale: float = 1.0,
    *,
    clip: bool = True,
) -> Iterator[SampleStep]:
    """Walk a table from pure noise for the images `index` (B,) int64 of a seed.

    `clip` keeps x0_hat in [-1, 1], where images live.
    """
    config, device = model.config, model.device
    shape = (config.net.out_channels, *config.image_size)
    index = index.to(device)
    label = None if label is None else label.to(device)
    start = np.hypot(table.alpha[0], table.sigma[0])  # x_T of data with unit variance
    x = float(start) * normal(seed, index, 0, shape)
    prev = prev2 = torch.zeros_like(x)
    for row in range(len(table)):
        at = slice(row, row + 1)
        levels = NoiseLevels(
            *(np.repeat(v[at], len(x)) for v in (table.alpha, table.sigma, table.c_noise))
        )
        x0_hat = denoise(model, x, levels, label, guidance_scale)
        if clip:
            x0_hat = x0_hat.clamp(-1.0, 1.0)
        x = (
            float(table.k_x[row]) * x
            + float(table.k_0[row]) * x0_hat
            + float(table.k_1[row]) * prev
            + float(table.k_2[row]) * prev2
        )
        if table.k_s[row]:
            x = x + float(table.k_s[row]) * normal(seed, index, row + 1, shape)
        prev, prev2 = x0_hat, prev
        yield SampleStep(row, x, x0_hat)


def to_uint8(x: Tensor) -> NDArray[np.uint8]:
    """(B, C, H, W) in [-1, 1] to uint8 (B, H, W, C)."""
    scaled = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return np.asarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def to_float(images: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 (B, H, W, C) to float32 (B, C, H, W) in [-1, 1]."""
    tensor = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1.0


def _labels(model: DiffusionModel, num_images: int, labels: Sequence[int] | None) -> Tensor | None:
    num_classes = len(model.config.class_names)
    if not num_classes:
        if labels is not None:
            raise ValueError("class_label is given, but the model is unconditional")
        return None
    if labels is None:
        return torch.full((num_images,), model.null_label)
    if len(labels) != num_images:
        raise ValueError(f"class_label has {len(labels)} entries for num_images {num_images}")
    for label in labels:
        if not 0 <= label < num_classes:
            raise ValueError(f"class_label is {label}; it must lie in 0..{num_classes - 1}")
    return torch.tensor(labels)
