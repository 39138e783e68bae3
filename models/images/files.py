"""Image files written, and uint8 arrays of shape (H, W, C), C being 1 for greyscale and 3 for RGB.

models.images.reading has the files that are read.
"""

import io
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from models.arrays import UInt8
from models.images.formats import BY_NAME, Fit, FormatName
from models.images.recipe import Recipe, carrying

FRAME_MILLISECONDS, LAST_FRAME_MILLISECONDS = 80, 1500


def encode_image(image: UInt8, file_format: FormatName, recipe: Recipe | None = None) -> bytes:
    """Encode an image (H, W, C) uint8. PNG is exact; WebP and JPEG, of quality 95, are not. The
    file carries its `recipe`."""
    options = {**BY_NAME[file_format].encoder_options, **carrying(recipe, file_format)}
    buffer = io.BytesIO()
    _as_pillow(image).save(buffer, file_format, **options)
    return buffer.getvalue()


def decode_image(content: bytes) -> UInt8:
    """Decode an image that encode_image wrote: (H, W, C) uint8."""
    with Image.open(io.BytesIO(content)) as image:
        pixels = np.asarray(image)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels


def encode_animation(
    images: Sequence[UInt8], file_format: Literal["png", "webp"], recipe: Recipe | None = None
) -> bytes:
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
        **carrying(recipe, file_format),
    )
    return buffer.getvalue()


def resize_image(image: UInt8, size: tuple[int, int], fit: Fit = "crop", fill: int = 255) -> UInt8:
    """Bring an image to `size` (height, width).

    If its aspect ratio differs, `crop` cuts it around the centre, `pad` adds edges of the value
    `fill`, and `stretch` distorts it.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    picture, scale = _as_pillow(image), Image.Resampling.LANCZOS
    if fit == "pad":
        colour = (fill, fill, fill) if image.shape[2] == 3 else fill
        fitted = ImageOps.pad(picture, (width, height), scale, colour)
    elif fit == "stretch":
        fitted = picture.resize((width, height), scale)
    else:
        fitted = ImageOps.fit(picture, (width, height), scale)
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


def _as_pillow(image: UInt8) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
