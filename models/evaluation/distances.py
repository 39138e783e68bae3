"""Distances between two sets of images, and the nearest images of one to those of the other.

Distances between sets of features, float64 (N, D), one row per image (models.evaluation.features):

    Frechet distance        of the Gaussians with their means and covariances, squared
                            (Heusel et al. 2017)
    kernel distance         unbiased MMD^2 under (x.y / D + 1)^3 (Binkowski et al. 2018)
    precision and recall    by balls to the k-th neighbour (Kynkaanniemi et al. 2019)
    nearest                 Euclidean

Everything is exact and a function of its arguments; only the kernel distance of large sets is a
mean over fixed subsets. The Frechet distance of N images is too large by about 1 / N: compare it at
equal counts only. Knows nothing of images or networks.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from models.arrays import Float64, Int64
from models.diffusion.noise import Stream, permutation
from models.fields import Invalid

KERNEL_SUBSET = 1000  # the papers' size of a subset
CHUNK_BYTES = 2**26  # of a block of distances
# A key that differs from every caller's seed: subsets share no bits with training or sampling.
_SUBSET_KEY = 0x5EED_5E75


def frechet_distance(real: Float64, made: Float64) -> float:
    """Return |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)); covariances may be singular.

    Raises Invalid if a set has fewer than 2 rows.
    """
    _check(real, made, 2)
    mean = real.mean(axis=0) - made.mean(axis=0)
    x, y = _centred(real), _centred(made)
    spread = float(np.square(x).sum() + np.square(y).sum())
    return max(0.0, float(mean @ mean) + spread - 2.0 * _trace_of_root(x, y))


def kernel_distance(real: Float64, made: Float64, subset_size: int = KERNEL_SUBSET) -> float:
    """Return the unbiased MMD^2: 0 on average, and so sometimes negative, for two sets from one
    distribution.

    Sets of more than `subset_size` rows are shuffled and cut into subsets of that size; the result
    is the mean over pairs of them. Raises Invalid if a set has fewer than 2 rows.
    """
    _check(real, made, 2)
    if subset_size < 3:  # so that every subset has at least 2 rows
        raise Invalid.because(f"subset_size is {subset_size}; it must be at least 3")
    xs, ys = _subsets(real, subset_size, 0), _subsets(made, subset_size, 1)
    pairs = max(len(xs), len(ys))  # the shorter list is repeated
    return float(np.mean([_unbiased_mmd2(xs[i % len(xs)], ys[i % len(ys)]) for i in range(pairs)]))


def precision_recall(real: Float64, made: Float64, k: int = 3) -> tuple[float, float]:
    """Return the share of made images inside the balls of real ones, and of real images inside the
    balls of made ones. A ball reaches from an image to the k-th nearest other one of its set.

    Raises Invalid if a set has no more than k rows.
    """
    if k < 1:
        raise Invalid.because(f"k is {k}; it must be at least 1")
    _check(real, made, k + 1)
    return _share_inside(made, real, k), _share_inside(real, made, k)


def nearest(real: Float64, made: Float64, k: int = 1) -> tuple[Int64, Float64]:
    """Return the k nearest rows of `real` for each row of `made`, nearest first: indices int64
    (M, k) and distances (M, k)."""
    return nearest_of_blocks([real], made, k)


def nearest_of_blocks(
    blocks: Iterable[Float64], made: Float64, k: int = 1
) -> tuple[Int64, Float64]:
    """Return the same as `nearest` for real rows in blocks, so that they need not all be in memory.

    Raises Invalid if they are fewer than k.
    """
    index = np.zeros((len(made), 0), np.int64)
    squared = np.zeros((len(made), 0))
    start = 0
    for block in blocks:
        for piece in _pieces(block, len(made)):
            found = _squared_distances(made, piece)
            rows = np.broadcast_to(np.arange(start, start + len(piece)), found.shape)
            index, squared = _least(
                np.concatenate([index, rows], axis=1), np.concatenate([squared, found], axis=1), k
            )
            start += len(piece)
    if start < k:
        raise Invalid.because(f"real has {start} rows; the {k} nearest need at least as many")
    return index, np.sqrt(squared)


# Frechet ------------------------------------------------------------------------------------------


def _centred(features: Float64) -> Float64:
    """Return X with X^T X the covariance."""
    return np.asarray((features - features.mean(axis=0)) / math.sqrt(len(features) - 1))


def _trace_of_root(x: Float64, y: Float64) -> float:
    """Return tr (S1 S2)^(1/2) for S1 = x^T x, S2 = y^T y: the sum of the singular values of x y^T.

    Their squares are the eigenvalues of S1^(1/2) S2 S1^(1/2), (D, D), and of x S2 x^T, which is
    the smaller matrix if there are fewer images than features.
    """
    if len(x) > len(y):
        x, y = y, x
    if len(x) < x.shape[1]:
        matrix = np.zeros((len(x), len(x)))
        for piece in _pieces(y, len(x)):
            across = x @ piece.T
            matrix += across @ across.T
    else:
        values, vectors = np.linalg.eigh(x.T @ x)
        root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
        matrix = root @ (y.T @ y) @ root
    eigenvalues = np.linalg.eigvalsh((matrix + matrix.T) / 2.0)
    return float(np.sqrt(np.maximum(eigenvalues, 0.0)).sum())


# Kernel -------------------------------------------------------------------------------------------


def _unbiased_mmd2(x: Float64, y: Float64) -> float:
    within = sum(
        (np.sum(kernel) - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1))
        for kernel in (_cubic(x, x), _cubic(y, y))
    )
    return float(within - 2.0 * _cubic(x, y).mean())


def _cubic(x: Float64, y: Float64) -> Float64:
    return np.asarray((x @ y.T / x.shape[1] + 1.0) ** 3)


def _subsets(features: Float64, size: int, which: int) -> list[Float64]:
    """Return disjoint subsets whose sizes differ by at most one. The rows are shuffled first, since
    images come sorted by class."""
    count = math.ceil(len(features) / size)
    if count == 1:
        return [features]
    order = permutation(_SUBSET_KEY, len(features), Stream.ORDER, index=which)
    return [features[np.sort(order[i::count])] for i in range(count)]


# Neighbours ---------------------------------------------------------------------------------------


def _share_inside(points: Float64, centres: Float64, k: int) -> float:
    """Return the share of points that lie in at least one centre's ball."""
    radius2 = _squared_radii(centres, k)
    inside = 0
    for piece in _pieces(points, len(centres)):
        inside += int((_squared_distances(piece, centres) <= radius2).any(axis=1).sum())
    return inside / len(points)


def _squared_radii(centres: Float64, k: int) -> Float64:
    radii = []
    for piece in _pieces(centres, len(centres)):
        squared = _squared_distances(piece, centres)
        radii.append(np.partition(squared, k, axis=1)[:, k])  # the nearest is the centre itself
    return np.concatenate(radii)


def _least(index: Int64, squared: Float64, k: int) -> tuple[Int64, Float64]:
    """Return the k least of each row in order; among equals the first one wins."""
    if squared.shape[1] > 4 * k:
        part = np.argpartition(squared, k - 1, axis=1)[:, :k]
        part.sort(axis=1)
        index = np.take_along_axis(index, part, axis=1)
        squared = np.take_along_axis(squared, part, axis=1)
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(squared, order, axis=1)


def _squared_distances(x: Float64, y: Float64) -> Float64:
    """Return (len(x), len(y)). Rounding may give equal rows a little more than 0, never less."""
    squared = np.square(x).sum(axis=1)[:, None] + np.square(y).sum(axis=1) - 2.0 * (x @ y.T)
    return np.asarray(np.maximum(squared, 0.0))


def _pieces(rows: Float64, beside: int) -> Iterator[Float64]:
    size = max(1, CHUNK_BYTES // (8 * max(1, beside)))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _check(real: Float64, made: Float64, least: int) -> None:
    for name, features in (("real", real), ("made", made)):
        if features.ndim != 2:
            raise Invalid.because(f"{name} has the shape {features.shape}; it must be (N, D)")
        if len(features) < least:
            raise Invalid.because(f"{name} has {len(features)} rows; at least {least} are needed")
    if real.shape[1] != made.shape[1]:
        raise Invalid.because(
            f"made has {made.shape[1]} features; real has {real.shape[1]}, which must be the same"
        )
