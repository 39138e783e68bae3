"""Several processes that train one model: how they share a batch, and how they agree.

Each computes a share of every batch. Gradients are summed over all processes before each update, so
that all keep the same weights. torchrun starts the processes and gives each its rank;
`ProcessGroup.single` is one process on its own.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


class PeerLost(Exception):
    """The loss of another process of the group; nothing is wrong with the training."""


@dataclass(frozen=True)
class ProcessGroup:
    """One process's view of its group. `rank` is in 0..size - 1."""

    rank: int
    size: int

    @classmethod
    def single(cls) -> "ProcessGroup":
        return cls(0, 1)

    @classmethod
    def from_environment(cls, device: str) -> "ProcessGroup":
        """Join the group that torchrun started, waiting for the others; without it, a single."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls.single()
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch_size: int, micro_batch_size: int | None) -> Iterator[range]:
        """Yield this process's slots of a batch, in parts of at most `micro_batch_size`."""
        start, stop = (batch_size * r // self.size for r in (self.rank, self.rank + 1))
        most = micro_batch_size or batch_size
        for first in range(start, stop, most):
            yield range(first, min(first + most, stop))

    def broadcast(self, value: float) -> float:
        """Return the first process's value. Raises PeerLost."""
        if self.size == 1:
            return value
        received = torch.tensor([value], dtype=torch.float64, device=_device())
        with _connected():
            dist.broadcast(received, src=0)
        return float(received)

    def sum_gradients(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> float:
        """Replace the gradients by their sums over all processes, and return the sum of the losses.

        Raises PeerLost.
        """
        if self.size == 1:
            return float(loss)
        for p in parameters:
            if p.grad is None:  # this process's share is empty
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.reshape(-1) for g in gradients), loss.reshape(1)])
        with _connected():
            dist.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
            start += gradient.numel()
        return float(flat[-1])

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()


@contextmanager
def _connected() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the connection's: the tensors sent are always well-formed
        raise PeerLost(str(error)) from error


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
