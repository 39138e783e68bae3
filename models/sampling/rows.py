"""The rows of a sampler: a linear combination each, and the table of all of them.

A row says where on the grid the network is called, and what becomes of x:

    x  <-  k_x x + k_0 x0_hat + k_1 x0_prev + k_2 x0_prev2 + k_s noise

Float64 throughout; knows nothing of networks, images or torch.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np

from models.arrays import Float64
from models.sampling.grid import Grid


@dataclass(frozen=True)
class Combination:
    """A linear combination of x and the estimates of the clean image at this row (`x0`) and at the
    one and two before it (`x0_prev`, `x0_prev2`)."""

    x: float = 0.0
    x0: float = 0.0
    x0_prev: float = 0.0
    x0_prev2: float = 0.0

    def __add__(self, other: "Combination") -> "Combination":
        return Combination(
            self.x + other.x,
            self.x0 + other.x0,
            self.x0_prev + other.x0_prev,
            self.x0_prev2 + other.x0_prev2,
        )

    def __rmul__(self, k: float) -> "Combination":
        return Combination(k * self.x, k * self.x0, k * self.x0_prev, k * self.x0_prev2)

    def __sub__(self, other: "Combination") -> "Combination":
        return self + -1.0 * other

    def __truediv__(self, k: float) -> "Combination":
        return (1.0 / k) * self


X = Combination(x=1.0)
X0 = Combination(x0=1.0)
X0_PREV = Combination(x0_prev=1.0)
X0_PREV2 = Combination(x0_prev2=1.0)


@dataclass(frozen=True)
class Row:
    """One row: the grid's level at which the network is called, the new x, and the standard
    deviation of the fresh noise added to it."""

    level: int
    update: Combination
    noise: float = 0.0


@dataclass(frozen=True)
class SamplerTable:
    """Rows in order; all float64 (R,). The network is called at alpha, sigma, c_noise, t."""

    alpha: Float64
    sigma: Float64
    c_noise: Float64
    t: Float64
    k_x: Float64
    k_0: Float64
    k_1: Float64
    k_2: Float64
    k_s: Float64

    @classmethod
    def of(cls, grid: Grid, rows: Sequence[Row]) -> "SamplerTable":
        level = [row.level for row in rows]
        return cls(
            alpha=grid.alpha[level],
            sigma=grid.sigma[level],
            c_noise=grid.c_noise[level],
            t=grid.t[level],
            k_x=np.array([row.update.x for row in rows]),
            k_0=np.array([row.update.x0 for row in rows]),
            k_1=np.array([row.update.x0_prev for row in rows]),
            k_2=np.array([row.update.x0_prev2 for row in rows]),
            k_s=np.array([row.noise for row in rows]),
        )

    def __len__(self) -> int:
        return len(self.k_x)

    def __add__(self, other: "SamplerTable") -> "SamplerTable":
        """Put the other's rows after these."""
        return SamplerTable(
            *(np.concatenate(both) for both in zip(astuple(self), astuple(other), strict=True))
        )
