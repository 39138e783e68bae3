"""Image files and uint8 arrays of shape (H, W, C), C being 1 for greyscale and 3 for RGB.

Every file is converted to one of the two: palettes are looked up, alpha is laid on white, CMYK is
converted, 16-bit grey is scaled to 8, and the camera's orientation is applied. Animations are
refused, because it is unclear which frame is meant.
"""

import io
import math
import struct
import warnings
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from models.arrays import UInt8
from models.fields import Invalid
from models.images.formats import BY_NAME, FormatName

READABLE = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 4096 * 4096
FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 80, 1500

_GREY_MODES = ("1", "L", "I", "I;16", "I;16B", "F")
_ORIENTATION = 0x0112  # the Exif tag
# Exceptions of Pillow's readers for truncated or inconsistent files.
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    MemoryError,
    TypeError,
    LookupError,
    ArithmeticError,
    struct.error,
)
_DAMAGED = "the image is truncated or damaged"


Image.MAX_IMAGE_PIXELS = 2**30  # above any bound of ours, whose message names the bound


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> UInt8:
    """Return the file's image. Raises Invalid with the reason if it cannot be read.

    A header that announces more than `max_pixels` is refused before anything is decoded.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=READABLE)
    except Image.DecompressionBombError:
        raise Invalid.because(f"the image has more than the {max_pixels} pixels allowed") from None
    except (UnidentifiedImageError, *_DAMAGE):
        raise Invalid.because(f"this is not an image in any of {', '.join(READABLE)}") from None
    with picture:
        pixels = picture.width * picture.height
        if pixels > max_pixels:
            raise Invalid.because(
                f"the image has {picture.width} x {picture.height} = {pixels} pixels; "
                f"at most {max_pixels} are allowed"
            )
        frames = _num_frames(picture)
        if frames > 1:
            raise Invalid.because(f"the image has {frames} frames; send the one that is meant")
        return _to_array(picture)


def encode_image(image: UInt8, file_format: FormatName) -> bytes:
    """Encode an image (H, W, C) uint8. PNG is exact; WebP and JPEG, of quality 95, are not."""
    buffer = io.BytesIO()
    _as_pillow(image).save(buffer, file_format, **BY_NAME[file_format].encoder_options)
    return buffer.getvalue()


def encode_animation(images: Sequence[UInt8], file_format: Literal["png", "webp"]) -> bytes:
    """Write images (H, W, C) uint8 as an animation: lossless, in an endless loop."""
    first, *others = (_as_pillow(image) for image in images)
    durations = [FRAME_MILLISECONDS] * len(others) + [LAST_FRAME_MILLISECONDS]
    buffer = io.BytesIO()
    first.save(
        buffer,
        file_format,
        save_all=True,
        append_images=others,
        duration=durations,
        loop=0,
        **BY_NAME[file_format].animation_options,
    )
    return buffer.getvalue()


def resize_image(image: UInt8, size: tuple[int, int]) -> UInt8:
    """Crop around the centre to the aspect ratio of `size` (height, width), then scale to it."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    picture = _as_pillow(image)
    fitted = ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
    return np.asarray(fitted).reshape(height, width, image.shape[2])


def with_channels(image: UInt8, channels: int) -> UInt8:
    """Convert to (H, W, channels): grey to RGB by repetition, RGB to grey by luma."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    return np.asarray(Image.fromarray(image).convert("L"))[:, :, None]


def image_grid(images: UInt8, columns: int | None = None, padding: int = 0) -> UInt8:
    """Arrange images (N, H, W, C) in rows of `columns` on white; return (H', W', C).

    By default the grid is about square.
    """
    count, height, width, channels = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    shape = (rows * (height + padding) - padding, columns * (width + padding) - padding, channels)
    sheet = np.full(shape, 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + padding), (i % columns) * (width + padding)
        sheet[top : top + height, left : left + width] = image
    return sheet


def _num_frames(picture: Image.Image) -> int:
    try:
        return int(getattr(picture, "n_frames", 1))
    except _DAMAGE:  # counting reads through the file
        raise Invalid.because(_DAMAGED) from None


def _to_array(picture: Image.Image) -> UInt8:
    try:
        oriented: Image.Image = picture
        if picture.mode == "F":
            raise Invalid.because(
                "the image's pixels are floating point; 8 and 16 bits can be read"
            )
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            oriented = ImageOps.exif_transpose(picture)
        flat = _without_alpha(oriented)
        array = _grey(flat) if flat.mode in _GREY_MODES else np.asarray(flat.convert("RGB"))
    except Invalid:  # the file is intact, but its kind of pixels is not supported
        raise
    except _DAMAGE:
        raise Invalid.because(_DAMAGED) from None
    return array if array.ndim == 3 else array[:, :, None]


def _without_alpha(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    grey = picture.mode in ("LA", "La", "L", "1")
    coloured = picture.convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(coloured)
    return canvas.convert("L" if grey else "RGB")


def _grey(picture: Image.Image) -> UInt8:
    if picture.mode.startswith("I"):  # 16 bits, which Pillow may also call I
        wide = np.asarray(picture).astype(np.int64)
        if wide.min(initial=0) < 0 or wide.max(initial=0) > 65535:
            raise Invalid.because("the image has more than 16 bits a pixel, or negative ones")
        return ((wide + 128) // 257).astype(np.uint8)
    return np.asarray(picture.convert("L"))


def _as_pillow(image: UInt8) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
