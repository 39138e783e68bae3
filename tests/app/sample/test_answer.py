"""The size of an answer's picture against the bounds of its format."""

import numpy as np
import pytest

from app.http.errors import InvalidInput
from app.sample.answer import check_size
from models.images.files import image_grid


@pytest.mark.parametrize(
    ("media_type", "size", "too_many", "fitting", "trajectory"),
    [
        # (images, rows of the plan)
        ("image/webp", (256, 256), (64 * 64, 20), (63 * 63, 20), False),  # a grid
        ("image/webp", (256, 256), (64, 2), (63, 2), True),  # an animation, a line an image
        ("image/jpeg", (8, 256), (1, 254), (1, 253), True),  # a strip, a column a row
    ],
)
def test_a_picture_that_its_format_cannot_hold_is_refused(
    media_type, size, too_many, fitting, trajectory
):
    with pytest.raises(InvalidInput, match=f"{media_type} holds at most"):
        check_size(media_type, size, *too_many, trajectory)
    check_size(media_type, size, *fitting, trajectory)
    for other in ("image/png", "application/zip", "application/json"):
        check_size(other, size, *too_many, trajectory)


def test_the_size_is_that_of_the_grid():
    largest = image_grid(np.zeros((7, 5461, 1, 1), np.uint8))  # 3 x 3
    assert largest.shape == (16_383, 3, 1)
    check_size("image/webp", (5461, 1), 7, 1, False)
    with pytest.raises(InvalidInput, match="16386 x 3 pixels"):
        check_size("image/webp", (5462, 1), 7, 1, False)
