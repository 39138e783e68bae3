"""Dropout whose mask costs little on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout


class Dropout(nn.Module):
    """Dropout: in training each value becomes 0 with probability `p`, the others are divided by
    1 - p.

    On a CPU torch.nn.Dropout calls the generator once for each value, which takes longer than the
    convolution before it. Here one draw of 64 bits serves eight values, each by a byte, and `p` is
    rounded to a multiple of 1 / 256. On other devices it is torch's. Both follow torch.manual_seed.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Drop values of x, float of any shape and layout."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return dropout(x, self.p)
        dropped = round(256 * self.p)  # of the 256 values of a byte
        mask = (_random_bytes(x) >= dropped).to(x.dtype)
        return x * mask.mul_(256 / (256 - dropped))

    def extra_repr(self) -> str:
        return f"p={self.p}"


def _random_bytes(x: Tensor) -> Tensor:
    """Return uint8 of x's shape, in x's memory layout."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    layout = torch.empty_like(x, dtype=torch.uint8, device="meta")
    return words.view(torch.uint8)[: x.numel()].as_strided(x.shape, layout.stride())
