"""The rows of image formats against the encoders themselves."""

import io

import numpy as np
import pytest
from PIL import Image

from models.images.files import encode_image
from models.images.formats import BY_MEDIA_TYPE, BY_NAME, BY_SUFFIX, FORMATS

Image.init()


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_a_format_has_pillow_s_media_type_and_suffixes(row):
    name = row.name.upper()
    assert Image.MIME[name] == row.media_type
    assert {Image.EXTENSION[suffix] for suffix in row.suffixes} == {name}


@pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)
def test_a_file_is_written_in_its_format(row):
    content = encode_image(np.zeros((2, 3, 1), np.uint8), row.name)
    assert Image.open(io.BytesIO(content)).format == row.name.upper()


@pytest.mark.parametrize("name", ["webp", "jpeg"])  # the largest PNG does not fit in memory
def test_the_largest_side_can_be_written_and_a_larger_one_cannot(name):
    side = BY_NAME[name].max_side
    content = encode_image(np.zeros((1, side, 1), np.uint8), name)
    assert Image.open(io.BytesIO(content)).size == (side, 1)
    with pytest.raises((OSError, ValueError)):
        encode_image(np.zeros((1, side + 1, 1), np.uint8), name)


def test_every_format_is_found_by_name_media_type_and_suffix():
    assert tuple(BY_NAME.values()) == tuple(BY_MEDIA_TYPE.values()) == FORMATS
    assert {row.name for row in BY_SUFFIX.values()} == set(BY_NAME)
