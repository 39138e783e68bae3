"""The image formats that are written, one row each, and the choices in reading and resizing.

The API's media types, the command line's file suffixes and the encoder (models.images.files) are
all read from these rows. This module imports neither numpy nor Pillow, so that the command line
starts quickly.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

FormatName = Literal["png", "webp", "jpeg"]  # also Pillow's names
Frames = Literal["refuse", "first", "all"]
ValueRange = Literal["full", "bits", "data"]
Fit = Literal["crop", "pad", "stretch"]

FITS = (
    "`crop` cuts what is too much at the edges, `pad` adds white edges, "
    "`stretch` changes the proportions"
)
RANGES = (
    "`full`: 0 and the largest value of the format; `bits`: 0 and the largest value of as many "
    "bits as are used, at least 8 (of 12 bits 4095); `data`: the least and the largest value found"
)


@dataclass(frozen=True)
class ImageFormat:
    """One format; the first of `suffixes` is the usual one."""

    name: FormatName
    media_type: str
    suffixes: tuple[str, ...]
    max_side: int  # pixels; the format holds no larger width or height
    encoder_options: Mapping[str, Any]  # keyword arguments of PIL.Image.save
    animation_options: Mapping[str, Any]  # the same for exact frames; empty: no animations


@dataclass(frozen=True)
class Reading:
    """The choices in reading image files.

    `frames` of animations and of files of several pages: refuse the file, or take the first or all.
    `range` of files of more than 8 bits a value: which values become black and white (RANGES).
    `levels` are these two values where they were found in all images of a dataset together; without
    them each file has its own.
    """

    frames: Frames = "refuse"
    range: ValueRange = "full"
    levels: tuple[int, int] | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Reading":
        """Return the choices that JSON holds, where tuples are lists."""
        levels = values["levels"]
        return cls(values["frames"], values["range"], tuple(levels) if levels else None)


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
