"""Fingerprints of pictures: what changes them, and what does not."""

import io

import numpy as np
import pytest
from PIL import Image

from models.images.fingerprints import fingerprint, sharpness
from models.images.reading import Picture, read_pictures


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def blurred_step(sigma: float, size: int = 96) -> np.ndarray:
    """A vertical edge, blurred by a Gaussian of `sigma` pixels."""
    kernel = np.exp(-0.5 * (np.arange(-40, 41) / sigma) ** 2)
    line = np.convolve(np.arange(size + 80) >= size // 2 + 40, kernel / kernel.sum(), "valid")
    return np.tile(line.astype(np.float32), (size, 1))


def test_the_digest_tells_pixels_shape_and_type():
    pixels = noise(12, 10)
    turned = Picture(pixels.reshape(10, 12, 3))
    wide = Picture(pixels.astype(np.uint16), 65535)
    same, other, third, fourth = (
        fingerprint(picture)[0]["sha256"].tobytes()
        for picture in (Picture(pixels.copy()), turned, wide, Picture(pixels))
    )
    assert same == fourth
    assert len({same, other, third}) == 3


def test_files_of_the_same_pixels_have_the_same_row():
    rows = []
    for file_format in ("PNG", "BMP"):
        buffer = io.BytesIO()
        Image.fromarray(noise(30, 20)).save(buffer, file_format)
        rows.append(fingerprint(next(read_pictures(buffer.getvalue(), 10**6, "refuse"))))
    assert rows[0].tobytes() == rows[1].tobytes()


@pytest.mark.parametrize("shape", [(8, 8, 1), (37, 20, 3), (500, 700, 3), (8, 3000, 1)])
def test_one_colour_has_no_deviation_and_no_sharpness(shape):
    row = fingerprint(Picture(np.full(shape, 77, np.uint8)))[0]
    assert (row["deviation"], row["sharpness"]) == (0, 0)
    assert (row["height"], row["width"]) == shape[:2]
    assert (row["luma"] == 77).all()
    assert (row["chroma"] == 128).all()


def test_the_deviation_is_that_of_the_values_or_of_the_colours():
    halves = np.zeros((32, 32, 1), np.uint8)
    halves[:, 16:] = 100
    assert fingerprint(Picture(halves))[0]["deviation"] == pytest.approx(50)
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[:, :16], colours[:, 16:] = (200, 50, 50), (0, 128, 100)  # of about the same luma
    row = fingerprint(Picture(colours))[0]
    assert np.ptp(row["luma"].astype(int)) <= 8
    assert row["deviation"] > 30


def test_the_thumbnail_has_the_means_of_its_cells():
    pixels = noise(64, 128, 1)
    expected = pixels.reshape(16, 4, 16, 8).mean(axis=(1, 3))
    assert np.abs(fingerprint(Picture(pixels))[0]["luma"] - expected).max() <= 1.01  # rounded twice


def test_a_picture_of_fewer_pixels_than_the_thumbnail_is_kept_whole():
    pixels = noise(8, 8, 1)
    assert (fingerprint(Picture(pixels))[0]["luma"][::2, ::2] == pixels[:, :, 0]).all()


def test_sharpness_tells_the_width_of_edges():
    for sigma in (1.5, 2.5, 4.0):
        assert sharpness(blurred_step(sigma)) == pytest.approx(0.5 / sigma**2, rel=0.1)
    assert sharpness(blurred_step(0.01)) == pytest.approx(2, rel=0.02)
    assert sharpness(noise(200, 200, 1)[:, :, 0].astype(np.float32)) == pytest.approx(5, rel=0.02)


def test_sharpness_depends_neither_on_contrast_nor_on_flat_areas():
    step = blurred_step(2.0)
    assert sharpness(step * 30 + 100) == pytest.approx(sharpness(step), rel=1e-3)
    padded = np.pad(step, ((0, 0), (50, 50)), mode="edge")
    assert sharpness(padded) == pytest.approx(sharpness(step), rel=0.02)


def test_twelve_bits_in_sixteen_keep_their_contrast():
    ramp = np.repeat(np.linspace(0, 4095, 64).astype(np.uint16)[None, :, None], 64, axis=0)
    row = fingerprint(Picture(ramp, 65535))[0]
    assert row["deviation"] == pytest.approx(255 / 12**0.5, rel=0.05)


def test_large_pictures_are_measured_at_the_size_of_small_ones():
    small = noise(12, 16, 3)
    image = Image.fromarray(small)
    rows = [
        fingerprint(Picture(np.asarray(image.resize((16 * k, 12 * k), Image.Resampling.BICUBIC))))
        for k in (8, 40, 200)  # 128, 640 and 3200 pixels
    ]
    for row in rows[1:]:
        assert np.abs(row["luma"].astype(int) - rows[0]["luma"]).max() <= 8
        assert row["sharpness"][0] == pytest.approx(rows[0]["sharpness"][0], rel=0.3)
