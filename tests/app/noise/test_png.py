import io

import numpy as np
import pytest
from PIL import Image

from app.noise.png import encode_noisy_png
from models.images.files import encode_image


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 3), (16, 24, 1), (33, 5, 3)])
def test_a_decoder_reads_the_same_pixels(shape) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with Image.open(io.BytesIO(encode_noisy_png(image))) as decoded:
        decoded.verify()
    with Image.open(io.BytesIO(encode_noisy_png(image))) as decoded:
        assert np.array_equal(np.asarray(decoded).reshape(shape), image)


def test_noise_takes_no_more_room_than_in_an_ordinary_png() -> None:
    noise = np.random.default_rng(0).normal(127, 40, (128, 128, 3)).clip(0, 255).astype(np.uint8)
    assert len(encode_noisy_png(noise)) < len(encode_image(noise, "png"))
