"""The manifest of a version: which images of which parts a dataset has, and their classes.

A part is an archive as it was uploaded (models.images.index). An edit makes a new manifest from one
and leaves the archives alone. The order of the images is that of the parts, and within each of the
rows, however the version came about: equal images, classes and splits from equal parts have the
same digest.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from models.arrays import Int64
from models.fields import Invalid
from models.images.index import Index, canonical, packed, unpacked
from models.images.labels import (
    MAX_CLASS_NAME,
    MAX_CLASSES,
    SPLIT_NAMES,
    UNSORTED,
    SplitName,
    count_warnings,
)
from models.images.readers import clean

FORMAT = 1
MIN_IMAGES = 2  # of a version, to learn from
PREFIX = 12  # characters of a part's digest in the id of an image
MAX_ROWS = 2**32  # of a part
COMMON_SIZES = 20

_ID = re.compile(rf"([0-9a-f]{{{PREFIX}}})-(0|[1-9]\d{{0,8}})")
_TRAIN = SPLIT_NAMES.index("train")


@dataclass(frozen=True)
class Changes:
    """An edit: images to remove, by their ids; images to move, by the class that they come to; and
    new names of classes. Where a name is taken, the two classes become one."""

    remove: Sequence[str] = ()
    move: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rename: Mapping[str, str] = field(default_factory=dict)

    def in_words(self) -> str:
        done = [
            *([f"removed {_images(len(self.remove))}"] if self.remove else []),
            *(f"moved {_images(len(ids))} to {name!r}" for name, ids in self.move.items()),
            *(f"renamed {old!r} to {new!r}" for old, new in self.rename.items()),
        ]
        return "; ".join(done[:10]) + (f"; and {len(done) - 10} more" if len(done) > 10 else "")


@dataclass(frozen=True)
class Manifest:
    """The images of a version, N, in order. `parts` are digests, in the order of their addition.

    For each image, `part` (N,) is the position of its part among them, `row` (N,) the row in the
    part's index, `label` (N,) the position of its class among `class_names`, which are sorted and
    all in use, and `split` (N,) the position of its split among SPLIT_NAMES."""

    parts: tuple[str, ...]
    part: Int64
    row: Int64
    class_names: tuple[str, ...]
    label: Int64
    split: Int64

    @classmethod
    def of(cls, digest: str, index: Index) -> "Manifest":
        """Return the first version: all images of one part, as its labels have them."""
        class_names = tuple(sorted(set(index.classes)))
        number = {name: i for i, name in enumerate(class_names)}
        split = {name: i for i, name in enumerate(SPLIT_NAMES)}
        return cls(
            (digest,),
            np.zeros(len(index), np.int64),
            np.arange(len(index)),
            class_names,
            np.array([number[name] for name in index.classes], np.int64),
            np.array([split[name] for name in index.splits], np.int64),
        )

    def __len__(self) -> int:
        return len(self.row)

    @property
    def classes(self) -> list[str]:
        """The class of each image."""
        return [self.class_names[i] for i in self.label.tolist()]

    @property
    def counts(self) -> dict[str, int]:
        """Images per class by name; empty without classes."""
        return _per_class(self, self.label)

    @property
    def set_apart(self) -> Int64:
        """The positions of the images that are not for training."""
        return np.flatnonzero(self.split != _TRAIN)

    def split_of(self, position: int) -> SplitName:
        return SPLIT_NAMES[int(self.split[position])]

    # Names ------------------------------------------------------------------------------------

    def id_of(self, position: int) -> str:
        return image_id(self.parts[self.part[position]], int(self.row[position]))

    def find(self, image: str) -> int | None:
        """Return the position of an image by its id, None if the version does not have it."""
        named = parse_id(image)
        if named is None:
            return None
        for number, digest in enumerate(self.parts):
            if digest.startswith(named[0]):
                key = number * MAX_ROWS + named[1]
                at = int(np.searchsorted(self._keys, key))
                return at if at < len(self) and self._keys[at] == key else None
        return None

    @cached_property
    def _keys(self) -> Int64:
        return self.part * MAX_ROWS + self.row  # ascending

    # Edits ------------------------------------------------------------------------------------

    def edited(self, changes: Changes) -> "Manifest":
        """Apply an edit. Raises Invalid for images and classes that the version does not have, for
        an image named twice, for names that no class can have, and if too few images are left."""
        removed = self._positions("remove", changes.remove)
        moved = {
            check_class("move", name): self._positions("move", ids)
            for name, ids in changes.move.items()
        }
        named = np.concatenate([removed, *moved.values()])
        if len(np.unique(named)) < len(named):
            raise Invalid.because("an image is named twice; it can be moved or removed once")
        for old, new in changes.rename.items():
            check_class("rename", new)
            if old not in self.class_names and old not in moved:
                raise Invalid("rename", old, f"there is no such class; {self._known_classes()}")
        classes = self.classes
        for name, positions in moved.items():
            for position in positions:
                classes[position] = name
        kept = np.ones(len(self), np.bool_)
        kept[removed] = False
        return self._with([changes.rename.get(name, name) for name in classes], kept)

    def with_part(self, digest: str, index: Index, classes: Sequence[str]) -> "Manifest":
        """Add the images of a part, in these classes. Those that the version has already stay as
        they are. Raises Invalid as `edited`."""
        if any(p[:PREFIX] == digest[:PREFIX] and p != digest for p in self.parts):
            raise Invalid.because("the archive's digest begins as that of another; pack it anew")
        parts = self.parts if digest in self.parts else (*self.parts, digest)
        number = parts.index(digest)
        new = np.setdiff1d(np.arange(len(index)), self.row[self.part == number])
        split = np.array([SPLIT_NAMES.index(name) for name in index.splits], np.int64)
        part = np.concatenate([self.part, np.full(len(new), number)])
        row = np.concatenate([self.row, new])
        order = np.lexsort([row, part])
        both = replace(
            self,
            parts=parts,
            part=part[order],
            row=row[order],
            split=np.concatenate([self.split, split[new]])[order],
        )
        added = [*self.classes, *(classes[i] for i in new)]
        return both._with([added[i] for i in order], np.ones(len(order), np.bool_))

    def _with(self, classes: Sequence[str], kept: NDArray[np.bool_]) -> "Manifest":
        """Return the version with these classes, and of its images only those that are kept."""
        left = int((self.split[kept] == _TRAIN).sum())
        if left < MIN_IMAGES:
            raise Invalid.because(
                f"{left} images to learn from would be left; at least {MIN_IMAGES} are needed"
            )
        stay = list(compress(classes, kept))
        names = tuple(sorted(set(stay)))
        if len(names) > MAX_CLASSES:
            raise Invalid.because(
                f"there would be {len(names)} classes; at most {MAX_CLASSES} are possible"
            )
        number = {name: i for i, name in enumerate(names)}
        used = np.unique(self.part[kept])
        return Manifest(
            tuple(self.parts[i] for i in used),
            np.searchsorted(used, self.part[kept]),
            self.row[kept],
            names,
            np.array([number[name] for name in stay], np.int64),
            self.split[kept],
        )

    def _positions(self, field: str, images: Sequence[str]) -> Int64:
        found: list[int] = []
        for image in images:
            position = self.find(image)
            if position is None:
                raise Invalid(field, image, "the version has no image of this id")
            found.append(position)
        return np.array(found, np.int64)

    def _known_classes(self) -> str:
        shown = ", ".join(self.class_names[:10])
        return f"there are {shown}{', ...' if len(self.class_names) > 10 else ''}"

    # Files ------------------------------------------------------------------------------------

    @cached_property
    def digest(self) -> str:
        """The sha256 of the manifest, in hexadecimal."""
        return hashlib.sha256(canonical(self._document())).hexdigest()

    def to_bytes(self) -> bytes:
        return packed(self._document())

    @classmethod
    def from_bytes(cls, content: bytes) -> "Manifest":
        document = unpacked(content)
        columns = [np.array(document[name], np.int64) for name in ("part", "row", "label", "split")]
        part, row, label, split = columns
        names = tuple(document["class_names"])
        return cls(tuple(document["parts"]), part, row, names, label, split)

    def _document(self) -> dict[str, object]:
        return {
            "format": FORMAT,
            "parts": list(self.parts),
            "class_names": list(self.class_names),
            **{name: getattr(self, name).tolist() for name in ("part", "row", "label", "split")},
        }


@dataclass(frozen=True)
class Contents:
    """What a version holds; the fields are those of an ArchiveSummary of the same name."""

    num_images: int
    channels: int
    classes: dict[str, int]
    splits: dict[str, int]
    sizes: list[dict[str, int]]
    warnings: list[str]

    @classmethod
    def of(cls, manifest: Manifest, indexes: Sequence[Index]) -> "Contents":
        """Count the images of a version; `indexes` are those of its parts."""
        shapes = np.concatenate([np.zeros((0, 3), np.int64), *(index.shapes for index in indexes)])
        starts = np.cumsum([0, *map(len, indexes)])
        shapes = shapes[starts[manifest.part] + manifest.row]
        sizes = Counter(map(tuple, shapes[:, :2].tolist()))
        splits = np.bincount(manifest.split, minlength=len(SPLIT_NAMES)).tolist()
        counts = manifest.counts
        learned = _per_class(manifest, manifest.label[manifest.split == _TRAIN])
        told = dict.fromkeys(warning for index in indexes for warning in index.warnings)
        return cls(
            num_images=len(manifest),
            channels=1 if (shapes[:, 2] == 1).all() else 3,
            classes=counts,
            splits={}
            if splits[_TRAIN] == len(manifest)
            else {name: n for name, n in zip(SPLIT_NAMES, splits, strict=True) if n},
            sizes=[
                {"height": height, "width": width, "count": count}
                for (height, width), count in sizes.most_common(COMMON_SIZES)
            ],
            warnings=[*told, *count_warnings(counts, learned)],
        )


def _per_class(manifest: Manifest, labels: Int64) -> dict[str, int]:
    """Return images per class; empty without classes."""
    if manifest.class_names == (UNSORTED,):
        return {}
    counts = np.bincount(labels, minlength=len(manifest.class_names)).tolist()
    return dict(zip(manifest.class_names, counts, strict=True))


def image_id(digest: str, row: int) -> str:
    return f"{digest[:PREFIX]}-{row}"


def parse_id(image: str) -> tuple[str, int] | None:
    """Return the beginning of the part's digest and the row, None if it is no id."""
    found = _ID.fullmatch(image)
    return (found[1], int(found[2])) if found else None


def check_class(field: str, name: str) -> str:
    """Return the name of a class. Raises Invalid if no class can have it."""
    if not 1 <= len(name) <= MAX_CLASS_NAME or clean(name) != name:
        raise Invalid(
            field,
            name[:MAX_CLASS_NAME],
            f"the name of a class has 1..{MAX_CLASS_NAME} characters, without spaces at its ends",
        )
    return name


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
