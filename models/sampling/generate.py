"""New images from noise: one request's images in lockstep down the rows of its plan.

At each row the completely denoised image is estimated, and x goes a small part of the way, so that
later rows can correct the errors of earlier ones. The loop is a generator: its consumer may show,
store or stop. It is the plain form of what models.engine.engine does for many requests at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.arrays import UInt8, to_uint8
from models.diffusion.model import DiffusionModel
from models.sampling.plan import Plan
from models.sampling.request import SampleRequest, plan_for
from models.sampling.update import Pictures, Rows, starting_x, update

BATCH_SIZE = 64  # wider network calls gain nothing on a CPU and cost memory


class Stopped(Exception):
    """The caller cancelled."""


@dataclass(frozen=True)
class SampleStep:
    """After row `row` of a plan: x (B, C, H, W), and the estimate of the clean image in the row."""

    row: int
    x: Tensor
    x0_hat: Tensor


def sample_images(
    model: DiffusionModel,
    *,
    stopped: Callable[[], bool] = lambda: False,
    labels: Sequence[int] | None = None,
    **settings: Any,
) -> UInt8:
    """Make uint8 (N, H, W, C); the settings are those of models.sampling.request.SampleRequest.

    Raises Invalid where they do not fit, and Stopped at the next step once `stopped` returns True.
    """
    request = SampleRequest(labels=None if labels is None else tuple(labels), **settings)
    return np.concatenate(list(image_batches(model, plan_for(model.config, request), stopped)))


def image_batches(
    model: DiffusionModel, plan: Plan, stopped: Callable[[], bool]
) -> Iterator[UInt8]:
    """Make the images of a plan in order, a batch at a time: uint8 (B, H, W, C). Raises Stopped."""
    for start in range(0, plan.num_images, BATCH_SIZE):
        images = range(start, min(start + BATCH_SIZE, plan.num_images))
        for step in sample(model, plan, images):
            x = step.x
            if stopped():
                raise Stopped
        yield to_uint8(x)


@torch.inference_mode()
def sample(model: DiffusionModel, plan: Plan, images: Sequence[int]) -> Iterator[SampleStep]:
    """Take some of the images of a plan from row to row."""
    config, count = model.config, len(images)
    like = torch.empty(0, device=model.device)
    pictures = Pictures.of(plan, like)
    null_label = model.null_label if config.class_names else None

    def rows_at(row: int) -> Rows:
        return Rows([plan] * count, [pictures] * count, images, [row] * count)

    x = starting_x(rows_at(0), (config.net.out_channels, *config.image_size), like)
    prev = prev2 = torch.zeros_like(x)
    for row in range(len(plan)):
        updated = update(rows_at(row), x, prev, prev2, model.net, null_label)
        x, prev, prev2 = updated.x, updated.x0_hat, prev
        yield SampleStep(row, x, prev)
