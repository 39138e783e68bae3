"""Adam (Kingma and Ba 2015) by the functions of torch.optim.

Its classes import torch's compiler when the first optimiser is made: 1.9 s of CPU time, beside
3.1 s for all other imports of a training. The functions do not.
"""

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adamw import adamw

EPS = 1e-8


class Adam:
    """The optimiser of some parameters, with decoupled weight decay (Loshchilov and Hutter 2019).

    `means` and `squares` are the running averages of the parameters' gradients and of their
    squares, `steps` counts the updates of each parameter, () float32. One kernel updates all
    parameters if `fused`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        self.parameters = list(parameters)
        self.betas, self.weight_decay, self.fused = betas, weight_decay, fused
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device if fused else "cpu") for p in self.parameters]

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update the parameters that have a gradient."""
        state = zip(self.parameters, self.means, self.squares, self.steps, strict=True)
        rows = [(p, p.grad, *rest) for p, *rest in state if p.grad is not None]
        if not rows:
            return
        parameters, gradients, means, squares, steps = map(list, zip(*rows, strict=True))
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=self.fused or None,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=learning_rate,
            weight_decay=self.weight_decay,
            eps=EPS,
            maximize=False,
        )
