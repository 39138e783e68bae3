"""The device's side of the engine: the state of every row under way, and the network call.

A lane is where an image stands until it is made. A step takes any of them, wherever each is in its
plan, through one network call and one update; nothing here branches on a sampler.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.compile.library import Variant
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, normal
from models.engine.batcher import Row
from models.nets.precision import Precision
from models.nets.unet import UNet
from models.sampling.generate import Prepared, first_x
from models.sampling.plan import (
    BOUND,
    C_IN,
    C_NOISE,
    DISTURB,
    GUIDANCE,
    K_0,
    K_1,
    K_2,
    K_S,
    K_X,
    OPEN,
    P_F,
    P_X,
    SHOWN,
)

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class NetCompiler(Protocol):
    """models.compile.compiler.Compiler on a CPU, models.compile.cuda_graphs.GraphMaker on a GPU."""

    def call(self, variant: Variant, net: UNet) -> Network | None:
        """Asked before each call of a width until there is a faster form of the network for it."""


MAX_LANES = 256
MAX_STATE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class LaneRow:
    """A batcher's row with what the network call needs of its request."""

    row: Row
    prepared: Prepared

    @property
    def coefficients(self) -> NDArray[np.float32]:
        """Of the row of the plan that comes next."""
        k: NDArray[np.float32] = self.prepared.plan.coefficients[self.row.at]
        return k

    def label(self, null: int) -> int:
        labels = self.prepared.labels
        return null if labels is None or self.coefficients[OPEN] else labels[self.row.image]


@dataclass(frozen=True)
class StepResult:
    """What the network saw, x_t divided by `shown` to be shown, the clean image that it saw in it,
    and x after the row: (B, C, H, W); `shown` (B, 1, 1, 1)."""

    x_t: Tensor
    shown: Tensor
    x0_hat: Tensor
    x: Tensor


class Lanes:
    """The device's side of a group: the network, and the state of every row under way.

    `x`, `prev`, `prev2` are float32 (slots, C, H, W): the image on its way, and what the network
    saw in it one and two rows earlier.
    """

    def __init__(
        self, model: DiffusionModel, precision: Precision, compiler: NetCompiler | None = None
    ) -> None:
        """With a compiler, calls of a width are compiled as soon as that is done."""
        config = model.config
        self.model = model
        self._shape = (config.net.out_channels, *config.image_size)
        row_bytes = 3 * 4 * math.prod(self._shape)
        self.slots = max(8, min(MAX_LANES, MAX_STATE_BYTES // row_bytes))
        self._net = _in_precision(model.net, precision)
        self._precision = precision
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._compiler = compiler if isinstance(model.net, UNet) else None
        self._compiled: dict[int, Network] = {}
        self._warm: dict[int, int] = {}
        device = model.device
        self._x, self._prev, self._prev2 = (
            torch.zeros((self.slots, *self._shape), device=device) for _ in range(3)
        )

    def prepare(self, width: int) -> bool:
        """Before a call: whether such calls go another way from now on."""
        if self._compiler is None or width in self._compiled:
            return False
        config = self.model.config
        variant = Variant(
            config.net, config.image_size, width, self._precision, torch.get_num_threads()
        )
        compiled = self._compiler.call(variant, self._net)
        if compiled is None:
            return False
        self._compiled[width] = compiled
        self._warm.pop(width, None)
        return True

    def is_warm(self, width: int) -> bool:
        """The first call of a width prepares what the later ones use."""
        return self._warm[width] > 1

    def step(self, rows: Sequence[LaneRow], width: int) -> StepResult:
        """One row of each plan further; nothing has changed if it raises."""
        device = self.model.device
        k = torch.from_numpy(np.stack([row.coefficients for row in rows])).to(device)
        k = k.T[:, :, None, None, None]  # (columns, B, 1, 1, 1)
        slot = torch.tensor([row.row.slot for row in rows], device=device)
        x_t, prev, prev2 = self._state(rows, slot)
        x_t = self._disturbed(rows, x_t, k)
        x0_hat = self._denoise(rows, x_t, k, width)
        x0_hat = torch.minimum(torch.maximum(x0_hat, -k[BOUND]), k[BOUND])
        for b, row in enumerate(rows):
            if row.prepared.image is not None and row.prepared.kept is not None:
                x0_hat[b] = torch.where(row.prepared.kept, row.prepared.image, x0_hat[b])
        x = k[K_X] * x_t + k[K_0] * x0_hat + k[K_1] * prev + k[K_2] * prev2
        x = self._noised(rows, x, k)
        self._x[slot], self._prev[slot], self._prev2[slot] = x, x0_hat, prev
        self._warm[width] = self._warm.get(width, 0) + 1
        return StepResult(x_t, k[SHOWN], x0_hat, x)

    def _state(self, rows: Sequence[LaneRow], slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, prev, prev2 = self._x[slot], self._prev[slot], self._prev2[slot]
        new = [b for b, row in enumerate(rows) if row.row.at == 0]
        if new:
            x[new] = first_x(self.model, [(rows[b].prepared, rows[b].row.image) for b in new])
            prev[new] = prev2[new] = 0.0
        return x, prev, prev2

    def _denoise(self, rows: Sequence[LaneRow], x: Tensor, k: Tensor, width: int) -> Tensor:
        """x0_hat of every row from one call of `width` evaluations: all rows with their classes,
        then the guided ones without, then padding."""
        guided = [b for b, row in enumerate(rows) if row.row.evaluations == 2]
        asked = [*range(len(rows)), *guided]
        asked += [0] * (width - len(asked))
        labels = self._labels(rows, width)
        net = self._compiled.get(width, self._net)
        y = self._call(net, (k[C_IN] * x)[asked], k[C_NOISE].flatten()[asked], labels)
        x0_hat = k[P_X] * x + k[P_F] * y[: len(rows)]
        if guided:
            open_y = y[len(rows) : len(rows) + len(guided)]
            open_x0 = k[P_X][guided] * x[guided] + k[P_F][guided] * open_y
            x0_hat[guided] = open_x0 + k[GUIDANCE][guided] * (x0_hat[guided] - open_x0)
        return x0_hat

    def _call(self, net: Network, x: Tensor, c_noise: Tensor, label: Tensor | None) -> Tensor:
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return net(x, c_noise, label).float()

    def _labels(self, rows: Sequence[LaneRow], width: int) -> Tensor | None:
        if not self.model.config.class_names:
            return None
        labels = [row.label(self.model.null_label) for row in rows]
        labels += [self.model.null_label] * (width - len(labels))
        return torch.tensor(labels, device=self.model.device)

    def _disturbed(self, rows: Sequence[LaneRow], x: Tensor, k: Tensor) -> Tensor:
        where = [b for b, row in enumerate(rows) if row.coefficients[DISTURB]]
        if where:
            noise = self._noise([rows[b] for b in where], 0, Stream.DISTURBANCE)
            x[where] += k[DISTURB][where] * noise
        return x

    def _noised(self, rows: Sequence[LaneRow], x: Tensor, k: Tensor) -> Tensor:
        where = [b for b, row in enumerate(rows) if row.coefficients[K_S]]
        if where:
            noise = self._noise([rows[b] for b in where], 1, Stream.IMAGE)
            x[where] += k[K_S][where] * noise
        return x

    def _noise(self, rows: Sequence[LaneRow], later: int, stream: Stream) -> Tensor:
        device = self.model.device
        requests = [row.prepared.request for row in rows]
        seed = torch.tensor([request.seed for request in requests], device=device)
        image = [row.prepared.request.noise_index(row.row.image) for row in rows]
        step = torch.tensor([row.row.at + later for row in rows], device=device)
        return normal(seed, torch.tensor(image, device=device), step, self._shape, stream)


def _in_precision(net: UNet, precision: Precision) -> UNet:
    """The network itself, or a copy of half the size."""
    if precision == "bfloat16":
        net = copy.deepcopy(net).to(torch.bfloat16)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net
