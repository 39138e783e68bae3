"""Networks as CUDA graphs: a call is one launch instead of a hundred.

A graph is captured for one width after a few calls have warmed up everything they use. Capturing
takes as long as a call or two, so the thread of the calls does it.
"""

import logging
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from models.compile.library import Variant
from models.nets.unet import UNet

log = logging.getLogger(__name__)

MIN_CALLS = 3  # of a width, before it is captured


class GraphCompiler:
    """The interface of models.compile.compiler.Compiler. For one thread, in inference mode."""

    def __init__(self, min_calls: int = MIN_CALLS) -> None:
        self._min_calls = min_calls
        self._calls: Counter[tuple[Variant, int]] = Counter()
        self._given_up = False
        # Shared by all: only one graph runs at a time, and no other while its output is needed.
        self._pool = torch.cuda.graph_pool_handle()

    def call(self, variant: Variant, net: UNet) -> "GraphedNet | None":
        """Count a call of `net` and return its graph, after a few calls."""
        if self._given_up:
            return None
        key = variant, id(net)
        self._calls[key] += 1
        if self._calls[key] <= self._min_calls:
            return None
        del self._calls[key]
        try:
            return GraphedNet(net, variant.inputs(), self._pool)
        except RuntimeError as error:  # no memory, or a network that cannot be captured
            self._given_up = True
            log.warning("CUDA graphs are not used: %s", error)
            return None


class GraphedNet:
    """A callable like `net`, with inputs of the shapes given here. The next call of any graph of
    the pool overwrites the output."""

    def __init__(self, net: UNet, inputs: tuple[Tensor, ...], pool: Any) -> None:
        device = net.conv_in.weight.device
        self._inputs = [tensor.to(device) for tensor in inputs]
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            net(*self._inputs)  # the stream's own workspaces
        current.wait_stream(stream)
        # Another thread may be loading a model.
        with torch.cuda.graph(
            self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
        ):
            self._y: Tensor = net(*self._inputs)

    def __call__(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        for held, given in zip(self._inputs, (x, c_noise, label), strict=False):
            assert given is not None
            held.copy_(given)
        self._graph.replay()
        return self._y
