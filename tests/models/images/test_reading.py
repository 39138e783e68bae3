"""Files of several pictures, of more than 8 bits a value, and of the newer formats."""

import contextlib
import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin, features

from models.fields import Invalid
from models.images import reading as reading_module
from models.images.dataset import inspect_archive, prepare
from models.images.formats import Reading
from models.images.readers import ArchiveLimits
from models.images.reading import read_pictures
from tests.models.images.decoding import decode_image
from tests.models.images.test_dataset import ROOT, sheet_of, zip_of
from tests.models.images.test_files import file_of, png_chunk

LARGE, SMALL = (48, 32), (12, 8)  # width, height
RED, GREEN, BLUE = "red", "lime", "blue"
COLOURS = {RED: [255, 0, 0], GREEN: [0, 255, 0], BLUE: [0, 0, 255]}


def block(colour: str, size: tuple[int, int] = LARGE) -> Image.Image:
    return Image.new("RGB", size, colour)


def tiff_of(*pages: tuple[Image.Image, dict[int, int]]) -> bytes:
    """A TIFF of these pages, each with tags of its own."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer) as writer:
        for picture, tags in pages:
            info = TiffImagePlugin.ImageFileDirectory_v2()
            for tag, value in tags.items():
                info[tag] = value
            picture.save(writer, "TIFF", tiffinfo=info)
            writer.newFrame()
    return buffer.getvalue()


def png16(values: np.ndarray, transparent: Sequence[int] = ()) -> bytes:
    """A PNG of 16 bits a value (H, W, C): grey, grey with alpha, RGB or RGBA."""
    height, width, channels = values.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    key = struct.pack(f">{len(transparent)}H", *transparent)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
        + (png_chunk(b"tRNS", key) if key else b"")
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


def tiff16(values: np.ndarray, order: str, photometric: int, compression: int = 1) -> bytes:
    """A TIFF of 16 bits a value (H, W, C) in one strip; `order` is < or >."""
    height, width, channels = values.shape
    strip = values.astype(f"{order}u2").tobytes()
    if compression == 8:
        strip = zlib.compress(strip)
    bits = 8 + 2 + 9 * 12 + 4  # where the bits of each channel are, if they do not fit the entry
    bit_entry = 16 if channels == 1 else bits
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, channels, bit_entry),
        (259, 3, 1, compression),
        (262, 3, 1, photometric),
        (273, 4, 1, bits + 8),
        (277, 3, 1, channels),
        (278, 3, 1, height),
        (279, 4, 1, len(strip)),
    ]

    def pack(tag: int, kind: int, count: int, value: int) -> bytes:
        short = kind == 3 and count == 1
        field = struct.pack(
            f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,))
        )
        return struct.pack(f"{order}HHI", tag, kind, count) + field

    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    directory = struct.pack(f"{order}H", len(entries)) + b"".join(pack(*e) for e in entries)
    return head + directory + b"\0" * 4 + struct.pack(f"{order}4H", *[16] * 4) + strip


def frames_of(data: bytes, frames="all", max_pixels: int = 10**6) -> list[np.ndarray]:
    return [picture.to_uint8(Reading()) for picture in read_pictures(data, max_pixels, frames)]


# Several pictures in a file -----------------------------------------------------------------------


def mpo() -> bytes:
    return file_of(block(RED), "MPO", save_all=True, append_images=[block(BLUE, SMALL)])


@pytest.mark.parametrize("frames", ["refuse", "first", "all"])
def test_of_a_jpeg_with_a_second_picture_the_first_is_meant(frames):
    data = mpo()
    assert Image.open(io.BytesIO(data)).n_frames == 2
    (image,) = frames_of(data, frames)
    assert image.shape == (32, 48, 3)
    np.testing.assert_allclose(image, np.broadcast_to(COLOURS[RED], image.shape), atol=2)


@pytest.mark.parametrize("frames", ["refuse", "first", "all"])
@pytest.mark.parametrize(
    "others",
    [
        pytest.param([(block(BLUE, SMALL), {})], id="smaller copy that does not say so"),
        pytest.param([(block(BLUE, (24, 16)), {}), (block(BLUE, SMALL), {})], id="pyramid"),
        pytest.param([(block(BLUE, (10, 10)), {254: 1})], id="square thumbnail that says so"),
        pytest.param([(Image.new("1", LARGE), {254: 4})], id="mask"),
        pytest.param([(Image.new("1", LARGE), {254: 4, 262: 4})], id="mask that Pillow refuses"),
    ],
)
def test_of_a_tiff_with_copies_and_masks_the_first_page_is_meant(others, frames):
    data = tiff_of((block(RED), {}), *others)
    (image,) = frames_of(data, frames)
    assert image.shape == (32, 48, 3)
    assert image[0, 0].tolist() == COLOURS[RED]


def test_a_thumbnail_before_the_picture_is_not_the_picture():
    (image,) = frames_of(tiff_of((block(BLUE, SMALL), {254: 1}), (block(RED), {254: 0})))
    assert image[0, 0].tolist() == COLOURS[RED]


def test_pages_of_other_shapes_are_pictures_of_their_own():
    data = tiff_of((block(RED), {}), (block(GREEN, (20, 20)), {}), (block(BLUE, SMALL), {}))
    with pytest.raises(Invalid, match=r"has 2 frames; send the one that is meant, or frames=first"):
        decode_image(data)
    assert [image.shape[:2] for image in frames_of(data)] == [(32, 48), (20, 20)]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_or_all_are_read(file_format):
    pages = [block(colour) for colour in COLOURS]
    options = {"lossless": True} if file_format == "WEBP" else {}
    data = file_of(pages[0], file_format, save_all=True, append_images=pages[1:], **options)
    with pytest.raises(Invalid, match="has 3 frames"):
        frames_of(data, "refuse")
    (first,) = frames_of(data, "first")
    every = frames_of(data)
    np.testing.assert_array_equal(first, every[0])
    for image, colour in zip(every, COLOURS.values(), strict=True):
        assert image.shape == (32, 48, 3)
        np.testing.assert_allclose(image[0, 0], colour, atol=3)  # AVIF is lossy


def test_frames_have_bounds(monkeypatch):
    pages = [block(colour) for colour in COLOURS]
    data = file_of(pages[0], "GIF", save_all=True, append_images=pages[1:])
    monkeypatch.setattr(reading_module, "MAX_FRAMES", 2)
    with pytest.raises(Invalid, match="more than the 2 frames"):
        frames_of(data)
    monkeypatch.undo()
    monkeypatch.setattr(reading_module, "MAX_FRAME_PIXELS", 4607)
    with pytest.raises(Invalid, match="has 4608 pixels in 3 frames; at most 4607"):
        frames_of(data)


def test_a_later_page_may_not_be_larger_than_a_first_one():
    data = tiff_of((block(RED, (8, 8)), {}), (block(BLUE, (100, 101)), {}))
    with pytest.raises(Invalid, match="100 x 101 = 10100 pixels; at most 10099"):
        frames_of(data, max_pixels=10_099)


# More than 8 bits a value -------------------------------------------------------------------------

WIDE = np.random.default_rng(5).integers(0, 65536, (9, 11, 4)).astype(np.uint16)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values / 257)


def over_white(values: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return 255 - (255 - values / 257) * (alpha / 65535)


def test_colour_of_16_bits_is_rounded_and_not_cut():
    np.testing.assert_array_equal(decode_image(png16(WIDE[:, :, :3])), rounded(WIDE[:, :, :3]))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [1, 8])
def test_colour_of_16_bits_in_a_tiff(order, compression):
    data = tiff16(WIDE[:, :, :3], order, 2, compression)
    np.testing.assert_array_equal(decode_image(data), rounded(WIDE[:, :, :3]))


def test_colour_of_16_bits_with_alpha_is_laid_on_white():
    image = decode_image(png16(WIDE))
    np.testing.assert_allclose(image, over_white(WIDE[:, :, :3], WIDE[:, :, 3:]), atol=1.5)


def test_grey_of_16_bits_with_alpha_stays_grey():
    image = decode_image(png16(WIDE[:, :, :2]))
    assert image.shape == (9, 11, 1)
    np.testing.assert_allclose(image, over_white(WIDE[:, :, :1], WIDE[:, :, 1:2]), atol=1.5)


def test_grey_of_16_bits_with_a_transparent_value_is_not_white():
    ramp = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16, 1)
    image = decode_image(png16(ramp, [256]))
    expected = rounded(ramp)
    expected[0, 1] = 255  # the transparent one
    np.testing.assert_array_equal(image, expected)
    assert abs(image.mean() - 127.5) < 1


def test_a_transparent_colour_of_16_bits_is_compared_in_all_of_them():
    colours = np.array([[[256, 512, 770], [256, 512, 771], [65535, 0, 0]]], np.uint16)
    image = decode_image(png16(colours, colours[0, 0].tolist()))
    assert image[0].tolist() == [[255] * 3, [1, 2, 3], [255, 0, 0]]


def test_grey_of_16_bits_whose_zero_is_white_is_inverted():
    image = decode_image(tiff16(WIDE[:, :, :1], "<", photometric=0))
    np.testing.assert_array_equal(image, rounded(65535 - WIDE[:, :, :1]))


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_the_cameras_orientation_is_applied_to_16_bits(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.rot90(WIDE[:, :, :1], {3: 2, 6: -1, 8: 1}[orientation])
    data = file_of(Image.fromarray(WIDE[:, :, 0]), exif=exif)
    np.testing.assert_array_equal(decode_image(data), rounded(upright))
    colour = png16(WIDE[:, :, :3])
    chunk = png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))
    colour = colour[:33] + chunk + colour[33:]
    upright = np.rot90(WIDE[:, :, :3], {3: 2, 6: -1, 8: 1}[orientation])
    np.testing.assert_array_equal(decode_image(colour), rounded(upright))


CAMERA = np.linspace(100, 4000, 15 * 20).astype(np.uint16).reshape(15, 20, 1)


@pytest.mark.parametrize(
    ("value_range", "black", "white"), [("full", 0, 65535), ("bits", 0, 4095), ("data", 100, 4000)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_range_says_what_is_black_and_white(value_range, black, white, channels):
    data = png16(CAMERA.repeat(channels, axis=2))
    image = decode_image(data, reading=Reading(range=value_range))
    expected = (CAMERA.astype(float) - black) * 255 / (white - black)
    np.testing.assert_allclose(image, expected.repeat(channels, axis=2), atol=0.51)


def test_files_of_8_bits_have_their_own_range():
    dark = Image.fromarray(np.full((8, 8), 20, np.uint8))
    assert decode_image(file_of(dark), reading=Reading(range="data")).max() == 20


def test_transparent_pixels_do_not_count_in_the_range():
    values = CAMERA.copy()
    values[0, 0] = 65535
    image = decode_image(png16(values, [65535]), reading=Reading(range="bits"))
    assert image[0, 0, 0] == 255
    np.testing.assert_allclose(image[1:], CAMERA[1:] * (255 / 4095), atol=0.51)


# In a dataset -------------------------------------------------------------------------------------


def camera_zip(folder: Path, **more: bytes) -> Path:
    """Two pictures of 12 bits in 16, the second one half as bright."""
    files = {"1.png": png16(CAMERA), "2.png": png16(CAMERA // 2)}
    return zip_of(folder / "camera.zip", files | {f"{k}.png": v for k, v in more.items()})


def test_dark_images_are_warned_of(tmp_path):
    summary = inspect_archive(camera_zip(tmp_path))
    assert len(summary.warnings) == 1
    assert summary.warnings[0].startswith("2 of 2 images with more than 8 bits a value")
    assert "largest value is 4000, of 12 bits); range=bits" in summary.warnings[0]
    assert summary.reading.levels is None


def test_a_dark_image_among_bright_ones_is_not(tmp_path):
    bright = {name: png16(WIDE[:, :, :1]) for name in "abc"}
    assert inspect_archive(camera_zip(tmp_path, **bright)).warnings == []


def test_of_files_of_different_scales_it_is_said_that_no_range_suits_all(tmp_path):
    (warning,) = inspect_archive(camera_zip(tmp_path, bright=png16(WIDE[:, :, :1]))).warnings
    assert warning.startswith("2 of 3 images")
    assert "4000, of 12 bits); the others do not" in warning


@pytest.mark.parametrize(("value_range", "found"), [("bits", (0, 4095)), ("data", (50, 4000))])
def test_a_range_is_that_of_the_whole_dataset(tmp_path, value_range, found):
    archive = camera_zip(tmp_path)
    summary = inspect_archive(archive, reading=Reading(range=value_range))
    assert (summary.reading.levels, summary.warnings) == (found, [])
    dataset = prepare(archive, tmp_path / "data", (15, 20), 1, reading=summary.reading)
    black, white = found
    for image, stored in zip(dataset.images, (CAMERA, CAMERA // 2), strict=True):
        expected = (stored.astype(float) - black) * 255 / (white - black)
        np.testing.assert_allclose(image, expected, atol=0.51)


def test_what_is_read_otherwise_has_another_digest(tmp_path):
    archive = camera_zip(tmp_path)
    readings = [Reading(), Reading(range="bits"), Reading(range="data"), Reading("all")]
    assert len({inspect_archive(archive, reading=each).digest for each in readings}) == 4


def gif(colours: Sequence[str]) -> bytes:
    first, *others = (block(colour) for colour in colours)
    return file_of(first, "GIF", save_all=True, append_images=others)


def test_all_frames_are_images_of_their_folder(tmp_path):
    files = {"a/1.gif": gif([RED, GREEN, BLUE]), "a/2.gif": gif([RED]), "b/1.gif": gif([BLUE, RED])}
    archive = zip_of(tmp_path / "a.zip", files)
    with pytest.raises(Invalid, match=r"holds 1 usable images.*a/1.gif: the image has 3 frames"):
        inspect_archive(archive)
    assert inspect_archive(archive, reading=Reading("first")).classes == {"a": 2, "b": 1}
    summary = inspect_archive(archive, reading=Reading("all"))
    assert summary.classes == {"a": 4, "b": 2}
    dataset = prepare(archive, tmp_path / "data", (32, 48), 3, reading=summary.reading)
    assert dataset.labels.tolist() == [0, 0, 0, 0, 1, 1]
    shown = [COLOURS[c] for c in (RED, GREEN, BLUE, RED, BLUE, RED)]
    assert dataset.images[:, 0, 0].tolist() == shown


def test_frames_count_among_the_images_allowed(tmp_path):
    archive = zip_of(tmp_path / "a.zip", {"1.gif": gif([RED, GREEN, BLUE]), "2.gif": gif([RED])})
    with pytest.raises(Invalid, match="more than 3 images, with all their frames"):
        inspect_archive(archive, ArchiveLimits(max_images=3), reading=Reading("all"))


# The size of a run --------------------------------------------------------------------------------


@pytest.fixture
def wide_zip(tmp_path) -> Path:
    """Pictures of 16 x 32: red, but for the eight columns at each edge, which are blue."""
    picture = block(BLUE, (32, 16))
    picture.paste(RED, (8, 0, 24, 16))
    return zip_of(tmp_path / "a.zip", {f"{i}.png": file_of(picture) for i in range(2)})


@pytest.mark.parametrize(
    ("fit", "row"),
    [("crop", [RED] * 4), ("stretch", [BLUE, RED, RED, BLUE]), ("pad", [BLUE, RED, RED, BLUE])],
)
def test_an_image_of_another_shape_is_cut_padded_or_stretched(wide_zip, tmp_path, fit, row):
    dataset = prepare(wide_zip, tmp_path / "data", (16, 16), 3, fit=fit)
    middle = dataset.images[0, 8, 1::4]
    assert [pixel.argmax() for pixel in middle] == [0 if c == RED else 2 for c in row]
    corner = dataset.images[0, 0, 0].tolist()
    assert (corner == [255, 255, 255]) == (fit == "pad")


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_contact_sheet_shows_the_pixels_of_the_run(wide_zip, tmp_path, fit):
    dataset = prepare(wide_zip, tmp_path / "data", (16, 24), 3, fit=fit)
    sheet = sheet_of(wide_zip, (16, 24), 3, per_row=2, fit=fit)
    scale = 3  # to at least 64 pixels
    assert sheet.shape == (16 * scale, 2 * 24 * scale + 2, 3)
    np.testing.assert_array_equal(sheet[1::scale, 1 : 24 * scale : scale], dataset.images[0])


def test_the_contact_sheet_of_grey_is_grey_and_in_the_datasets_range(tmp_path):
    archive = camera_zip(tmp_path)
    reading = inspect_archive(archive, reading=Reading(range="data")).reading
    sheet = sheet_of(archive, (15, 20), 1, per_row=1, reading=reading)
    assert sheet.max() == 255


# Newer formats ------------------------------------------------------------------------------------


def test_avif_is_read():
    assert features.check("avif")
    y, x = np.mgrid[0:64, 0:64]
    image = np.stack([2 * x, 2 * y, x + y], axis=-1).astype(np.uint8)
    back = decode_image(file_of(Image.fromarray(image), "AVIF", quality=95))
    assert np.abs(back.astype(int) - image).mean() < 3


def test_an_avif_of_too_many_pixels_is_refused():
    with pytest.raises(Invalid, match="48 x 32 = 1536 pixels; at most 1535"):
        decode_image(file_of(block(RED), "AVIF"), max_pixels=1535)


WITHOUT_EXTRA = """
import struct, sys
sys.modules["pillow_heif"] = None  # importing it fails
from models.images.reading import read_pictures
try:
    data = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100)
    next(read_pictures(data, 10_000, "refuse"))
except ValueError as error:
    print(error)
"""


def test_heic_without_its_extra_is_refused_by_name():
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRA], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.startswith("this is a HEIC image")
    assert "extra `heic` (pillow-heif)" in run.stdout


@pytest.fixture
def heic() -> Callable[..., bytes]:
    pillow_heif = pytest.importorskip("pillow_heif")

    def encode(*pictures: Image.Image, **options: object) -> bytes:
        file = pillow_heif.HeifFile()
        for picture in pictures:
            file.add_from_pillow(picture)
        buffer = io.BytesIO()
        file.save(buffer, **options)
        return buffer.getvalue()

    return encode


@pytest.mark.parametrize("frames", ["refuse", "first", "all"])
def test_of_a_heic_the_primary_picture_is_meant(heic, frames):
    data = heic(block(BLUE), block(RED), primary_index=1, quality=95)
    (image,) = frames_of(data, frames)
    assert image.shape == (32, 48, 3)
    np.testing.assert_allclose(image[16, 24], COLOURS[RED], atol=6)


def test_a_heic_of_too_many_pixels_is_refused(heic):
    with pytest.raises(Invalid, match=r"48 x 32 = 1536 pixels; at most 1535"):
        decode_image(heic(block(RED)), max_pixels=1535)


def damaged_in_places(intact: bytes) -> list[bytes]:
    random = np.random.default_rng(1)
    files = []
    for _ in range(200):
        damaged = bytearray(intact)
        for place in random.integers(0, len(intact), random.integers(1, 6)):
            damaged[place] = random.integers(0, 256)
        del damaged[random.integers(len(intact) // 4, 2 * len(intact)) :]
        files.append(bytes(damaged))
    return files


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of what it finds in the damage
@pytest.mark.parametrize("kind", ["AVIF", "HEIC", "MPO", "TIFF", "GIF", "PNG of 16 bits"])
def test_damage_of_any_kind_is_an_image_or_a_refusal(kind, request):
    if kind == "HEIC":
        intact = request.getfixturevalue("heic")(block(RED))
    else:
        intact = {
            "AVIF": lambda: file_of(block(RED), "AVIF"),
            "MPO": mpo,
            "TIFF": lambda: tiff_of((block(RED), {}), (block(BLUE, SMALL), {254: 1})),
            "GIF": lambda: gif([RED, GREEN, BLUE]),
            "PNG of 16 bits": lambda: png16(WIDE),
        }[kind]()
    for data in damaged_in_places(intact):
        with contextlib.suppress(Invalid):
            for image in frames_of(data, max_pixels=10_000):
                assert image.dtype == np.uint8
                assert image.shape[2] in (1, 3)
