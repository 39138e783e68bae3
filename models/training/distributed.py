"""Several processes that train one model: who works on what, and how they agree.

Each has a share of every batch; gradients are added up over all of them before each update, so
that all keep the same weights. torchrun starts the processes and says who is who; `Team.alone` is
one process without any of that.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


class TeammateLost(Exception):
    """Another process is gone; nothing is wrong with the training."""


@dataclass(frozen=True)
class Team:
    rank: int
    size: int

    @classmethod
    def alone(cls) -> "Team":
        return cls(0, 1)

    @classmethod
    def from_environment(cls, device: str) -> "Team":
        """As torchrun started us, if it did: joins the others, waiting for them."""
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            return cls.alone()
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def parts(self, batch_size: int, micro_batch_size: int | None) -> Iterator[range]:
        """Our slots of a batch, in parts of at most `micro_batch_size`."""
        start, stop = (batch_size * r // self.size for r in (self.rank, self.rank + 1))
        most = micro_batch_size or batch_size
        for first in range(start, stop, most):
            yield range(first, min(first + most, stop))

    def agree(self, value: float) -> float:
        """What the first one says. Raises TeammateLost."""
        if self.size == 1:
            return value
        said = torch.tensor([value], dtype=torch.float64, device=_device())
        with _together():
            dist.broadcast(said, src=0)
        return float(said)

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> float:
        """Gradients become their sums over all; the sum of the losses. Raises TeammateLost."""
        if self.size == 1:
            return float(loss)
        for p in parameters:
            if p.grad is None:  # nothing to do in our share
                p.grad = torch.zeros_like(p)
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([*(g.reshape(-1) for g in gradients), loss.reshape(1)])
        with _together():
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
def _together() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of the connection; what is sent is always well-formed
        raise TeammateLost(str(error)) from error


def _device() -> str:
    return "cuda" if dist.get_backend() == "nccl" else "cpu"
