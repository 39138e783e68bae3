"""Noise that is a function, not a state: normal(seed, index, step) is the same bits anywhere.

A counter-based generator, Philox 4x32-10 (Salmon et al. 2011), turns (seed; element, index, step,
stream) into random bits, and the Box-Muller transform turns those into normal numbers. So an image
does not depend on what it was batched with, and a training run that stopped can go on exactly.

Integer parts are exact on every device. The only floating-point operations are +, -, *, / and sqrt,
each rounded as IEEE 754 says; a library's log or cos may differ in the last bit between devices, or
between the vectorised body and the tail of one tensor.

The arithmetic is written once, in the operations that numpy and torch share. On the CPU numpy
computes it, in pieces that stay in the cache: several times as fast there as torch. What a function
returns is of the library of its `index`.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import Array, Int64, library
from models.fields import Invalid

if TYPE_CHECKING:
    pass

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_SQRT_HALF = 0x3F3504F3  # the bits of sqrt 1/2 in float32
_SIGN = -(2**31)  # the sign bit of float32, as an int32
_PIECE = 4096  # elements: some ten arrays of them fit a second-level cache

MAX_SEED = 2**63 - 1


class Stream(IntEnum):
    """The uses of randomness: two uses never share bits."""

    IMAGE = 0  # noise added to an image, in sampling and in the forward process
    ORDER = 1  # which images make up a training batch
    LEVEL = 2  # training noise levels
    TRAINING = 3  # training noise
    CLASS_DROP = 4
    FLIP = 5
    DROPOUT = 6
    HELD_OUT = 7
    DISTURBANCE = 8
    AUGMENTATION = 9
    STUDENT = 10  # the noise levels of consistency tuning


def philox(counter: tuple[Any, Any, Any, Any], key: tuple[Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Return Philox 4x32-10 of 32-bit words in arrays of one shape, of int64 or numpy's uint64.

    The keys may be numbers. With uint64, so may all counters but the first.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # The product wraps at 64 bits; its two halves are right all the same. Bits of c1 and c3
        # above the lowest 32 do no harm before the end.
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
    """Return two independent standard normal float32 arrays from two arrays of 32-bit words, held
    in int64 or numpy's uint32."""
    radius = _log_uniform(word)
    radius *= -2.0
    radius = _sqrt(radius)
    cosine, sine = _unit_circle(turn)
    cosine *= radius
    sine *= radius
    return cosine, sine


def bits(
    seed: Array | int,
    index: Array,
    step: Array | int,
    size: int,
    stream: Stream = Stream.IMAGE,
) -> Array:
    """Return random 32-bit words as int64 (B, size) for `index` (B,) int64; seed and step are
    numbers, or int64 (B,).

    Raises Invalid for a seed outside 0..2^63 - 1.
    """
    words = _words(seed, index, step, -(-size // 4), stream)
    if isinstance(words, np.ndarray):
        words = words.astype(np.int64)
    xp = library(index)
    return xp.asarray(_by_row(words, len(index))[:, :size])  # type: ignore[no-any-return]


def uniform(seed: int, index: Array, step: Array | int, stream: Stream, size: int = 1) -> Array:
    """Return float64 numbers in the open interval (0, 1): (B, size)."""
    xp = library(index)
    words = xp.asarray(bits(seed, index, step, size, stream), dtype=xp.float64)
    return (words + 0.5) * 2.0**-32  # type: ignore[no-any-return]


def permutation(seed: int, count: int, stream: Stream, *, index: int = 0, step: int = 0) -> Int64:
    """Return a random order of 0..count - 1, int64 (count,)."""
    words = bits(seed, np.array([index]), step, 2 * count, stream)[0]
    keys = (words[:count] << 31) ^ words[count:]  # 63 bits
    return np.argsort(keys, stable=True)


def normal(
    seed: Array | int,
    index: Array,
    step: Array | int,
    shape: Sequence[int],
    stream: Stream = Stream.IMAGE,
) -> Array:
    """Return standard normal float32 (B, *shape); row b is a function of (seed[b], index[b],
    step[b])."""
    rows, size = len(index), math.prod(shape)
    pairs = -(-size // 2)
    words = _by_row(_words(seed, index, step, -(-pairs // 2), stream), rows)
    word, turn = words[:, :pairs].reshape(-1), words[:, pairs : 2 * pairs].reshape(-1)
    if isinstance(word, np.ndarray):
        both: Any = _normals_on_cpu(word, turn)
    else:
        both = library(word).stack(box_muller(word, turn))
    noise = _by_row(both, rows)[:, :size].reshape(-1, *shape)
    return library(index).asarray(noise)  # type: ignore[no-any-return]


def _by_row(parts: Array, rows: int) -> Array:
    """Return (parts, B, ...) as (B, parts ...), so that each row's numbers lie side by side."""
    return parts.reshape(len(parts), rows, -1).swapaxes(0, 1).reshape(rows, -1)


def _words(seed: Array | int, index: Array, step: Array | int, blocks: int, stream: Stream) -> Any:
    """Return the four words of each block of each row, (4, B blocks): numpy's uint32 on the CPU,
    else an int64 tensor."""
    if isinstance(seed, int) and not 0 <= seed <= MAX_SEED:
        raise Invalid("seed", seed, f"it must lie in 0..{MAX_SEED}")
    rows = len(index)
    given = (index, step, stream, seed & _MASK, seed >> 32)
    if isinstance(index, np.ndarray) or index.device.type == "cpu":
        elements = np.tile(np.arange(blocks, dtype=np.uint64), rows)
        return _words_on_cpu(elements, [_of_blocks(word, rows, blocks) for word in given])
    xp, device = library(index), index.device
    element = xp.arange(blocks, device=device).repeat(rows)
    of_rows = (xp.asarray(word, device=device).expand(rows) for word in given)
    c1, c2, c3, k0, k1 = (word.repeat_interleave(blocks) for word in of_rows)
    return xp.stack(philox((element, c1, c2, c3), (k0, k1)))


def _of_blocks(word: Any, rows: int, blocks: int) -> NDArray[np.uint64] | int:
    """Return the word of each block, or a number if all blocks share it: that makes the first
    rounds cheaper."""
    if isinstance(word, int):
        return word & _MASK
    words = np.asarray(word)
    if rows == 1:
        return int(words.item()) & _MASK
    return np.repeat(np.broadcast_to(words, rows).astype(np.uint64), blocks)


def _words_on_cpu(
    element: NDArray[np.uint64], others: Sequence[NDArray[np.uint64] | int]
) -> NDArray[np.uint32]:
    words = np.empty((4, len(element)), np.uint32)
    for i in range(0, len(element), _PIECE):
        piece = slice(i, i + _PIECE)
        c1, c2, c3, k0, k1 = (word if isinstance(word, int) else word[piece] for word in others)
        for row, word in zip(words, philox((element[piece], c1, c2, c3), (k0, k1)), strict=True):
            row[piece] = word
    return words


def _normals_on_cpu(word: NDArray[np.uint32], turn: NDArray[np.uint32]) -> NDArray[np.float32]:
    normals = np.empty((2, len(word)), np.float32)
    for i in range(0, len(word), 2 * _PIECE):
        piece = slice(i, i + 2 * _PIECE)  # numbers here are half as wide
        normals[0, piece], normals[1, piece] = box_muller(word[piece], turn[piece])
    return normals


def _sqrt(array: Array) -> Array:
    if isinstance(array, np.ndarray):
        root: NDArray[Any] = np.sqrt(array)
        return root
    return array.double().sqrt().float()  # a vectorised float32 sqrt may be off in the last bit


def _log_uniform(word: Array) -> Array:
    """Return ln u, u = (word + 1/2) / 2^32, by ln m = 2 artanh((m - 1) / (m + 1)) to 1e-7."""
    xp = library(word)
    x = xp.asarray(xp.asarray(word, dtype=xp.float64) + 0.5, dtype=xp.float32)
    # x = m 2^e with m in [sqrt 1/2, sqrt 2): both are read off x's bits minus those of sqrt 1/2.
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
    """Return (cos, sin) of 2 pi word / 2^32 - pi/4: a polynomial gives them near 0, and the word's
    top two bits choose the quadrant."""
    xp = library(word)
    word = _as_int32(word)
    angle = xp.asarray((word & 0x3FFFFFFF) - 0x20000000, dtype=xp.float32)
    angle *= math.pi / 2**31
    square = angle * angle
    cosine = _horner(square, (1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0)).view(xp.int32)
    sine = _horner(square, (1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0))
    sine *= angle
    sine = sine.view(xp.int32)
    # On the bits: a quarter turn makes (cos, sin) into (-sin, cos), a half turn flips both signs.
    quarter = word << 1
    swap = cosine ^ sine
    swap &= quarter >> 31
    cosine ^= swap
    sine ^= swap
    quarter ^= word
    quarter &= _SIGN
    cosine ^= quarter
    sine ^= word & _SIGN
    return cosine.view(xp.float32), sine.view(xp.float32)


def _as_int32(word: Array) -> Array:
    """Return the same bits as int32."""
    if isinstance(word, np.ndarray):
        signed: NDArray[Any] = word.astype(np.uint32, copy=False).view(np.int32)
        return signed
    return word.int()


def _horner(x: Array, coefficients: Sequence[float]) -> Array:
    """Return the polynomial with these coefficients, highest power first."""
    value = x * coefficients[0]
    for coefficient in coefficients[1:-1]:
        value += coefficient
        value *= x
    value += coefficients[-1]
    return value
