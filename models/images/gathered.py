"""Images of several memory maps, read as one array."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from models.arrays import Int64, UInt8


class GatheredImages:
    """Images (N, H, W, C) uint8 that lie in several arrays, of which they are some of the rows.

    Image i is row `row[i]` of `arrays[part[i]]`. Only the images that are asked for are read; what
    `images[...]` returns is a plain array.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, arrays: "Sequence[Images]", part: Int64, row: Int64) -> None:
        self._arrays, self._part, self._row = arrays, part, row
        self.shape: tuple[int, ...] = (len(row), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape))

    def __getitem__(self, which: slice | Int64) -> UInt8:
        part, row = self._part[which], self._row[which]
        images = np.empty((*row.shape, *self.shape[1:]), np.uint8)
        for number, array in enumerate(self._arrays):
            here = part == number
            if here.any():
                images[here] = array[row[here]]
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> UInt8:
        return self[:]


Images: TypeAlias = UInt8 | GatheredImages
