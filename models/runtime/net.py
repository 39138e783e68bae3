"""A model as the engine runs it, whichever library computes its network.

models.runtime.openvino computes it on CPUs, models.runtime.torch_net on GPUs, and on CPUs where
OpenVINO cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from models.arrays import AnyArray
from models.diffusion.config import ModelConfig
from models.nets.precision import Precision, PrecisionChoice, Ranges


class EngineNet(Protocol):
    """The network in one precision. For one thread at a time."""

    @property
    def like(self) -> AnyArray:
        """An empty array, of the library and on the device of all others."""

    def prepare(self, width: int) -> bool:
        """Prepare a call of so many rows. Return True if such calls take another way from now on
        than they took before."""

    def __call__(self, x: AnyArray, c_noise: AnyArray, label: AnyArray | None) -> AnyArray:
        """Return y (B, C, H, W) of x (B, C, H, W), c_noise (B,) and label (B,)."""

    def free_memory(self) -> None:
        """Give back what is kept for later calls."""


class NetMaker(Protocol):
    def __call__(self, precision: Precision, ranges: Ranges = ()) -> EngineNet:
        """Return the network in a precision. Raises Invalid where `ranges` are not those that int8
        needs."""


@dataclass(frozen=True)
class EngineModel:
    """`precision` is what a choice comes to on this machine, and `net` makes the network in it; it
    raises Invalid for int8 where that cannot be had.
    `widths` are those of calls, ascending. `same_rows`: a row's result is the same to the bit
    whatever the width, and the other rows."""

    config: ModelConfig
    precision: Callable[[PrecisionChoice], Precision]
    net: NetMaker
    num_bytes: int
    widths: tuple[int, ...]
    same_rows: bool
    runtime: Literal["openvino", "torch"]
