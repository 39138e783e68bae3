"""Noise that is a function, not a state: normal(seed, index, step) is the same bits anywhere.

A counter-based generator, Philox 4x32-10 (Salmon et al. 2011), turns (seed; element, index, step,
stream) into random bits, and the Box-Muller transform turns those into normal numbers. So an image
does not depend on what it was batched with, and a training run that stopped can go on exactly.

Integer parts are exact on every device. Of floating point only +, -, *, / and sqrt are used, each
rounded as IEEE 754 says; a library's log or cos may differ in the last bit between devices, or
between the vectorised body and the tail of one tensor.
"""

import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

MAX_SEED = 2**63 - 1


class Stream(IntEnum):
    """What the randomness is for: two uses never share bits."""

    IMAGE = 0  # noise added to an image, in sampling and in the forward process
    ORDER = 1  # which images make up a training batch
    LEVEL = 2  # training noise levels
    TRAINING = 3  # training noise
    CLASS_DROP = 4
    FLIP = 5
    DROPOUT = 6
    HELD_OUT = 7


def philox(
    counter: Sequence[Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox 4x32-10 of four int64 tensors that hold 32-bit words and broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product wraps at 64 bits; its two halves are right all the same.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((p1 >> 32) & _MASK) ^ c1 ^ k0,
            p1 & _MASK,
            ((p0 >> 32) & _MASK) ^ c3 ^ k1,
            p0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def bits(
    seed: int, index: Tensor, step: Tensor | int, size: int, stream: Stream = Stream.IMAGE
) -> Tensor:
    """Random 32-bit words as int64 (B, size) for `index` (B,) int64 and a step, or one per row.

    Raises ValueError for a seed outside 0..2^63 - 1.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; it must lie in 0..{MAX_SEED}")
    device = index.device
    element = torch.arange(-(-size // 4), device=device)[None, :]
    steps = torch.as_tensor(step, device=device).expand(index.shape)[:, None]
    purpose = torch.tensor(int(stream), device=device)
    words = philox((element, index[:, None], steps, purpose), (seed & _MASK, seed >> 32))
    return torch.cat(words, dim=1)[:, :size]


def uniform(seed: int, index: Tensor, step: Tensor | int, stream: Stream, size: int = 1) -> Tensor:
    """Float64 numbers in the open interval (0, 1): (B, size)."""
    return (bits(seed, index, step, size, stream).double() + 0.5) * 2.0**-32


def normal(
    seed: int,
    index: Tensor,
    step: Tensor | int,
    shape: Sequence[int],
    stream: Stream = Stream.IMAGE,
) -> Tensor:
    """Standard normal float32 (B, *shape); row b is a function of (seed, index[b], step[b])."""
    size = math.prod(shape)
    pairs = -(-size // 2)
    words = bits(seed, index, step, 2 * pairs, stream)
    # A vectorised float32 sqrt may be off in the last bit; through float64 it rounds correctly.
    radius = (-2.0 * _log_uniform(words[:, :pairs])).double().sqrt().float()
    cosine, sine = _unit_circle(words[:, pairs:])
    return torch.cat([radius * cosine, radius * sine], dim=1)[:, :size].reshape(-1, *shape)


def _log_uniform(word: Tensor) -> Tensor:
    """ln u, u = (word + 1/2) / 2^32, by ln m = 2 artanh((m - 1) / (m + 1)) to 1e-7."""
    mantissa, exponent = torch.frexp((word.double() + 0.5).float())  # mantissa in [1/2, 1)
    small = mantissa < math.sqrt(0.5)
    mantissa = torch.where(small, mantissa * 2.0, mantissa)  # in [sqrt 1/2, sqrt 2)
    exponent = (exponent - small.int() - 32).float()
    s = (mantissa - 1.0) / (mantissa + 1.0)  # |s| < 0.172
    s2 = s * s
    series = _horner(s2, (2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0))
    # u rounds to 1 for the largest words: ln 1 = 0 is then exact.
    return s * series + exponent * math.log(2.0)


def _unit_circle(word: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) of 2 pi word / 2^32 - pi/4: two bits turn what a polynomial gives near 0."""
    quadrant = word >> 30
    centred = (word & 0x3FFFFFFF) - 0x20000000
    angle = centred.float() * (math.pi / 2**31)
    square = angle * angle
    cosine = _horner(square, (1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0))
    sine = angle * _horner(square, (1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0))
    swap = (quadrant & 1).bool()
    x, y = torch.where(swap, -sine, cosine), torch.where(swap, cosine, sine)
    turn = torch.where(quadrant >= 2, -1.0, 1.0)
    return x * turn, y * turn


def _horner(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with these coefficients, highest power first."""
    value = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
