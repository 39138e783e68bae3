"""Muon (Jordan et al. 2024) for the matrices inside a net, and Adam for all other parameters.

The average of a matrix's gradients is replaced by the nearest matrix whose singular values are all
about 1, so that no direction of the matrix learns more slowly than another. A convolution is the
matrix from its inputs (channels x height x width of the kernel) to its output channels.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from models.training.adam import Adam

MOMENTUM = 0.95
# Of the iteration of degree five that brings singular values to about 1 (same source).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# An update's root mean square is that of Adam's at the same learning rate (Liu et al. 2025).
RMS = 0.2


class Muon(Adam):
    """`inner` are the parameters that are updated as matrices; each is one of `parameters`, of two
    dimensions or four. Their `means` are averages of gradients, their `squares` stay 0."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        inner: Collection[nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        fused: bool = False,
    ) -> None:
        super().__init__(parameters, betas, fused=fused)
        chosen = {id(p) for p in inner}
        both = zip(self.parameters, self.means, strict=True)
        self._inner = [(p, mean) for p, mean in both if id(p) in chosen]

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        moving = [(p, mean) for p, mean in self._inner if p.grad is not None]
        updates = []
        for parameter, mean in moving:
            gradient = parameter.grad
            assert gradient is not None
            mean.lerp_(gradient, 1.0 - MOMENTUM)
            updates.append(as_matrix(gradient.lerp(mean, MOMENTUM)))
            parameter.grad = None  # Adam leaves it alone
        for (parameter, _), update in zip(moving, orthogonal(updates), strict=True):
            rate = learning_rate * RMS * math.sqrt(max(update.shape))
            parameter.add_(like(parameter, update), alpha=-rate)
        super().step(learning_rate)


def as_matrix(weight: Tensor) -> Tensor:
    """Return (rows, columns) of a weight of two dimensions or four."""
    return weight if weight.ndim == 2 else weight.permute(0, 2, 3, 1).flatten(1)


def like(weight: Tensor, matrix: Tensor) -> Tensor:
    """Return as_matrix(weight) in the shape of the weight."""
    if weight.ndim == 2:
        return matrix
    rows, channels, height, width = weight.shape
    return matrix.view(rows, height, width, channels).permute(0, 3, 1, 2)


def orthogonal(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Return each matrix (rows, columns) with its singular values brought to about 1.

    The iteration is x <- (a + b x xT + c (x xT)^2) x. All of its factors are polynomials of the
    first x xT, so that the products of these small matrices are all that is computed until the
    end: a third of the operations for the weights of a convolution. Those of one size, of whatever
    shape x is, are computed together.
    """
    wide = [m if m.shape[0] <= m.shape[1] else m.mT for m in matrices]
    wide = [x / x.norm().clamp(min=1e-7) for x in wide]
    sizes: dict[int, list[int]] = defaultdict(list)
    for i, x in enumerate(wide):
        sizes[len(x)].append(i)
    found = list(wide)
    for places in sizes.values():
        factors = _factors(torch.stack([wide[i] @ wide[i].mT for i in places]))
        for i, factor in zip(places, factors, strict=True):
            found[i] = factor @ wide[i]
    each = zip(matrices, found, strict=True)
    return [x if x.shape == matrix.shape else x.mT for matrix, x in each]


def _factors(grams: Tensor) -> Tensor:
    """Return what is to be multiplied by each x, for its x xT (n, rows, rows)."""
    a, b, c = COEFFICIENTS
    one = torch.eye(grams.shape[1], device=grams.device)
    factors = one
    for _ in range(ITERATIONS):
        steps = a * one + b * grams + c * grams @ grams
        factors = steps @ factors
        grams = steps @ grams @ steps
    return factors
