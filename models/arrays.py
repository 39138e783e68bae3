"""Types of arrays by their element, and images between uint8 and [-1, 1].

Images are uint8 (N, H, W, C) at the edge, in files and answers, and float32 (B, C, H, W) in [-1, 1]
for networks. The arithmetic of the core is written once for numpy and torch; torch is not imported
here, so that processes that only serve need not load it.
"""

import importlib
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Array = TypeVar("Array", "Tensor", NDArray[Any])
AnyArray: TypeAlias = Any  # an array or a tensor, where a TypeVar would say no more


def library(array: Any) -> Any:
    """Return the library of an array: numpy or torch, which agree on many names of functions."""
    return np if isinstance(array, np.ndarray) else importlib.import_module("torch")


def to_uint8(x: Array) -> UInt8:
    """Return (B, C, H, W) in [-1, 1] as uint8 (B, H, W, C); values beyond are clipped."""
    xp = library(x)
    scaled = xp.round((xp.clip(x, -1.0, 1.0) + 1.0) * 127.5)
    with np.errstate(invalid="ignore"):  # NaN, which its owner is told of
        pixels = xp.asarray(scaled, dtype=xp.uint8)
    pixels = xp.moveaxis(pixels, 1, 3)
    return np.ascontiguousarray(pixels if xp is np else pixels.cpu().numpy())


def to_float(images: AnyArray) -> AnyArray:
    """Return uint8 (B, H, W, C) as float32 (B, C, H, W) in [-1, 1]."""
    xp = library(images)
    return xp.asarray(xp.moveaxis(images, 3, 1), dtype=xp.float32) / 127.5 - 1.0
