"""Some images of a dataset at a glance, as a network sees them."""

import math
from collections.abc import Sequence

import numpy as np

from models.arrays import UInt8
from models.images.files import image_grid, resize_image, with_channels
from models.images.formats import Fit
from models.images.versions import Manifest

TILE_SIDE = 64  # pixels of a tile, at least
MAX_ROWS = 20  # classes
PER_ROW = 8  # images


def shown_images(manifest: Manifest, per_row: int = PER_ROW) -> list[list[int]]:
    """Return the positions of the first images of each class, of the first classes by name."""
    return [
        np.flatnonzero(manifest.label == label)[:per_row].tolist()
        for label in range(min(len(manifest.class_names), MAX_ROWS))
    ]


def contact_sheet(
    rows: Sequence[Sequence[UInt8]],
    image_size: tuple[int, int] = (TILE_SIDE, TILE_SIDE),
    channels: int = 3,
    *,
    per_row: int = PER_ROW,
    fit: Fit = "crop",
) -> UInt8:
    """Arrange images (H, W, C) of any sizes as rows of tiles, RGB. Whole pixels are enlarged to at
    least TILE_SIDE."""
    height, width = image_size
    blank = np.full((height, width, 3), 255, np.uint8)
    tiles: list[UInt8] = []
    for row in rows:
        made = [_tile(image, image_size, channels, fit) for image in row]
        tiles += [*made, *[blank] * per_row][:per_row]
    scale = math.ceil(TILE_SIDE / max(height, width))
    enlarged = np.stack(tiles).repeat(scale, axis=1).repeat(scale, axis=2)
    return image_grid(enlarged, per_row, padding=2)


def _tile(image: UInt8, image_size: tuple[int, int], channels: int, fit: Fit) -> UInt8:
    return with_channels(with_channels(resize_image(image, image_size, fit), channels), 3)
