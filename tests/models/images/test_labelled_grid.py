"""A table of images with its axes written on it."""

import numpy as np
import pytest

from models.images.labelled_grid import LabelledGrid

RNG = np.random.default_rng(0)


def image(height: int, width: int, channels: int = 1) -> np.ndarray:
    return RNG.integers(0, 255, (height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("caption", ["", "seed 7", "a long one " * 30])
@pytest.mark.parametrize("y", ["", "sampler"])
def test_the_size_is_known_before_and_each_image_is_at_its_place(y, caption):
    rows = ["one", "another"] if y else [""]
    grid = LabelledGrid("steps", ["5", "10", "20"], [(8, 8)], y, rows, caption)
    images = {(row, column): image(8, 8) for row in range(len(rows)) for column in range(3)}
    picture = grid.draw(images)
    assert picture.shape == (*grid.size, 3)
    for (row, column), small in images.items():
        top, left = grid.origin(row, column)
        large = picture[top : top + 8 * 14, left : left + 8 * 14]
        assert np.array_equal(large, small.repeat(14, 0).repeat(14, 1).repeat(3, 2))
    top, left = grid.origin(0, 0)
    assert (picture[:top].min() < 100, picture[top:-16, :left].min() < 100) == (True, bool(y))


def test_images_of_several_sizes_share_cells_of_one_size():
    grid = LabelledGrid("model", ["a", "b"], [(64, 64), (256, 256)])
    assert grid.cell_size == (256, 256)
    picture = grid.draw({(0, 0): image(64, 64, 3), (0, 1): image(256, 256)})
    assert picture.shape == (*grid.size, 3)


def test_long_names_take_some_lines_and_no_more():
    short = LabelledGrid("class", ["a"] * 3, [(8, 8)], "model", ["b"] * 3)
    long = LabelledGrid("class", ["a-name " * 50] * 3, [(8, 8)], "model", ["n" * 500] * 3)
    assert long.size[0] < short.size[0] + 60
    assert long.size[1] < short.size[1] + 300


def test_accents_and_other_scripts_of_europe_are_written():
    def ink(text: str) -> int:
        grid = LabelledGrid("class", [text], [(8, 8)])
        return int((grid.draw({})[: grid.origin(0, 0)[0]] < 128).sum())

    assert len({ink(text) for text in "aäжλ"}) == 4
