"""Networks as CUDA graphs: a call is one launch instead of a hundred.

A graph is captured for one width after a few calls have warmed up everything they use. Capturing
takes as long as a call or two, so the thread of the calls does it.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from models.nets.unet import UNet

log = logging.getLogger(__name__)


class GraphPool:
    """The memory that all graphs share: only one runs at a time, and no other while its output is
    needed. For one thread."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._given_up = False

    def capture(self, net: UNet, inputs: Sequence[Tensor]) -> "GraphedNet | None":
        """Return the graph of calls with such inputs, or None where that cannot be."""
        if self._given_up:
            return None
        try:
            return GraphedNet(net, inputs, self._pool)
        except RuntimeError as error:  # no memory, or a network that cannot be captured
            self._given_up = True
            log.warning("CUDA graphs are not used: %s", error)
            return None


class GraphedNet:
    """A callable like `net`, with inputs of the shapes given here. The next call of any graph of
    the pool overwrites the output."""

    def __init__(self, net: UNet, inputs: Sequence[Tensor], pool: Any) -> None:
        device = net.conv_in.weight.device
        self._inputs = [tensor.clone() for tensor in inputs]
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
