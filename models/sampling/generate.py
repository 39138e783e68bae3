"""New images from noise: one request's images in lockstep down the rows of its plan.

At each row the completely denoised image is estimated, and x goes a small part of the way, so that
later rows can correct the errors of earlier ones. The loop is a generator: whoever consumes it may
show, store or stop. It is the plain form of what models.engine.engine does for many requests at
once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.arrays import to_float, to_uint8
from models.diffusion.denoiser import NoiseLevels, denoise
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, normal
from models.fields import Invalid
from models.sampling.plan import (
    BOUND,
    DISTURB,
    GUIDANCE,
    K_0,
    K_1,
    K_2,
    K_S,
    K_X,
    OPEN,
    Plan,
    SampleRequest,
    check_labels,
    make_plan,
)

BATCH_SIZE = 64  # wider network calls gain nothing on a CPU and cost memory


class Stopped(Exception):
    """Whoever wanted the images has left."""


@dataclass(frozen=True)
class SampleStep:
    """After row `row` of a plan: x (B, C, H, W), and the clean image seen on the way."""

    row: int
    x: Tensor
    x0_hat: Tensor


def sample_images(
    model: DiffusionModel,
    *,
    stopped: Callable[[], bool] = lambda: False,
    labels: Sequence[int] | None = None,
    **settings: Any,
) -> NDArray[np.uint8]:
    """uint8 (N, H, W, C); the settings are those of models.sampling.plan.SampleRequest.

    Raises Invalid where they do not fit, and Stopped at the next step once `stopped` says so.
    """
    request = SampleRequest(labels=None if labels is None else tuple(labels), **settings)
    prepared = Prepared.of(model, request)
    batches = []
    for start in range(0, request.num_images, BATCH_SIZE):
        images = range(start, min(start + BATCH_SIZE, request.num_images))
        for step in sample(model, prepared, images):
            x = step.x
            if stopped():
                raise Stopped
        batches.append(to_uint8(x))
    return np.concatenate(batches)


@dataclass(frozen=True)
class Prepared:
    """A request made ready for a model: its plan, and its pictures as tensors on the device.

    `image` (C, H, W) in [-1, 1] is where it starts, `kept` bool (1, H, W) what stays of it;
    `labels` has a class index for each image, the null class where it is open.
    """

    request: SampleRequest
    plan: Plan
    image: Tensor | None
    kept: Tensor | None
    labels: tuple[int, ...] | None

    @classmethod
    def of(cls, model: DiffusionModel, request: SampleRequest) -> "Prepared":
        """Raises Invalid, naming the field, where the request does not fit the model."""
        num_classes = len(model.config.class_names)
        check_labels(request, num_classes)
        plan = make_plan(model.schedule, model.prediction, request)
        labels = request.labels
        if labels is None and num_classes:
            labels = (model.null_label,) * request.num_images
        size, channels = model.config.image_size, model.config.net.out_channels
        image = kept = None
        if request.init_image is not None:
            _check_shape("init_image", request.init_image, (*size, channels))
            image = to_float(request.init_image[None])[0].to(model.device)
        if request.mask is not None:
            _check_shape("mask", request.mask, size)
            kept = torch.from_numpy(request.mask < 128)[None].to(model.device)
        return cls(request, plan, image, kept, labels)


@torch.inference_mode()
def sample(
    model: DiffusionModel, prepared: Prepared, images: Sequence[int]
) -> Iterator[SampleStep]:
    """Walk the rows of a request for some of its images."""
    request, labels = prepared.request, prepared.labels
    x = first_x(model, [(prepared, i) for i in images])
    index = torch.tensor([request.noise_index(i) for i in images], device=x.device)
    label = None if labels is None else torch.tensor([labels[i] for i in images], device=x.device)
    null = None if label is None else torch.full_like(label, model.null_label)
    table, shape = prepared.plan.table, x.shape[1:]
    prev = prev2 = torch.zeros_like(x)
    for row, k in enumerate(prepared.plan.coefficients.tolist()):
        if k[DISTURB]:
            x = x + k[DISTURB] * normal(request.seed, index, row, shape, Stream.DISTURBANCE)
        levels = NoiseLevels(
            *(np.repeat(v[row], len(x)) for v in (table.alpha, table.sigma, table.c_noise))
        )
        told = label if not k[OPEN] else null
        x0_hat = denoise(model, x, levels, told, k[GUIDANCE]).clamp(-k[BOUND], k[BOUND])
        if prepared.image is not None and prepared.kept is not None:
            x0_hat = torch.where(prepared.kept, prepared.image, x0_hat)
        x = k[K_X] * x + k[K_0] * x0_hat + k[K_1] * prev + k[K_2] * prev2
        if k[K_S]:
            x = x + k[K_S] * normal(request.seed, index, row + 1, shape)
        prev, prev2 = x0_hat, prev
        yield SampleStep(row, x, x0_hat)


def first_x(model: DiffusionModel, rows: Sequence[tuple[Prepared, int]]) -> Tensor:
    """x (B, C, H, W) where the walk begins, for images of one or of several requests."""
    device, shape = model.device, (model.config.net.out_channels, *model.config.image_size)

    def noise_of(seeds: Sequence[int]) -> Tensor:
        index = torch.tensor([p.request.noise_index(i) for p, i in rows], device=device)
        return normal(torch.tensor(seeds, device=device), index, 0, shape)

    def column(values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=device)[:, None, None, None]

    noise = noise_of([p.request.seed for p, _ in rows])
    angles = [p.request.angle(i) for p, i in rows]
    if any(angles):
        other = noise_of([p.request.seed_to or 0 for p, _ in rows])
        noise = column([math.cos(a) for a in angles]) * noise
        noise += column([math.sin(a) for a in angles]) * other
    x = column([p.plan.from_noise for p, _ in rows]) * noise
    for b, (prepared, _) in enumerate(rows):
        if prepared.image is not None:
            x[b] += prepared.plan.from_image * prepared.image
    return x


def _check_shape(field: str, picture: NDArray[np.uint8], expected: tuple[int, ...]) -> None:
    if picture.shape != expected:
        raise Invalid.because(
            f"{field} has the shape {picture.shape}; this model needs {expected}", field=field
        )
