"""Images to learn from: an archive of them (models.images.readers) becomes one uint8 memory map.

Folders are classes: the first folder of an entry's path, after a folder that all entries share is
dropped. If some images lie in folders and others do not, the others' class is "unsorted". Entries
that cannot be used are listed with the reason and do not fail the rest.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from host.folders import staged_folder
from models.arrays import Int64, UInt8
from models.fields import Invalid
from models.images.files import decode_image, image_grid, resize_image, with_channels
from models.images.readers import ArchiveLimits, Entry, read_entries

MIN_SIDE = 8
UNSORTED = "unsorted"


@dataclass(frozen=True)
class ArchiveSummary:
    """The content of an archive. `classes` counts images per class, and is empty without folders;
    `sizes` has the 20 most common (height, width), `rejected` the first rejected entries with their
    reasons."""

    digest: str
    num_images: int
    channels: int
    classes: dict[str, int]
    sizes: list[dict[str, int]]
    rejected: list[dict[str, str]]
    num_rejected: int


@dataclass(frozen=True)
class Dataset:
    """Images (N, H, W, C), and labels (N,) into `class_names`, all 0 without classes."""

    images: UInt8
    labels: Int64
    class_names: tuple[str, ...]


def inspect_archive(path: Path, limits: ArchiveLimits | None = None) -> ArchiveSummary:
    """Decode every image once and count.

    Raises Invalid if the file is not an archive, is damaged, exceeds the limits, or holds fewer
    than two usable images.
    """
    limits = limits or ArchiveLimits()
    rejected: list[dict[str, str]] = []
    num_rejected, grey = 0, True
    sizes: Counter[tuple[int, int]] = Counter()
    labels: list[tuple[str, ...]] = []
    for entry in read_entries(path, limits):
        image, reason = _usable(entry, limits)
        if image is None:
            num_rejected += 1
            if len(rejected) < limits.max_rejected_listed:
                rejected.append({"name": entry.name[:200], "reason": reason})
            continue
        labels.append(entry.label)
        sizes[image.shape[:2]] += 1
        grey = grey and image.shape[2] == 1
    if len(labels) < 2:
        first = f"; the first: {rejected[0]['name']}: {rejected[0]['reason']}" if rejected else ""
        raise Invalid.because(
            f"the archive holds {len(labels)} usable images, at least 2 are needed; "
            f"{num_rejected} entries were rejected{first}"
        )
    classes = Counter(_class_names_of(labels))
    return ArchiveSummary(
        digest=_digest(path),
        num_images=len(labels),
        channels=1 if grey else 3,
        classes={} if set(classes) == {UNSORTED} else dict(sorted(classes.items())),
        sizes=[
            {"height": h, "width": w, "count": count} for (h, w), count in sizes.most_common(20)
        ],
        rejected=rejected,
        num_rejected=num_rejected,
    )


def prepare(
    archive: Path,
    folder: Path,
    image_size: tuple[int, int],
    channels: int,
    limits: ArchiveLimits | None = None,
) -> Dataset:
    """Write the archive's usable images at one size to `folder`, which appears whole or not at all.

    The images of a zip come in the order of their names, those of a tar in the tar's own. OSError
    (a full disk) leaves nothing behind.
    """
    limits = limits or ArchiveLimits()
    with staged_folder(folder) as part:
        _write(archive, part, image_size, channels, limits)
    return open_dataset(folder)


def open_dataset(folder: Path) -> Dataset:
    """Open a folder that `prepare` wrote; the images are mapped, not read."""
    facts = json.loads((folder / "dataset.json").read_text())
    return Dataset(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        class_names=tuple(facts["class_names"]),
    )


def contact_sheet(
    archive: Path, class_names: Sequence[str], side: int = 64, per_class: int = 8
) -> UInt8:
    """Return the first images of each class in rows of `per_class`, RGB; at most 20 classes.

    `class_names` are those that inspect_archive found; none, if all images are of one kind.
    """
    limits = ArchiveLimits()
    rows: dict[str, list[UInt8]] = {}
    entries = list(read_entries(archive, limits, read=False))
    names = [entry.name for entry in entries]
    classes = _known_classes([entry.label for entry in entries], class_names)
    class_of = dict(zip(names, classes, strict=True))
    wanted = sorted(class_names or [UNSORTED])[:20]
    for entry in read_entries(archive, limits, only={n for n in names if class_of[n] in wanted}):
        row = rows.setdefault(class_of[entry.name], [])
        if len(row) == per_class:
            if all(len(rows.get(name, ())) == per_class for name in wanted):
                break
            continue
        image, _ = _usable(entry, limits)
        if image is not None:
            row.append(with_channels(resize_image(image, (side, side)), 3))
    blank = np.full((side, side, 3), 255, np.uint8)
    tiles = [
        tile
        for name in wanted
        if rows.get(name)
        for tile in islice([*rows[name], *[blank] * per_class], per_class)
    ]
    return image_grid(np.stack(tiles), per_class, padding=2)


# Entries -----------------------------------------------------------------------------------------


def _usable(entry: Entry, limits: ArchiveLimits) -> tuple[UInt8 | None, str]:
    """Return the entry's image, or None and the reason."""
    if entry.data is None:
        return None, entry.reason
    try:
        image = decode_image(entry.data, max_pixels=limits.max_pixels)
    except Invalid as error:
        return None, str(error)
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        return None, f"it is {height} x {width} pixels; each side must have at least {MIN_SIDE}"
    return image, ""


def _class_names_of(labels: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the class of each entry by its label."""
    while labels and all(labels) and len({label[0] for label in labels}) == 1:
        labels = [label[1:] for label in labels]  # a folder around everything is not a class
    return [label[0] if label else UNSORTED for label in labels]


def _known_classes(labels: Sequence[tuple[str, ...]], class_names: Sequence[str]) -> list[str]:
    """Return the class of each entry, of which some may be unusable: their folders do not count."""
    if not class_names:
        return [UNSORTED] * len(labels)
    named = set(class_names) - {UNSORTED}
    levels = list(zip_longest(*labels, fillvalue=""))
    depth = next((d for d, folders in enumerate(levels) if named <= set(folders)), 0)
    return [label[depth] if len(label) > depth else UNSORTED for label in labels]


# Writing ------------------------------------------------------------------------------------------


def _write(
    archive: Path, folder: Path, size: tuple[int, int], channels: int, limits: ArchiveLimits
) -> None:
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (_count(archive, limits), *size, channels),
    }
    labels: list[tuple[str, ...]] = []
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
    with (folder / "images.npy").open("wb") as stored:
        np.lib.format.write_array_header_1_0(stored, header)
        for entry in read_entries(archive, limits):
            image, _ = _usable(entry, limits)
            if image is not None:
                stored.write(with_channels(resize_image(image, size), channels).tobytes())
                labels.append(entry.label)
    class_of = _class_names_of(labels)
    class_names = sorted(set(class_of))
    indices = np.array([class_names.index(name) for name in class_of], dtype=np.int64)
    np.save(folder / "labels.npy", indices)
    facts = {"class_names": [] if class_names == [UNSORTED] else class_names}
    (folder / "dataset.json").write_text(json.dumps(facts))


def _count(archive: Path, limits: ArchiveLimits) -> int:
    return sum(_usable(entry, limits)[0] is not None for entry in read_entries(archive, limits))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
