"""The ranges of values that a network needs to compute in int8, from the making of its own images.

For each convolution the least and the largest input are averaged over groups of evaluations that
were drawn from all steps and classes. The few values beyond a range are cut off, which costs less
than wider levels for all the others would.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from models.arrays import Float32
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, permutation
from models.nets.graph import inner_convolutions, unet_graph
from models.nets.precision import Ranges
from models.sampling.generate import image_batches
from models.sampling.request import (
    DEFAULT_CONSISTENCY_STEPS,
    DEFAULT_STEPS,
    SampleRequest,
    plan_for,
)
from models.sampling.samplers import DEFAULT_SAMPLER, DISTILLED_SAMPLER

NUM_IMAGES = 64
GROUP = 16  # evaluations
# Differs from every caller's seed, so that no image is made from what it was calibrated with.
_SEED = 0x5EED_1478


def measured_ranges(model: DiffusionModel, stopped: Callable[[], bool] = lambda: False) -> Ranges:
    """Return the ranges in float32, to six digits, with and without classes. They are a function of
    the model alone. Raises Stopped."""
    config = model.config
    classes = len(config.class_names)
    asked = [[i % classes for i in range(NUM_IMAGES)]] if classes else []
    if config.has_null_class or not classes:
        asked.append([])
    count = NUM_IMAGES // len(asked)
    with _observed(model) as seen:
        for labels in asked:
            request = SampleRequest(
                seed=_SEED,
                num_images=count,
                sampler=DISTILLED_SAMPLER if config.consistency else DEFAULT_SAMPLER,
                num_inference_steps=DEFAULT_CONSISTENCY_STEPS
                if config.consistency
                else DEFAULT_STEPS,
                labels=tuple(labels[:count]) or None,
            )
            for _ in image_batches(model, plan_for(config, request), stopped):
                pass
    return tuple(_range(torch.cat(ends, 1).cpu().numpy()) for ends in seen)


@contextmanager
def _observed(model: DiffusionModel) -> Iterator[list[list[Tensor]]]:
    """Collect (2, B), the least and the largest input of each evaluation of a call, for each inner
    convolution."""
    names = inner_convolutions(unet_graph(model.config.net, model.config.image_size))
    seen: list[list[Tensor]] = [[] for _ in names]

    def observer(ends: list[Tensor]) -> Callable[[nn.Module, tuple[Tensor]], None]:
        return lambda module, x: ends.append(torch.stack(torch.aminmax(x[0].flatten(1), dim=1)))

    hooks = [
        model.net.get_submodule(name).register_forward_pre_hook(observer(ends))
        for name, ends in zip(names, seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _range(ends: Float32) -> tuple[float, float]:
    """Return the mean ends over groups of the evaluations (2, N)."""
    count = ends.shape[1] // GROUP * GROUP
    order = permutation(_SEED, ends.shape[1], Stream.ORDER)[:count]
    low, high = ends[:, order].reshape(2, -1, GROUP).astype(np.float64)
    return float(f"{low.min(1).mean():.6g}"), float(f"{high.max(1).mean():.6g}")
