"""The index of a part: what is in an archive, a row for each usable image, in reading order.

An archive never changes once it is uploaded, so an image is named by its archive and its row. The
index is written once, beside the archive; listings, edits and single files are read from it.
"""

import gzip
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from models.arrays import Int64
from models.images.fingerprints import Fingerprints
from models.images.labels import SPLIT_NAMES, SplitName
from models.images.readers import Place

FORMAT = 1


@dataclass(frozen=True)
class Index:
    """Columns of equal length, N. `names` are those of the entries, `frames` number the pictures of
    one entry, `shapes` (N, 3) are (height, width, channels), `classes` and `splits` are those that
    the labels gave, `sha256` are those of the entries' bytes, in hexadecimal. `places` say where
    the entries lie in the archive; None if it can only be read from its beginning. `warnings` are
    those of the upload, without those that follow from the counts. `fingerprints` are in a file of
    their own, as large as all others together; None in an index that was read."""

    names: Sequence[str]
    frames: Sequence[int]
    shapes: Int64
    classes: Sequence[str]
    splits: Sequence[SplitName]
    sha256: Sequence[str]
    places: Sequence[Place] | None
    warnings: Sequence[str]
    fingerprints: Fingerprints | None = None

    def __len__(self) -> int:
        return len(self.names)

    def to_bytes(self) -> bytes:
        """Return the compressed file; the same index gives the same bytes on any one host."""
        class_names = sorted(set(self.classes))
        number = {name: i for i, name in enumerate(class_names)}
        columns = {
            "format": FORMAT,
            "names": list(self.names),
            "frames": list(self.frames),
            "shapes": self.shapes.tolist(),
            "class_names": class_names,
            "classes": [number[name] for name in self.classes],
            "splits": [SPLIT_NAMES.index(split) for split in self.splits],
            "sha256": list(self.sha256),
            "places": None if self.places is None else list(self.places),
            "warnings": list(self.warnings),
        }
        return packed(columns)

    @classmethod
    def from_bytes(cls, content: bytes) -> "Index":
        columns = unpacked(content)
        class_names, places = columns["class_names"], columns["places"]
        return cls(
            names=columns["names"],
            frames=columns["frames"],
            shapes=np.array(columns["shapes"], np.int64).reshape(-1, 3),
            classes=[class_names[i] for i in columns["classes"]],
            splits=[SPLIT_NAMES[i] for i in columns["splits"]],
            sha256=columns["sha256"],
            places=None if places is None else [Place(*place) for place in places],
            warnings=columns["warnings"],
        )


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def packed(document: object) -> bytes:
    """Return compressed JSON, without a date."""
    return gzip.compress(canonical(document), 6, mtime=0)


def unpacked(content: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(gzip.decompress(content))
    return document


def canonical(document: object) -> bytes:
    """Return the one JSON text of a document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
