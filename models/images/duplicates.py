"""Pairs of pictures that look the same, among a million of them, without comparing all pairs.

A perceptual hash (of a thumbnail's low frequencies) names candidates: pairs whose hashes differ in
a few bits. `close_pairs` finds them by the pigeonhole principle: divided into blocks, two such
hashes agree in all blocks but a few, so that they are neighbours in one of the tables that are
sorted by some of the blocks (Manku, Jain and Das Sarma, 2007). The thumbnails decide.

The constants were measured on photographs, CIFAR-10, emoji and digits: docs/datasets.md.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float32, Int64, UInt8
from models.images.fingerprints import LUMA_SIDE

UInt64 = NDArray[np.uint64]

# Of photographs and drawings that were stored again, resized or made darker 99% differ in no more
# bits; so do 97% with 1% cut off at each edge, and three quarters with 2%.
NEAR_BITS = 8
NEAR_BITS_OF_MANY = 6  # finds four fifths of CIFAR-10's groups; 8 bits would take minutes
MANY = 2**16  # pictures; from there on tables by three blocks are also faster than by two
# Among CIFAR-10's 484 pairs up to 0.08 a few are different pictures, up to 0.07 hardly any of 400.
# Pictures stored again come to 0.06, those with 1% cut off at each edge to 0.08.
NEAR_DIFFERENCE = 0.07
NEAR_COLOUR = 8.0  # of 255: brighter pictures come to 5, drawings in another colour to 20
FINE_SIDE = 32  # pixels, two for a cell of the thumbnail: from there on it may be shifted a little
COMPARISONS = 1000  # for each picture; CIFAR-10's 50,000 need 470, a million of them 120

_BITS = 64
_SIDE = 8  # frequencies a side of the hash
_CHUNK = 2**13  # pictures or pairs at a time: 8 MiB of thumbnails as float32


@dataclass(frozen=True)
class ClosePairs:
    """Positions (first < second), (P,) each. If not `complete`, so many hashes are alike that not
    all were compared."""

    first: Int64
    second: Int64
    complete: bool


def same_pictures(luma: UInt8, chroma: UInt8, fine: NDArray[np.bool_]) -> tuple[Int64, bool]:
    """Return for each picture (N,) the first one of its group, and whether all close pairs were
    compared. A picture that looks like no other is a group of its own.

    `luma` and `chroma` are the thumbnails of models.images.fingerprints; `fine` (N,) says which
    pictures have at least FINE_SIDE pixels a side. A picture looks the same as at least one other
    of its group.
    """
    root = np.arange(len(luma))
    complete = True
    distance = NEAR_BITS if len(luma) < MANY else NEAR_BITS_OF_MANY
    for pairs in close_pairs(perceptual_hashes(luma), distance, COMPARISONS * len(luma)):
        complete &= pairs.complete
        for start in range(0, len(pairs.first), _CHUNK):
            first, second = (v[start : start + _CHUNK] for v in (pairs.first, pairs.second))
            apart = root[first] != root[second]  # else they are in one group already
            first, second = first[apart], second[apart]
            difference = differences(luma[first], luma[second], fine[first] | fine[second])
            shift = np.abs(chroma[first].astype(np.int16) - chroma[second]).mean(axis=(1, 2, 3))
            near = (difference <= NEAR_DIFFERENCE) & (shift <= NEAR_COLOUR)
            root = connected(root, first[near], second[near])
    return root, complete


def perceptual_hashes(luma: UInt8) -> UInt64:
    """Return a hash (N,) of thumbnails (N, 16, 16).

    Its 63 bits say which of the 8 x 8 lowest frequencies of the cosine transform, without the mean,
    are above a fifth of their mean magnitude. Brightness and contrast do not change them. The usual
    threshold, the median, is 0 in symmetrical drawings, where half of the frequencies are 0 but
    for noise: after a change that nobody sees, an eighth of the emoji had other bits.
    """
    position = (np.arange(LUMA_SIDE) + 0.5) * (math.pi / LUMA_SIDE)
    cosines = np.cos(np.arange(_SIDE)[:, None] * position).astype(np.float32)  # (8, 16)
    hashes = np.zeros(len(luma), np.uint64)
    for start in range(0, len(luma), _CHUNK):
        part = slice(start, start + _CHUNK)
        frequencies = (cosines @ luma[part].astype(np.float32) @ cosines.T).reshape(-1, _BITS)
        frequencies[:, 0] = 0
        magnitude = np.abs(frequencies).mean(axis=1, keepdims=True)
        hashes[part] = np.packbits(frequencies > magnitude / 5, axis=1).view(">u8")[:, 0]
    return hashes


def close_pairs(hashes: UInt64, distance: int, max_comparisons: int) -> Iterator[ClosePairs]:
    """Yield each pair of hashes (N,) that differ in at most `distance` bits once, a part for each
    table.

    No more than `max_comparisons` pairs are compared. The bound matters only where very many
    hashes are alike; then each is compared with its next neighbours in every table.
    """
    agreeing = 2 if len(hashes) < MANY else 3
    blocks = _blocks(distance + agreeing)
    tables = list(combinations(range(len(blocks)), agreeing))
    compared = 0
    for i, table in enumerate(tables):
        keys = hashes & np.bitwise_or.reduce(blocks[list(table)])
        order = np.argsort(keys)
        keys, ordered = keys[order], hashes[order]
        earlier = blocks[[b for b in range(table[-1]) if b not in table]]
        found = [np.zeros((2, 0), np.int64)]
        complete = True
        for left, offset in _in_runs(keys):
            compared += left.size
            if compared > max_comparisons * (i + 1) // len(tables):
                complete = False
                break
            differing = ordered[left] ^ ordered[left + offset]
            near = np.bitwise_count(differing) <= distance
            left, differing = left[near], differing[near]
            # Of the tables in which a pair meets, the one by its first agreeing blocks counts.
            for block in earlier:
                new = (differing & block) != 0
                left, differing = left[new], differing[new]
            found.append(np.sort([order[left], order[left + offset]], axis=0))
        first, second = np.concatenate(found, axis=1)
        yield ClosePairs(first, second, complete)


def _blocks(count: int) -> UInt64:
    """Divide the bits into blocks of about equal length; return a mask for each."""
    ends = [_BITS * i // count for i in range(count + 1)]
    masks = [(1 << end) - (1 << start) for start, end in pairwise(ends)]
    return np.array(masks, np.uint64)


def _in_runs(keys: UInt64) -> Iterator[tuple[Int64, int]]:
    """Yield all pairs of equal entries among sorted ones: positions, and an offset to the other."""
    offset = 1
    left = np.arange(len(keys) - 1)
    while (left := left[keys[left] == keys[left + offset]]).size:
        yield left, offset
        offset += 1
        left = left[: np.searchsorted(left, len(keys) - offset)]


def differences(first: UInt8, second: UInt8, shifted: NDArray[np.bool_]) -> Float32:
    """Return how much thumbnails (P, 16, 16) differ from those of another picture, in standard
    deviations.

    It is the root of the mean square after brightness and contrast are made equal. Where `shifted`,
    a cell differs only as far as it is beyond its neighbours in the other picture, so that cropping
    a little and another filter of resizing do not count; it is the larger one of both directions.
    """
    a, b = _normalised(first), _normalised(second)
    squares = [
        np.square(np.maximum(0, np.maximum(x - high, low - x))).mean(axis=(1, 2))
        for x, other in ((a, b), (b, a))
        for low, high in [_neighbourhood(other, shifted)]
    ]
    larger: Float32 = np.sqrt(np.maximum(*squares))
    return larger


def _neighbourhood(values: Float32, wide: NDArray[np.bool_]) -> tuple[Float32, Float32]:
    """Return the least and the largest value of 3 x 3 cells, of the cell alone if not `wide`."""
    padded = np.pad(values, ((0, 0), (1, 1), (1, 1)), mode="edge")
    bounds = []
    for extreme in (np.minimum, np.maximum):
        rows = extreme(extreme(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
        cells = extreme(extreme(rows[:, :, :-2], rows[:, :, 1:-1]), rows[:, :, 2:])
        bounds.append(np.where(wide[:, None, None], cells, values))
    low, high = bounds
    return low, high


def _normalised(luma: UInt8) -> Float32:
    """Return the thumbnails (N, 16, 16) with mean 0 and deviation 1."""
    values: Float32 = luma.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)
    values /= np.maximum(values.std(axis=(1, 2), keepdims=True), 1e-3)
    return values


def connected(root: Int64, first: Int64, second: Int64) -> Int64:
    """Connect the groups of pairs of positions. `root` (N,) is the least position of each one's
    group, before and afterwards."""
    while True:
        a, b = root[first], root[second]
        if (a == b).all():
            return root
        root = root.copy()
        np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
        while (root != (above := root[root])).any():
            root = above
