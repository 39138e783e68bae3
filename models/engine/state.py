"""The device's side of a group of orders: the network, the state of every image under way, and the
network call.

An image holds a slot until it is made. A step takes any of them, wherever each is in its plan,
through one network call and one update (models.sampling.update); nothing here branches on a
sampler.
"""

import copy
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from models.compile.library import Variant
from models.diffusion.model import DiffusionModel
from models.nets.precision import Precision
from models.nets.unet import UNet
from models.sampling.update import Network, Rows, Updated, starting_x, update

MAX_SLOTS = 256
MAX_STATE_BYTES = 256 * 2**20


class NetCompiler(Protocol):
    """models.compile.compiler.Compiler on a CPU, models.compile.cuda_graphs.GraphCompiler on a
    GPU."""

    def call(self, variant: Variant, net: UNet) -> Network | None:
        """Return a faster form of the network, or None until there is one. Called before each call
        of a width until then."""


class GroupState:
    """The network in a precision, and float32 (slots, C, H, W) `x`, `prev`, `prev2`: the image
    under way, and the network's estimates of the clean image one and two rows earlier."""

    def __init__(
        self, model: DiffusionModel, precision: Precision, compiler: NetCompiler | None = None
    ) -> None:
        """With a compiler, calls of a width are compiled as soon as that is done."""
        config = model.config
        self.model = model
        self._shape = (config.net.out_channels, *config.image_size)
        self._null_label = model.null_label if config.class_names else None
        slot_bytes = 3 * 4 * math.prod(self._shape)
        self.slots = max(8, min(MAX_SLOTS, MAX_STATE_BYTES // slot_bytes))
        self._net = _in_precision(model.net, precision)
        self._precision = precision
        self._dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        self._compiler = compiler if isinstance(model.net, UNet) else None
        self._compiled: dict[int, Network] = {}
        self._calls: dict[int, int] = {}  # by width, since it was prepared
        self._x, self._prev, self._prev2 = (
            torch.zeros((self.slots, *self._shape), device=model.device) for _ in range(3)
        )

    def prepare(self, width: int) -> bool:
        """Look for a compiled form before a call. True: such calls take another way from now on."""
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
        self._calls.pop(width, None)
        return True

    def is_warm(self, width: int) -> bool:
        """Tell whether the last call of a width was not its first, which prepares what later ones
        use."""
        return self._calls[width] > 1

    def step(self, rows: Rows, slots: Sequence[int | None], width: int) -> Updated:
        """Take each image one row further by a network call of `width` evaluations. Nothing has
        changed if it raises."""
        slot = torch.tensor(slots, device=self.model.device)
        x, prev, prev2 = self._x[slot], self._prev[slot], self._prev2[slot]
        new = [b for b, at in enumerate(rows.at) if at == 0]
        if new:
            x[new] = starting_x(rows.select(new), self._shape, self.model.device)
            prev[new] = prev2[new] = 0.0

        def call(x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
            return self._call(width, x, c_noise, labels)

        updated = update(rows, x, prev, prev2, call, self._null_label)
        self._x[slot], self._prev[slot], self._prev2[slot] = updated.x, updated.x0_hat, prev
        self._calls[width] = self._calls.get(width, 0) + 1
        return updated

    def _call(self, width: int, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """Call the network, padded to `width` with copies of the first evaluation."""
        count = len(x)
        if count < width:
            padded = [*range(count), *[0] * (width - count)]
            x, c_noise = x[padded], c_noise[padded]
            labels = None if labels is None else labels[padded]
        # A compiled network takes its inputs as they lie in memory; c_noise may be a column.
        x = x.to(self._dtype).contiguous(memory_format=torch.channels_last)
        return self._compiled.get(width, self._net)(x, c_noise.contiguous(), labels)[:count]


def _in_precision(net: UNet, precision: Precision) -> UNet:
    """Return the network itself, or a copy of half the size."""
    if precision == "bfloat16":
        net = copy.deepcopy(net).to(torch.bfloat16)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net
