"""Noise that is a function, not a state: normal(seed, index, step) is the same bits anywhere.

A counter-based generator, Philox 4x32-10 (Salmon et al. 2011), turns (seed; element, index, step,
stream) into random bits, and the Box-Muller transform turns those into normal numbers. So an image
does not depend on what it was batched with, and a training run that stopped can go on exactly.

Integer parts are exact on every device. Of floating point only +, -, *, / and sqrt are used, each
rounded as IEEE 754 says; a library's log or cos may differ in the last bit between devices, or
between the vectorised body and the tail of one tensor.

The arithmetic is written once, for what numpy and torch have in common. On the CPU numpy computes
it, in pieces that stay in the cache: several times as fast there as torch.
"""

import math
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = TypeVar("Array", Tensor, NDArray[Any])

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SQRT_HALF = 0x3F3504F3  # the bits of sqrt 1/2 in float32
_PIECE = 8192  # elements: some ten arrays of them fit a second-level cache

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
    DISTURBANCE = 8


def philox(
    counter: tuple[Array, Array, Array, Array], key: tuple[int, int] | tuple[Array, Array]
) -> tuple[Array, Array, Array, Array]:
    """Philox 4x32-10 of four int64 arrays of one shape that hold 32-bit words. The key is two such
    words, or two arrays of them."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product wraps at 64 bits; its two halves are right all the same. What c1 and c3 hold
        # above their 32 bits does no harm before the end.
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0 = p1 >> 32
        c0 ^= c1
        c0 ^= k0
        c0 &= _MASK
        c2 = p0 >> 32
        c2 ^= c3
        c2 ^= k1
        c2 &= _MASK
        c1, c3 = p1, p0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1 & _MASK, c2, c3 & _MASK


def box_muller(word: Array, turn: Array) -> tuple[Array, Array]:
    """Two independent standard normal float32 arrays from two int64 arrays of 32-bit words."""
    radius = _log_uniform(word)
    radius *= -2.0
    radius = _sqrt(radius)
    cosine, sine = _unit_circle(turn)
    return radius * cosine, radius * sine


def bits(
    seed: Tensor | int,
    index: Tensor,
    step: Tensor | int,
    size: int,
    stream: Stream = Stream.IMAGE,
) -> Tensor:
    """Random 32-bit words as int64 (B, size) for `index` (B,) int64; seed and step are numbers, or
    int64 (B,).

    Raises ValueError for a seed outside 0..2^63 - 1.
    """
    rows, blocks = len(index), -(-size // 4)
    element = torch.arange(blocks, device=index.device)
    steps = torch.as_tensor(step, device=index.device).expand(rows)
    counter = [element, index[:, None], steps[:, None]]
    if isinstance(seed, Tensor):
        counter += [(seed & _MASK)[:, None], (seed >> 32)[:, None]]
    elif not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; it must lie in 0..{MAX_SEED}")

    def words_of(element: Any, index: Any, step: Any, *keys: Any) -> tuple[Any, ...]:
        key = keys or (seed & _MASK, seed >> 32)
        return philox((element, index, step, _library(step).full_like(step, int(stream))), key)

    words = _in_pieces(words_of, *(word.expand(rows, blocks).reshape(-1) for word in counter))
    return torch.stack([word.view(rows, blocks) for word in words], 1).view(rows, -1)[:, :size]


def uniform(seed: int, index: Tensor, step: Tensor | int, stream: Stream, size: int = 1) -> Tensor:
    """Float64 numbers in the open interval (0, 1): (B, size)."""
    return (bits(seed, index, step, size, stream).double() + 0.5) * 2.0**-32


def normal(
    seed: Tensor | int,
    index: Tensor,
    step: Tensor | int,
    shape: Sequence[int],
    stream: Stream = Stream.IMAGE,
) -> Tensor:
    """Standard normal float32 (B, *shape); row b is a function of (seed[b], index[b], step[b])."""
    size = math.prod(shape)
    pairs = -(-size // 2)
    words = bits(seed, index, step, 2 * pairs, stream)
    x, y = _in_pieces(box_muller, words[:, :pairs].reshape(-1), words[:, pairs:].reshape(-1))
    both = torch.cat([x.view(-1, pairs), y.view(-1, pairs)], dim=1)
    return both[:, :size].reshape(-1, *shape)


def _in_pieces(function: Callable[..., tuple[Any, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
    """An elementwise function of 1-D tensors, by numpy where they lie on the CPU."""
    if inputs[0].device.type != "cpu":
        return function(*inputs)
    arrays = [tensor.numpy() for tensor in inputs]
    outputs = function(*(array[:_PIECE] for array in arrays))
    if len(arrays[0]) > _PIECE:
        pieces = [outputs]
        for i in range(_PIECE, len(arrays[0]), _PIECE):
            pieces.append(function(*(array[i : i + _PIECE] for array in arrays)))
        outputs = tuple(np.concatenate(parts) for parts in zip(*pieces, strict=True))
    return tuple(torch.from_numpy(output) for output in outputs)


def _library(array: Tensor | NDArray[Any]) -> Any:
    return torch if isinstance(array, Tensor) else np


def _sqrt(array: Array) -> Array:
    if isinstance(array, Tensor):  # a vectorised float32 sqrt may be off in the last bit
        return array.double().sqrt().float()
    root: NDArray[Any] = np.sqrt(array)
    return root


def _log_uniform(word: Array) -> Array:
    """ln u, u = (word + 1/2) / 2^32, by ln m = 2 artanh((m - 1) / (m + 1)) to 1e-7."""
    xp = _library(word)
    x = xp.asarray(xp.asarray(word, dtype=xp.float64) + 0.5, dtype=xp.float32)
    # x = m 2^e with m in [sqrt 1/2, sqrt 2): by its bits, seen from those of sqrt 1/2.
    offset = x.view(xp.int32) - _SQRT_HALF
    m: Array = ((offset & 0x7FFFFF) + _SQRT_HALF).view(xp.float32)
    exponent = xp.asarray((offset >> 23) - 32, dtype=xp.float32)
    s = (m - 1.0) / (m + 1.0)  # |s| < 0.172
    logarithm = _horner(s * s, (2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0))
    logarithm *= s
    exponent *= math.log(2.0)
    logarithm += exponent  # u rounds to 1 for the largest words: ln 1 = 0 is then exact
    return logarithm


def _unit_circle(word: Array) -> tuple[Array, Array]:
    """(cos, sin) of 2 pi word / 2^32 - pi/4: two bits turn what a polynomial gives near 0."""
    xp = _library(word)
    quadrant = word >> 30
    centred = xp.asarray((word & 0x3FFFFFFF) - 0x20000000, dtype=xp.float32)
    angle = centred * (math.pi / 2**31)
    square = angle * angle
    cosine = _horner(square, (1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0))
    sine = angle * _horner(square, (1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0))
    swap = (quadrant & 1) == 1
    x: Array
    y: Array
    x, y = xp.where(swap, -sine, cosine), xp.where(swap, cosine, sine)
    turn = xp.asarray(1 - (quadrant & 2), dtype=xp.float32)
    return x * turn, y * turn


def _horner(x: Array, coefficients: Sequence[float]) -> Array:
    """The polynomial with these coefficients, highest power first."""
    value = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        value += coefficient
        value *= x
    value += coefficients[-1]
    return value
