"""Distances between sets against closed forms."""

import numpy as np
import pytest

from models.evaluation.distances import (
    frechet_distance,
    kernel_distance,
    nearest,
    nearest_of_blocks,
    precision_recall,
)
from models.fields import Invalid


def rng(seed=0):
    return np.random.default_rng(seed)


def with_moments(mean, covariance, count, seed=0):
    """`count` rows whose sample mean and sample covariance are exactly these."""
    x = rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(axis=0)
    whitened = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return whitened @ np.linalg.cholesky(covariance).T + mean


# Frechet ------------------------------------------------------------------------------------------


def test_the_frechet_distance_of_gaussians_along_the_axes_is_the_sum_over_axes():
    means, stds = ([0.0, 1.0, -2.0], [0.5, 1.0, 2.0]), ([1.0, 2.0, 0.5], [3.0, 1.0, 0.5])
    real, made = (
        with_moments(np.array(m), np.diag(np.square(s)), 50, seed)
        for seed, (m, s) in enumerate(zip(means, stds, strict=True))
    )
    expected = np.square(np.subtract(*means)).sum() + np.square(np.subtract(*stds)).sum()
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-10)


def test_the_frechet_distance_of_covariances_that_do_not_commute_is_the_one_of_2_by_2():
    a, b = np.array([[2.0, 0.8], [0.8, 1.0]]), np.array([[0.5, -0.3], [-0.3, 1.5]])
    real, made = with_moments(np.zeros(2), a, 40, 0), with_moments(np.zeros(2), b, 60, 1)
    # tr sqrt M = sqrt(tr M + 2 sqrt det M) for any 2 x 2 matrix with eigenvalues above 0.
    root = np.sqrt(np.trace(a @ b) + 2 * np.sqrt(np.linalg.det(a @ b)))
    expected = np.trace(a) + np.trace(b) - 2 * root
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("count", [3, 20, 200])
def test_the_frechet_distance_of_a_moved_set_is_the_way_squared(count):
    real = rng().normal(size=(count, 32))  # fewer rows than features: a singular covariance
    assert frechet_distance(real, real + 0.25) == pytest.approx(32 * 0.25**2, rel=1e-6)
    assert frechet_distance(real, real[::-1]) < 1e-6


@pytest.mark.parametrize("features", [20, 30])
def test_few_images_and_many_go_the_same_way(features):
    """One path decomposes (N, N), the other (D, D): beside features of zeros they must agree."""
    real, made = rng(0).normal(size=(40, features)), 2 * rng(1).normal(size=(25, features))
    padded = [np.pad(x, ((0, 0), (0, 100))) for x in (real, made)]
    assert frechet_distance(*padded) == pytest.approx(frechet_distance(real, made), rel=1e-7)


# Kernel -------------------------------------------------------------------------------------------


def test_the_kernel_distance_of_one_distribution_is_zero_on_average():
    draws = rng().normal(size=(400, 2, 20, 4))
    values = [kernel_distance(x, y) for x, y in draws]
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_the_kernel_distance_of_numbers_is_that_of_their_first_three_moments():
    # With D = 1 the kernel is sum_j binom(3, j) (xy)^j, so its MMD^2 is
    # sum_j binom(3, j) (E x^j - E y^j)^2.
    # Sets of +-1 and +-2: moments (0, 1, 0) and (0, 4, 0), so 3 (1 - 4)^2 = 27.
    draws = rng().integers(0, 2, size=(500, 2, 30, 1)) * 2.0 - 1.0
    values = [kernel_distance(x, 2 * y) for x, y in draws]
    assert np.mean(values) == pytest.approx(27, abs=5 * np.std(values) / np.sqrt(len(values)))


def test_subsets_of_a_large_set_say_what_the_whole_says():
    # Sorted, as images are by class: subsets in that order would each lack most of it.
    real, made = (np.sort(rng(s).normal(s, 1, size=(3000, 1)), axis=0) for s in (0, 1))
    parts = kernel_distance(real, made, subset_size=500)
    assert parts == pytest.approx(kernel_distance(real, made, subset_size=3000), rel=0.1)
    assert parts == kernel_distance(real, made, subset_size=500)
    same = kernel_distance(real, np.sort(rng(7).normal(0, 1, size=(3000, 1)), axis=0), 500)
    assert abs(same) < 0.02 * parts


# Precision, recall and neighbours -----------------------------------------------------------------


def test_a_set_beside_itself_is_precise_and_recalled_and_far_sets_are_neither():
    real = rng().normal(size=(100, 5))
    assert precision_recall(real, real.copy()) == (1.0, 1.0)
    assert precision_recall(real, real + 1000.0) == (0.0, 0.0)


def test_images_of_one_class_only_are_precise_but_recall_half():
    left, right = rng(0).uniform(size=(2, 300, 2))
    real = np.concatenate([left, right + 100.0])
    made = rng(1).uniform(0.1, 0.9, size=(300, 2))
    precision, recall = precision_recall(real, made)
    assert precision > 0.95
    assert 0.3 < recall < 0.5
    assert precision_recall(made, real) == (recall, precision)


def test_balls_reach_to_the_kth_other_image():
    real = np.array([[0.0], [1.0], [3.0], [7.0]])  # to the second other: 3, 2, 3, 6
    made = np.array([[-2.9], [-3.1], [12.9], [13.1]])
    precision, _ = precision_recall(real, made, k=2)
    assert precision == 0.5


def test_the_nearest_are_those_that_looking_at_all_pairs_finds():
    real, made = rng(0).normal(size=(500, 7)), rng(1).normal(size=(40, 7))
    pairs = np.linalg.norm(made[:, None] - real[None], axis=2)
    index, distance = nearest(real, made, 3)
    np.testing.assert_array_equal(index, np.argsort(pairs, axis=1)[:, :3])
    np.testing.assert_allclose(distance, np.sort(pairs, axis=1)[:, :3], rtol=1e-9)
    blocks = nearest_of_blocks((real[i : i + 83] for i in range(0, 500, 83)), made, 3)
    np.testing.assert_array_equal(blocks[0], index)
    np.testing.assert_allclose(blocks[1], distance, rtol=1e-9)


def test_pieces_of_a_set_that_is_too_large_for_one_change_nothing(monkeypatch):
    real, made = rng(0).normal(size=(300, 4)), rng(1).normal(size=(50, 4)) + 0.5
    whole = (nearest(real, made, 2), precision_recall(real, made))
    monkeypatch.setattr(
        "models.evaluation.distances.CHUNK_BYTES", 8 * 50 * 7
    )  # seven rows at a time
    pieces = (nearest(real, made, 2), precision_recall(real, made))
    np.testing.assert_array_equal(pieces[0][0], whole[0][0])
    assert pieces[1] == whole[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: frechet_distance(np.zeros((1, 3)), np.zeros((5, 3))),
            "real has 1 rows; at least 2",
        ),
        (
            lambda: kernel_distance(np.zeros((5, 3)), np.zeros((1, 3))),
            "made has 1 rows; at least 2",
        ),
        (
            lambda: frechet_distance(np.zeros((5, 3)), np.zeros((5, 4))),
            "made has 4 features; real has 3",
        ),
        (lambda: frechet_distance(np.zeros(5), np.zeros((5, 4))), r"real has the shape \(5,\)"),
        (
            lambda: precision_recall(np.zeros((3, 1)), np.zeros((9, 1))),
            "real has 3 rows; at least 4",
        ),
        (lambda: kernel_distance(np.zeros((5, 1)), np.zeros((5, 1)), 2), "subset_size is 2"),
        (lambda: nearest(np.zeros((2, 1)), np.zeros((9, 1)), 3), "real has 2 rows; the 3 nearest"),
    ],
)
def test_sets_that_cannot_be_compared_are_refused(call, message):
    with pytest.raises(Invalid, match=message):
        call()
