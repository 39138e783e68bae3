"""Real files of every kind, and what becomes of them."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.fields import Invalid
from models.images.files import encode_image, image_grid, resize_image, with_channels
from models.images.reading import READABLE
from tests.models.images.decoding import decode_image

GREY = np.arange(0, 240, 2, dtype=np.uint8).reshape(10, 12)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=-1)


def file_of(picture: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )


# What a file holds --------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_a_grey_file_has_one_channel(file_format):
    image = decode_image(file_of(Image.fromarray(GREY), file_format))
    if file_format == "GIF":  # which knows palettes only
        image = with_channels(image, 1)
    np.testing.assert_array_equal(image, GREY[:, :, None])


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "PPM"])
def test_a_colour_file_has_three_channels(file_format):
    np.testing.assert_array_equal(decode_image(file_of(Image.fromarray(RGB), file_format)), RGB)


def test_a_lossless_webp_is_exact():
    np.testing.assert_array_equal(
        decode_image(file_of(Image.fromarray(RGB), "WEBP", lossless=True)), RGB
    )


def test_a_palette_is_looked_up():
    picture = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "L")
    picture = Image.frombytes("P", (2, 2), picture.tobytes())
    picture.putpalette([255, 0, 0, 0, 255, 0, 1, 2, 3])
    assert decode_image(file_of(picture)).tolist() == [
        [[255, 0, 0], [0, 255, 0]],
        [[1, 2, 3], [0, 255, 0]],
    ]


def test_the_transparent_colour_of_a_palette_becomes_white():
    picture = Image.frombytes("P", (2, 1), bytes([0, 1]))
    picture.putpalette([255, 0, 0, 0, 255, 0])
    image = decode_image(file_of(picture, transparency=0))
    assert image.tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_colour_with_alpha_is_laid_on_white():
    rgba = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 100, 200, 128]]], np.uint8)
    image = decode_image(file_of(Image.fromarray(rgba)))
    assert image[0, :2].tolist() == [[255, 255, 255], [10, 20, 30]]
    over_white = 255 + (np.array([0, 100, 200]) - 255) * (128 / 255)
    np.testing.assert_allclose(image[0, 2], over_white, atol=1)


def test_grey_with_alpha_is_laid_on_white_and_stays_grey():
    la = np.array([[[10, 0], [10, 255], [100, 128]]], np.uint8)
    image = decode_image(file_of(Image.fromarray(la)))
    assert image.shape == (1, 3, 1)
    np.testing.assert_allclose(image[0, :, 0], [255, 10, 255 + (100 - 255) * (128 / 255)], atol=1)


def test_cmyk_is_converted():
    cmyk = np.zeros((16, 16, 4), np.uint8)
    cmyk[:, :, 0] = 255  # cyan
    image = decode_image(file_of(Image.fromarray(cmyk, "CMYK"), "TIFF"))
    assert image.shape == (16, 16, 3)
    assert image[0, 0].tolist() == [0, 255, 255]
    assert decode_image(file_of(Image.fromarray(cmyk, "CMYK"), "JPEG")).shape == (16, 16, 3)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_to_8(file_format):
    wide = np.array([[0, 1, 128, 129, 257, 32896, 65406, 65407, 65535]], np.uint16)
    image = decode_image(file_of(Image.fromarray(wide), file_format))
    assert image[0, :, 0].tolist() == np.rint(wide[0] / 257).astype(int).tolist()


def test_1_bit_is_black_and_white():
    picture = Image.fromarray(np.array([[True, False, True]]))
    assert picture.mode == "1"
    assert decode_image(file_of(picture)).tolist() == [[[255], [0], [255]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_cameras_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: GREY,
        2: GREY[:, ::-1],
        3: GREY[::-1, ::-1],
        4: GREY[::-1],
        5: GREY.T,
        6: np.rot90(GREY, -1),
        7: GREY[::-1, ::-1].T,
        8: np.rot90(GREY),
    }[orientation]
    image = decode_image(file_of(Image.fromarray(GREY), exif=exif))
    np.testing.assert_array_equal(image[:, :, 0], upright)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_refused_naming_its_frames(file_format):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = file_of(frames[0], file_format, save_all=True, append_images=frames[1:])
    with pytest.raises(Invalid, match="has 3 frames"):
        decode_image(data)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "PPM"])
def test_a_truncated_file_is_refused(file_format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = file_of(Image.fromarray(noise), file_format)
    with pytest.raises(Invalid, match=r"truncated or damaged|not an image"):
        decode_image(data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"hello, I am photo.png", b"\x89PNG\r\n\x1a\n", b"\0" * 999])
def test_what_is_no_image_is_refused_naming_what_is_read(data):
    with pytest.raises(Invalid, match="not an image in any of PNG, JPEG"):
        decode_image(data)


@pytest.mark.parametrize("file_format", ["ICO", "TGA", "EPS"])
def test_a_format_that_is_not_listed_is_refused(file_format):
    assert file_format not in READABLE
    with pytest.raises(Invalid, match="not an image in any of"):
        decode_image(file_of(Image.fromarray(RGB), file_format))


def test_a_header_of_many_pixels_is_refused_before_anything_is_decoded():
    with pytest.raises(Invalid, match="20000 x 10000 = 200000000 pixels; at most 16777216"):
        decode_image(png_header(20_000, 10_000))


def test_a_header_beyond_all_measure_is_refused_naming_the_bound():
    with pytest.raises(Invalid, match="more than the 16777216 pixels allowed"):
        decode_image(png_header(2**31 - 1, 2**31 - 1))


def test_as_many_pixels_as_allowed_are_allowed():
    data = file_of(Image.fromarray(GREY))
    assert decode_image(data, max_pixels=120).shape == (10, 12, 1)
    with pytest.raises(Invalid, match="12 x 10 = 120 pixels; at most 119"):
        decode_image(data, max_pixels=119)


def test_floating_point_is_refused():
    with pytest.raises(Invalid, match="pixels are floating point; 8 and 16 bits"):
        decode_image(file_of(Image.fromarray(GREY.astype(np.float32)), "TIFF"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it finds in the damage
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"])
def test_damage_of_any_kind_is_an_image_or_a_refusal(file_format):
    """Nothing but Invalid ever comes out, wherever bytes are changed or missing."""
    intact = file_of(Image.fromarray(RGB), file_format)
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(intact)
        for place in random.integers(0, len(intact), random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        del damaged[random.integers(len(intact) // 4, 2 * len(intact)) :]
        with contextlib.suppress(Invalid):
            image = decode_image(bytes(damaged), max_pixels=10_000)
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] in (1, 3)


# Arrays -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("image", [GREY[:, :, None], RGB], ids=["grey", "colour"])
def test_a_png_is_exact(image):
    np.testing.assert_array_equal(decode_image(encode_image(image, "png")), image)


@pytest.mark.parametrize("file_format", ["webp", "jpeg"])
def test_webp_and_jpeg_are_close(file_format):
    y, x = np.mgrid[0:64, 0:64]
    image = np.stack([2 * x, 2 * y, x + y], axis=-1).astype(np.uint8)
    back = decode_image(encode_image(image, file_format))
    assert back.shape == image.shape
    assert np.abs(back.astype(int) - image).mean() < 4


def test_resizing_cuts_to_the_middle():
    wide = np.random.default_rng(2).integers(0, 256, (20, 60, 3), np.uint8)
    np.testing.assert_array_equal(resize_image(wide, (20, 20)), wide[:, 20:40])
    tall = wide.transpose(1, 0, 2)
    np.testing.assert_array_equal(resize_image(tall, (20, 20)), tall[20:40])


def test_resizing_keeps_what_is_left_and_right():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, 20:, 1] = 200
    small = resize_image(image, (10, 10))
    np.testing.assert_array_equal(small[:, :2, 1], 0)
    np.testing.assert_array_equal(small[:, -2:, 1], 200)
    np.testing.assert_array_equal(small[:, :, 0], 0)


def test_resizing_to_height_and_width_in_this_order():
    assert resize_image(RGB, (6, 30)).shape == (6, 30, 3)
    assert resize_image(GREY[:, :, None], (30, 6)).shape == (30, 6, 1)


def test_an_image_of_the_right_size_stays_as_it_is():
    np.testing.assert_array_equal(resize_image(RGB, (10, 12)), RGB)


def test_channels_are_repeated_or_weighed():
    grey = GREY[:, :, None]
    np.testing.assert_array_equal(with_channels(grey, 3), np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(with_channels(with_channels(grey, 3), 1), grey)
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(with_channels(RGB, 1)[:, :, 0], luma, atol=1)


def test_a_grid_fills_its_rows_from_the_left_on_white():
    images = np.stack([np.full((2, 3, 1), value, np.uint8) for value in (10, 20, 30)])
    grid = image_grid(images, 2, padding=1)
    assert grid.shape == (5, 7, 1)
    assert grid[:, :, 0].tolist() == [
        [10, 10, 10, 255, 20, 20, 20],
        [10, 10, 10, 255, 20, 20, 20],
        [255] * 7,
        [30, 30, 30, 255, 255, 255, 255],
        [30, 30, 30, 255, 255, 255, 255],
    ]


@pytest.mark.parametrize(("count", "shape"), [(1, (2, 3)), (4, (4, 6)), (5, (4, 9))])
def test_a_grid_is_about_square(count, shape):
    assert image_grid(np.zeros((count, 2, 3, 3), np.uint8)).shape == (*shape, 3)
