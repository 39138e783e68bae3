"""Image files, read as uint8 arrays of shape (H, W, C), C being 1 for greyscale and 3 for RGB.

Every file is converted to one of the two: palettes are looked up, alpha is laid on white, CMYK is
converted, more than 8 bits a value are scaled to 8, and the camera's orientation is applied.

A file may hold several pictures. The first one is meant where the others belong to it: the preview,
depth or gain map in a camera's JPEG or HEIC, smaller copies and masks in a TIFF. Animations, and
TIFFs of several pages, are refused unless the caller says which frames are meant.
"""

import io
import struct
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from models.arrays import UInt8
from models.fields import Invalid
from models.images.formats import Frames, Reading, ValueRange

try:
    import pillow_heif
except ImportError:
    HEIC = False
else:
    pillow_heif.register_heif_opener(thumbnails=False)
    HEIC = True

READABLE = (
    *("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM"),
    *(["AVIF"] if features.check("avif") else []),
    *(["HEIF"] if HEIC else []),
)
MAX_PIXELS = 4096 * 4096
MAX_FRAMES = 10_000  # of one file
MAX_FRAME_PIXELS = 2**30  # of all frames of a file together

# Brands of the ISO base media format (HEIF, ISO/IEC 23008-12, annex B; AVIF 1.1, section 6).
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}

_ORIENTATION = 0x0112  # the Exif tag
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _PHOTOMETRIC = 254, 256, 257, 262  # tags of TIFF 6.0
_REDUCED_OR_MASK = 0b101  # bits of the subfile type
_WHITE_IS_ZERO = 0  # a photometric interpretation

# Pillow reads the upper byte of each 16-bit value in colour. The same bytes in the other order give
# the lower one.
_NATIVE, _OTHER = ("L", "B") if sys.byteorder == "little" else ("B", "L")
_LOWER_BYTES = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", _OTHER))
}
_GREY_AND_ALPHA = "LA;16B"
_TOPS = {"I;12": 4095, "I;16S": 32767, "I;16BS": 32767}  # largest values; others have 65535

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
    RuntimeError,  # of the HEIC and AVIF decoders
    struct.error,
)
_DAMAGED = "the image is truncated or damaged"


Image.MAX_IMAGE_PIXELS = 2**30  # above any bound of ours, whose message names the bound


@dataclass(frozen=True)
class Picture:
    """A decoded picture (H, W, C): uint8, or uint16 if its file has more bits a value.

    `top` is the largest value that the format allows. Only wide pictures have an `alpha` (H, W);
    the others are laid on white already.
    """

    values: NDArray[np.uint8] | NDArray[np.uint16]
    top: int = 255
    alpha: UInt8 | None = None

    @property
    def is_wide(self) -> bool:
        return self.top > 255

    def used(self) -> tuple[int, int]:
        """Return the least and the largest value of the visible pixels."""
        seen = self.values if self.alpha is None else self.values[self.alpha > 0]
        return (int(seen.min()), int(seen.max())) if seen.size else (0, self.top)

    def to_uint8(self, reading: Reading) -> UInt8:
        """Scale the values to 0..255 as `reading` says, and lay them on white."""
        if not self.is_wide:
            return self.values.astype(np.uint8, copy=False)
        black, white = reading.levels or levels(reading.range, *self.used()) or (0, self.top)
        scaled = (np.arange(65536) - black) * (255 / max(1, white - black))
        image: UInt8 = np.rint(scaled).clip(0, 255).astype(np.uint8)[self.values]
        if self.alpha is None:
            return image
        alpha = self.alpha[:, :, None].astype(np.uint16)
        laid: UInt8 = ((image * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        return laid


def levels(value_range: ValueRange, low: int, high: int) -> tuple[int, int] | None:
    """Return the values that become black and white where `low` and `high` are the least and the
    largest in use; None if the format decides."""
    if value_range == "full":
        return None
    return (low, high) if value_range == "data" else (0, 2 ** max(8, high.bit_length()) - 1)


@dataclass
class WideValues:
    """What the wide pictures among those added have in common: the least and the largest value.

    `dim` counts those that use less than half of their format's range: cameras and scanners store
    values of 10, 12 or 14 bits in files of 16, which then come out dark.
    """

    low: int = 65535
    high: int = 0
    count: int = 0
    dim: int = 0
    dim_high: int = 0

    def add(self, picture: Picture) -> None:
        if picture.is_wide:
            low, high = picture.used()
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.count += 1
            if high <= picture.top // 2:
                self.dim, self.dim_high = self.dim + 1, max(self.dim_high, high)

    def levels(self, value_range: ValueRange) -> tuple[int, int] | None:
        return levels(value_range, self.low, self.high) if self.count else None

    def warning(self, value_range: ValueRange) -> str:
        """Return a sentence if at least half of the wide pictures come out dark, else ""."""
        if value_range != "full" or not self.dim or 2 * self.dim < self.count:
            return ""
        cure = "range=bits or range=data spreads the values"
        if self.dim < self.count:
            cure = "the others do not, so that no range suits all: bring them to one scale"
        return (
            f"{self.dim} of {self.count} images with more than 8 bits a value use less than half "
            f"of their range, and come out dark (their largest value is {self.dim_high}, of "
            f"{self.dim_high.bit_length()} bits); {cure}"
        )


def warning_of(picture: Picture, value_range: ValueRange) -> str:
    """Return a sentence if the picture comes out dark, else ""."""
    values = WideValues()
    values.add(picture)
    return values.warning(value_range)


def read_pictures(data: bytes, max_pixels: int, frames: Frames) -> Iterator[Picture]:
    """Yield the file's pictures: all frames if `frames` says so, else one. Raises Invalid with the
    reason if one cannot be read.

    A header that announces more than `max_pixels` is refused before anything is decoded.
    """
    with _open(data, max_pixels) as picture:
        for frame in _frames(picture, frames):
            yield _decode(data, picture, frame, max_pixels)


def format_of(data: bytes) -> str:
    """Return Pillow's name of the file's format. Raises Invalid if it is of no kind in READABLE."""
    return str(_open(data, sys.maxsize).format)


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header. Raises Invalid if it announces more pixels than allowed, or is of no kind in
    READABLE."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(data), formats=READABLE)
    except Image.DecompressionBombError:
        raise Invalid.because(f"the image has more than the {max_pixels} pixels allowed") from None
    except (UnidentifiedImageError, *_DAMAGE):
        raise Invalid.because(_unreadable(data)) from None
    _check_pixels(picture, max_pixels)
    return picture


def _unreadable(data: bytes) -> str:
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _HEIC_BRANDS and not HEIC:
        return "this is a HEIC image, which the service reads with its extra `heic` (pillow-heif)"
    if brand in _AVIF_BRANDS and "AVIF" not in READABLE:
        return "this is an AVIF image, which this build of Pillow cannot read"
    return f"this is not an image in any of {', '.join(READABLE)}"


@contextmanager
def _damage_refused() -> Iterator[None]:
    try:
        yield
    except Invalid:  # the file is intact, but it is too large or its kind is not supported
        raise
    except _DAMAGE:
        raise Invalid.because(_DAMAGED) from None


def _check_pixels(picture: Image.Image, max_pixels: int) -> None:
    pixels = picture.width * picture.height
    if pixels > max_pixels:
        raise Invalid.because(
            f"the image has {picture.width} x {picture.height} = {pixels} pixels; "
            f"at most {max_pixels} are allowed"
        )


# Frames -------------------------------------------------------------------------------------------


def _frames(picture: Any, frames: Frames) -> Sequence[int]:
    """Return the indices of the frames to read."""
    if picture.format in ("MPO", "HEIF"):
        return [picture.tell()]
    if picture.format == "TIFF":
        found = _whole_pages(picture)
    elif frames == "first":
        found = {0: picture.size}
    else:
        found = dict.fromkeys(range(_num_frames(picture)), picture.size)
    if len(found) > 1 and frames == "refuse":
        raise Invalid.because(
            f"the image has {len(found)} frames; send the one that is meant, or frames=first"
        )
    if frames != "all":
        return list(found)[:1]
    pixels = sum(width * height for width, height in found.values())
    if pixels > MAX_FRAME_PIXELS:
        raise Invalid.because(
            f"the image has {pixels} pixels in {len(found)} frames; "
            f"at most {MAX_FRAME_PIXELS} are allowed"
        )
    return list(found)


def _num_frames(picture: Any) -> int:
    with _damage_refused():  # counting reads through the file
        return _check_num_frames(int(getattr(picture, "n_frames", 1)))


def _check_num_frames(count: int) -> int:
    if count > MAX_FRAMES:
        raise Invalid.because(f"the image has more than the {MAX_FRAMES} frames allowed")
    return count


def _whole_pages(picture: Any) -> dict[int, tuple[int, int]]:
    """Return the size (width, height) of each page of a TIFF that is a picture of its own.

    Left out are smaller copies and masks: those that say so, and those of the first one's aspect
    ratio.
    """
    found: dict[int, tuple[int, int]] = {}
    page = 0
    with _damage_refused():
        while _seek_page(picture, page):
            tags = picture.tag_v2
            size = int(tags.get(_WIDTH, 0)), int(tags.get(_HEIGHT, 0))
            says_so = tags.get(_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK
            if not says_so and not (found and _is_reduced(size, next(iter(found.values())))):
                found[page] = size
            page = _check_num_frames(page + 1)
    return found or {0: picture.size}


def _seek_page(picture: Any, page: int) -> bool:
    """Read the tags of a TIFF's page; return False if there is no such page."""
    try:
        picture.seek(page)
    except EOFError:
        return False
    except SyntaxError:  # a kind of pixels that cannot be read, as of some masks; its tags can
        pass
    return True


def _is_reduced(size: tuple[int, int], whole: tuple[int, int]) -> bool:
    """Compare sizes (width, height); both sides of a copy are rounded to whole pixels."""
    (width, height), (whole_width, whole_height) = size, whole
    if width >= whole_width or height >= whole_height:
        return False
    return abs(width * whole_height - height * whole_width) <= max(whole)


# Pixels -------------------------------------------------------------------------------------------


def _decode(data: bytes, picture: Image.Image, frame: int, max_pixels: int) -> Picture:
    with _damage_refused():
        picture.seek(frame)
        _check_pixels(picture, max_pixels)
        if picture.mode == "F":
            raise Invalid.because(
                "the image's pixels are floating point; 8 and 16 bits can be read"
            )
        raw = _raw_mode(picture)
        if raw == _GREY_AND_ALPHA:
            return _grey_and_alpha(picture)
        if raw in _LOWER_BYTES:
            lower = _open(data, max_pixels)
            lower.seek(frame)
            return _wide_colour(picture, lower, raw)
        if picture.mode.startswith("I"):
            return _wide_grey(picture, raw)
        flat = _without_alpha(_oriented(picture))
        mode = "L" if flat.mode in ("1", "L") else "RGB"
        return Picture(_with_axis(np.asarray(flat.convert(mode))))


def _raw_mode(picture: Any) -> str:
    """Return Pillow's name for how the file stores its pixels, "" if its decoder has none."""
    for tile in getattr(picture, "tile", ()):
        raw = tile.args if isinstance(tile.args, str) else (tile.args or [""])[0]
        return raw if isinstance(raw, str) else ""
    return ""


def _read_as(picture: Any, raw: str) -> None:
    """Let Pillow take the file's pixels for those of another raw mode of as many bits."""
    picture.tile = [
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
        for tile in picture.tile
    ]


def _oriented(picture: Image.Image) -> Image.Image:
    if picture.getexif().get(_ORIENTATION, 1) == 1:
        return picture
    return ImageOps.exif_transpose(picture)


def _wide_grey(picture: Any, raw: str) -> Picture:
    """Read 16 bits of grey, which Pillow may also call I."""
    values = np.asarray(_oriented(picture))
    if values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise Invalid.because("the image has more than 16 bits a pixel, or negative ones")
    top = _TOPS.get(raw, 65535)
    transparent = picture.info.get("transparency")
    alpha = None if transparent is None else _opaque(values != transparent)
    if picture.format == "TIFF" and picture.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = top - values
    return Picture(_with_axis(values.astype(np.uint16)), top, alpha)


def _grey_and_alpha(picture: Any) -> Picture:
    """Read 16 bits of grey and of alpha: four bytes, as many as RGBA has."""
    _read_as(picture, "RGBA")
    stored = np.asarray(_oriented(picture)).astype(np.uint16)
    grey = stored[:, :, 0] << 8 | stored[:, :, 1]
    return Picture(_with_axis(grey), 65535, _alpha(stored[:, :, 2]))


def _wide_colour(picture: Any, lower: Any, raw: str) -> Picture:
    """Read 16 bits a value of RGB or RGBA; `lower` is the same file, opened again."""
    _read_as(lower, _LOWER_BYTES[raw])
    upper_bytes, lower_bytes = (np.asarray(_oriented(p)) for p in (picture, lower))
    values = upper_bytes.astype(np.uint16) << 8 | lower_bytes
    colour = values[:, :, :3]
    if values.shape[2] == 4:
        return Picture(colour, 65535, _alpha(upper_bytes[:, :, 3]))
    transparent = picture.info.get("transparency")
    alpha = None if transparent is None else _opaque((colour != transparent).any(axis=2))
    return Picture(colour, 65535, alpha)


def _opaque(visible: NDArray[np.bool_]) -> UInt8:
    return np.where(visible, 255, 0).astype(np.uint8)


def _alpha(values: NDArray[Any]) -> UInt8 | None:
    """Return the upper bytes of an alpha channel, None if all is opaque."""
    return None if values.min() == 255 else values.astype(np.uint8)


def _without_alpha(picture: Image.Image) -> Image.Image:
    if not picture.has_transparency_data:
        return picture
    grey = picture.mode in ("LA", "La", "L", "1")
    coloured = picture.convert("RGBA")
    canvas = Image.new("RGBA", picture.size, "white")
    canvas.alpha_composite(coloured)
    return canvas.convert("L" if grey else "RGB")


def _with_axis(values: NDArray[Any]) -> NDArray[Any]:
    return values if values.ndim == 3 else values[:, :, None]
