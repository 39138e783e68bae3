"""A row of numbers for each picture of a dataset, for the report of models.images.findings.

They are taken while the archive is inspected, so that a report opens no image again. All but the
digest are of the picture at no more than WORK_SIDE pixels a side, about what a network sees of it.
"""

import hashlib
import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.arrays import UInt8
from models.images.formats import Reading
from models.images.reading import Picture

WORK_SIDE = 128  # pixels of the longer side
LUMA_SIDE, CHROMA_SIDE = 16, 4  # pixels of the thumbnails
MAX_STRIDED = 256  # pixels a side that skipping rows and columns of a large picture leaves

# A structured array (N,), little-endian, so that its bytes are the same on every host.
FINGERPRINT = np.dtype(
    [
        ("sha256", "u1", (32,)),  # of shape, type and values: equal for equal pixels
        ("luma", "u1", (LUMA_SIDE, LUMA_SIDE)),
        ("chroma", "u1", (CHROMA_SIDE, CHROMA_SIDE, 2)),  # Cb, Cr; 128 in grey pictures
        ("deviation", "<f4"),  # standard deviation, of 255; of luma or chroma, the larger one
        ("sharpness", "<f4"),  # 0.5 / s^2 where all edges are blurred by a Gaussian of s pixels
        ("height", "<u4"),
        ("width", "<u4"),
    ]
)
Fingerprints = NDArray[np.void]

# Values of 12 bits in a file of 16 keep their contrast, and one colour stays one colour.
_READING = Reading(range="bits")
_GREY: UInt8 = np.full((CHROMA_SIDE * CHROMA_SIDE, 2), 128, np.uint8)


def fingerprint(picture: Picture) -> Fingerprints:
    """Return the picture's row, shape (1,). Each of its sides has at least 3 pixels."""
    values = np.ascontiguousarray(picture.values)
    digest = hashlib.sha256(f"{values.dtype.str} {values.shape} ".encode())
    digest.update(values.data)
    if picture.alpha is not None:
        digest.update(np.ascontiguousarray(picture.alpha).data)
    luma, chroma = _thumbnails(picture)
    size = luma.size[::-1]
    pixels = np.frombuffer(luma.tobytes(), np.uint8).reshape(size).astype(np.float32)
    cells = luma.resize((LUMA_SIDE, LUMA_SIDE), Image.Resampling.BOX).tobytes()
    deviation = max(_deviation(pixels), *map(_deviation, chroma.T))
    numbers = struct.pack("<ffII", deviation, sharpness(pixels), *values.shape[:2])
    return np.frombuffer(b"".join([digest.digest(), cells, chroma.tobytes(), numbers]), FINGERPRINT)


def sharpness(luma: NDArray[Any]) -> float:
    """Return the energy of the Laplacian over that of the gradient, of float pixels (H, W).

    The quotient depends neither on contrast nor on how much of the picture is flat. For a step
    blurred by a Gaussian of s pixels it is the ratio of the integrals of (g'/s^2)^2 and (g/s)^2,
    which is 0.5 / s^2; a sharp step has 2, white noise 5. 0 if all pixels are equal.
    """
    across, down = luma[:, 1:] - luma[:, :-1], luma[1:] - luma[:-1]
    laplacian = (across[1:-1, 1:] - across[1:-1, :-1]) + (down[1:, 1:-1] - down[:-1, 1:-1])
    gradient = _mean_square(across) + _mean_square(down)
    return _mean_square(laplacian) / gradient if gradient else 0.0


def _mean_square(values: NDArray[Any]) -> float:
    flat = values.ravel()
    return float(flat @ flat) / flat.size


def _deviation(values: NDArray[Any]) -> float:
    """Return the standard deviation, exactly 0 if all are equal."""
    offsets = values.ravel().astype(np.float32)
    offsets -= offsets[0]
    mean = float(offsets.sum()) / offsets.size
    return math.sqrt(max(0.0, _mean_square(offsets) - mean * mean))


def _thumbnails(picture: Picture) -> tuple[Image.Image, UInt8]:
    """Return the luma at no more than WORK_SIDE pixels a side, and the chroma's thumbnail, each
    cell's Cb and Cr: (16, 2)."""
    small = _strided(picture).to_uint8(_READING)
    if small.shape[2] == 1:
        return _reduced(Image.fromarray(small[:, :, 0])), _GREY
    colours = _reduced(Image.fromarray(small)).convert("YCbCr")
    cells = colours.resize((CHROMA_SIDE, CHROMA_SIDE), Image.Resampling.BOX)
    return colours.getchannel(0), np.frombuffer(cells.tobytes(), np.uint8).reshape(-1, 3)[:, 1:]


def _strided(picture: Picture) -> Picture:
    """Skip rows and columns of a picture of at least twice MAX_STRIDED: copying all its pixels
    would take a third of the time of decoding them."""
    step = max(picture.values.shape) // MAX_STRIDED
    if step < 2:
        return picture
    alpha = None if picture.alpha is None else picture.alpha[::step, ::step]
    return replace(picture, values=picture.values[::step, ::step].copy(), alpha=alpha)


def _reduced(image: Image.Image) -> Image.Image:
    scale = WORK_SIDE / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(8, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)
