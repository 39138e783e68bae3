"""Muon (Jordan et al. 2024) for the matrices inside a net, and Adam for all other parameters.

The average of a matrix's gradients is replaced by the nearest matrix whose singular values are all
about 1, so that no direction of the matrix learns more slowly than another. A convolution is the
matrix from its inputs (channels x height x width of the kernel) to its output channels.
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable

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
        self._groups: dict[tuple[int, int], list[tuple[nn.Parameter, Tensor]]] = defaultdict(list)
        for parameter, mean in zip(self.parameters, self.means, strict=True):
            if id(parameter) in chosen:
                rows, columns = as_matrix(parameter).shape
                self._groups[rows, columns].append((parameter, mean))

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        for (rows, columns), group in self._groups.items():
            rate = -learning_rate * RMS * math.sqrt(max(rows, columns))
            moving = [(p, mean) for p, mean in group if p.grad is not None]
            if not moving:
                continue
            updates = []
            for parameter, mean in moving:
                gradient = parameter.grad
                assert gradient is not None
                mean.lerp_(gradient, 1.0 - MOMENTUM)
                updates.append(as_matrix(gradient.lerp(mean, MOMENTUM)))
                parameter.grad = None  # Adam leaves it alone
            steps = orthogonal(torch.stack(updates))
            for (parameter, _), update in zip(moving, steps, strict=True):
                parameter.add_(like(parameter, update), alpha=rate)
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


def orthogonal(matrices: Tensor) -> Tensor:
    """Return (n, rows, columns): each matrix with its singular values brought to about 1.

    The iteration is x <- (a + b x xT + c (x xT)^2) x. All of its factors are polynomials of the
    first x xT, so that the products of these small matrices are all that is computed until the
    end: a third of the operations for the weights of a convolution.
    """
    a, b, c = COEFFICIENTS
    is_tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    gram = x @ x.mT
    one = torch.eye(len(gram[0]), device=x.device)
    factor = one
    for _ in range(ITERATIONS):
        step = a * one + b * gram + c * gram @ gram
        factor = step @ factor
        gram = step @ gram @ step
    found: Tensor = factor @ x
    return found.mT if is_tall else found
