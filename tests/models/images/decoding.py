"""The one image of a file, as tests ask for it."""

from models.arrays import UInt8
from models.images.formats import Frames, Reading
from models.images.reading import MAX_PIXELS, read_pictures


def decode_image(
    data: bytes, *, max_pixels: int = MAX_PIXELS, reading: Reading | None = None
) -> UInt8:
    reading = reading or Reading()
    frames: Frames = "refuse" if reading.frames == "refuse" else "first"
    return next(read_pictures(data, max_pixels, frames)).to_uint8(reading)
