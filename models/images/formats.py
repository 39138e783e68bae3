"""The image formats that are written, one row each.

The API's media types, the command line's file suffixes and the encoder (models.images.files) are
all read from these rows. This module imports neither numpy nor Pillow, so that the command line
starts quickly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FormatName = Literal["png", "webp", "jpeg"]  # also Pillow's names


@dataclass(frozen=True)
class ImageFormat:
    """One format; the first of `suffixes` is the usual one."""

    name: FormatName
    media_type: str
    suffixes: tuple[str, ...]
    max_side: int  # pixels; the format holds no larger width or height
    encoder_options: Mapping[str, Any]  # keyword arguments of PIL.Image.save
    animation_options: Mapping[str, Any]  # the same for exact frames; empty: no animations


# Noise does not compress: higher levels take several times longer to save a few percent.
_FAST = {"compress_level": 1}
_LOSSY, _EXACT = {"quality": 95, "method": 2}, {"lossless": True}

FORMATS = (  # the first one is the API's default
    ImageFormat("png", "image/png", (".png",), 2**31 - 1, _FAST, _FAST),
    ImageFormat("webp", "image/webp", (".webp",), 16_383, _LOSSY, _EXACT),
    ImageFormat("jpeg", "image/jpeg", (".jpg", ".jpeg"), 65_500, {"quality": 95}, {}),
)

BY_NAME = {row.name: row for row in FORMATS}
BY_MEDIA_TYPE = {row.media_type: row for row in FORMATS}
BY_SUFFIX = {suffix: row for row in FORMATS for suffix in row.suffixes}
