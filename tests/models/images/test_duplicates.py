"""Pairs of pictures that look the same, found without comparing all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.images.duplicates import (
    close_pairs,
    connected,
    differences,
    perceptual_hashes,
    same_pictures,
)

MANY = 10**9  # comparisons
BITS = st.integers(0, 2**64 - 1)


def all_pairs(hashes: np.ndarray, distance: int) -> set[tuple[int, int]]:
    near = np.bitwise_count(hashes[:, None] ^ hashes[None]) <= distance
    first, second = np.nonzero(np.triu(near, 1))
    return set(zip(first.tolist(), second.tolist(), strict=True))


def found(hashes: np.ndarray, distance: int) -> list[tuple[int, int]]:
    """The pairs, of which each must be there once."""
    pairs = [
        pair
        for part in close_pairs(hashes, distance, MANY)
        for pair in zip(part.first.tolist(), part.second.tolist(), strict=True)
        if part.complete
    ]
    assert len(pairs) == len(set(pairs))
    return pairs


def flipped(hashes: np.ndarray, bits: int, rng: np.random.Generator) -> np.ndarray:
    """The hashes with as many other bits in each."""
    places = rng.permuted(np.tile(np.arange(64, dtype=np.uint64), (len(hashes), 1)), axis=1)
    return hashes ^ np.bitwise_or.reduce(np.uint64(1) << places[:, :bits], axis=1)


@settings(deadline=None)
@given(st.lists(BITS, max_size=5), st.lists(st.tuples(BITS, BITS, BITS), max_size=40), st.data())
def test_all_close_pairs_are_found_and_each_once(centres, masks, data):
    """Hashes with few other bits than one of some centres: all three masks must have a bit set."""
    near = [data.draw(st.sampled_from(centres)) ^ (a & b & c) for a, b, c in masks if centres]
    hashes = np.array(centres + near, np.uint64)
    distance = data.draw(st.integers(0, 12))
    assert set(found(hashes, distance)) == all_pairs(hashes, distance)


@pytest.mark.parametrize("distance", [0, 1, 5, 8])
def test_so_they_are_among_thousands(distance):
    rng = np.random.default_rng(distance)
    few = rng.integers(0, 2**64, 1500, np.uint64) & np.uint64(0xFF0F0F0F0F0F00FF)
    hashes = np.concatenate([few, flipped(few, distance, rng), flipped(few, distance + 1, rng)])
    assert set(found(hashes, distance)) == all_pairs(hashes, distance)


def test_so_they_are_among_many_thousands():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 80_000, np.uint64)
    hashes[-500:] = flipped(hashes[:500], 8, rng)
    pairs = found(hashes, 8)
    assert {(i, 79_500 + i) for i in range(500)} <= set(pairs)
    first, second = np.array(pairs).T
    assert (np.bitwise_count(hashes[first] ^ hashes[second]) <= 8).all()


def test_many_equal_hashes_do_not_make_all_their_pairs():
    parts = list(close_pairs(np.full(50_000, 7, np.uint64), 8, 10_000_000))
    assert not any(part.complete for part in parts)
    assert 50_000 < sum(len(part.first) for part in parts) <= 10_000_000
    assert (connected(np.arange(50_000), parts[0].first, parts[0].second) == 0).all()


@given(st.integers(1, 30), st.data())
def test_groups_are_those_that_paths_connect(count, data):
    place = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(place, place), max_size=40))
    least = list(range(count))
    for _ in range(count):
        for a, b in edges:
            least[a] = least[b] = min(least[a], least[b])
    root = np.arange(count)
    for part in (edges[:20], edges[20:]):
        root = connected(root, *np.array(part, np.int64).reshape(-1, 2).T)
    assert root.tolist() == least


def test_a_long_chain_is_one_group():
    order = np.random.default_rng(0).permutation(100_000)
    assert (connected(np.arange(100_000), order[:-1], order[1:]) == 0).all()


def test_hashes_ignore_brightness_and_contrast():
    luma = np.random.default_rng(0).integers(0, 100, (50, 16, 16), np.uint8)
    hashes = perceptual_hashes(luma)
    assert (perceptual_hashes(luma + np.uint8(55)) == hashes).all()
    assert (perceptual_hashes(luma * np.uint8(2)) == hashes).all()
    assert len(set(hashes.tolist())) == 50


def test_a_hash_says_which_frequencies_are_in_phase():
    rng = np.random.default_rng(0)
    x = (np.arange(16) + 0.5) * np.pi / 16
    cosines = np.cos(np.arange(8)[:, None] * x)
    for _ in range(20):
        signs = rng.integers(-1, 2, (8, 8))  # a third of the frequencies is not there
        signs[0, 0] = 0
        wave = 128 + 127 * np.clip(cosines.T @ signs @ cosines / 40, -1, 1)
        (found,) = perceptual_hashes(wave.round().astype(np.uint8)[None]).tolist()
        assert f"{found:064b}" == "".join("1" if sign > 0 else "0" for sign in signs.ravel())


def test_pictures_of_another_colour_do_not_look_the_same():
    luma = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16), np.uint8), 3, axis=0)
    chroma = np.full((3, 4, 4, 2), 100, np.uint8)
    chroma[2] += 4
    chroma[1] += 40
    assert same_pictures(luma, chroma, np.ones(3, bool))[0].tolist() == [0, 1, 0]


@pytest.mark.parametrize("shifted", [False, True])
def test_the_difference_is_that_of_the_normalised_pixels(shifted):
    """Of two chequered boards, one in half the contrast, the other one with an error in a cell."""
    board = 128 + 40 * (np.indices((16, 16)).sum(axis=0) % 2 * 2 - 1)
    weak = 100 + (board - 128) // 2
    wrong = board.copy()
    wrong[8, 8] += 60
    first, second = np.array([board, board], np.uint8), np.array([weak, wrong], np.uint8)
    same, other = differences(first, second, np.full(2, shifted))
    assert same == pytest.approx(0, abs=1e-6)
    x, y = ((v - v.mean()) / v.std() for v in (board, wrong))
    # Only the wrong cell is beyond all neighbours, all cells of the other board are by their shift.
    expected = np.sqrt(np.mean((x - y) ** 2))
    if shifted:
        beyond = np.maximum(0, y - x.max()), np.maximum(0, x.min() - y)
        expected = np.sqrt(np.mean(beyond[0] ** 2 + beyond[1] ** 2))
    assert other == pytest.approx(expected, rel=1e-4)


def test_a_picture_shifted_by_a_cell_differs_only_without_tolerance():
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (1, 18, 18)).astype(np.uint8)
    a, b = wide[:, 1:-1, 1:-1], wide[:, 1:-1, 2:]
    inner = differences(a, b, np.array([True]))
    assert differences(a, b, np.array([False])) > 1.2  # of unrelated values: the root of 2
    assert inner < 0.35  # of the edge that is in one of them only
