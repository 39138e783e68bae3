"""The device's side of a group of orders: the network, the state of every image under way, and the
network call.

An image holds a slot until it is made. A step takes any of them, wherever each is in its plan,
through one network call and one update (models.sampling.update); nothing here branches on a
sampler.
"""

import math
from collections.abc import Sequence

from models.arrays import AnyArray, library
from models.nets.precision import Precision, Ranges
from models.runtime.net import EngineModel
from models.sampling.update import Rows, Updated, starting_x, update

MAX_SLOTS = 256
MAX_STATE_BYTES = 256 * 2**20


class GroupState:
    """The network in a precision, and float32 (slots, C, H, W) `x`, `prev`, `prev2`: the image
    under way, and the network's estimates of the clean image one and two rows earlier."""

    def __init__(
        self,
        model: EngineModel,
        precision: Precision,
        ranges: Ranges = (),
        can_prepare: bool = True,
    ) -> None:
        """Make the network and room for images. With `can_prepare`, calls of a width may take
        another way once that is prepared."""
        config = model.config
        self._shape = (config.channels, *config.image_size)
        self._null_label = len(config.class_names) if config.class_names else None
        slot_bytes = 3 * 4 * math.prod(self._shape)
        self.slots = max(8, min(MAX_SLOTS, MAX_STATE_BYTES // slot_bytes))
        self._net, self._can_prepare = model.net(precision, ranges), can_prepare
        self.like = self._net.like
        self._calls: dict[int, int] = {}  # by width, since it was prepared
        xp, shape = library(self.like), (self.slots, *self._shape)
        self._x, self._prev, self._prev2 = (
            xp.zeros(shape, dtype=xp.float32, device=self.like.device) for _ in range(3)
        )

    def prepare(self, width: int) -> bool:
        """Prepare a call. Return True if such calls take another way from now on."""
        if not self._can_prepare or not self._net.prepare(width):
            return False
        self._calls.pop(width, None)
        return True

    def is_warm(self, width: int) -> bool:
        """Tell whether the last call of a width was not its first, which prepares what later ones
        use."""
        return self._calls[width] > 1

    def free_memory(self) -> None:
        self._net.free_memory()

    def step(self, rows: Rows, slots: Sequence[int | None], width: int) -> Updated:
        """Take each image one row further by a network call of `width` evaluations. Nothing has
        changed if it raises."""
        slot = list(slots)
        x, prev, prev2 = self._x[slot], self._prev[slot], self._prev2[slot]
        new = [b for b, at in enumerate(rows.at) if at == 0]
        if new:
            x[new] = starting_x(rows.select(new), self._shape, self.like)
            prev[new] = prev2[new] = 0.0

        def call(x: AnyArray, c_noise: AnyArray, labels: AnyArray | None) -> AnyArray:
            return self._call(width, x, c_noise, labels)

        updated = update(rows, x, prev, prev2, call, self._null_label)
        self._x[slot], self._prev[slot], self._prev2[slot] = updated.x, updated.x0_hat, prev
        self._calls[width] = self._calls.get(width, 0) + 1
        return updated

    def _call(
        self, width: int, x: AnyArray, c_noise: AnyArray, labels: AnyArray | None
    ) -> AnyArray:
        """Call the network, padded to `width` with copies of the first evaluation."""
        count = len(x)
        if count < width:
            padded = [*range(count), *[0] * (width - count)]
            x, c_noise = x[padded], c_noise[padded]
            labels = None if labels is None else labels[padded]
        return self._net(x, c_noise, labels)[:count]
