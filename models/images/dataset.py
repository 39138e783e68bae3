"""Images to learn from: an archive of them (models.images.readers) becomes one uint8 memory map.

Folders are classes: the first folder of an entry's path, after a folder that all entries share is
dropped. If some images lie in folders and others do not, the others' class is "unsorted". Entries
that cannot be used are listed with the reason and do not fail the rest.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from host.folders import staged_folder
from models.arrays import Int64, UInt8
from models.fields import Invalid
from models.images.files import image_grid, resize_image, with_channels
from models.images.formats import Fit, Reading
from models.images.readers import ArchiveLimits, Entry, read_entries
from models.images.reading import Picture, WideValues, read_pictures

MIN_SIDE = 8
TILE_SIDE = 64  # pixels of a contact sheet's tiles, at least
UNSORTED = "unsorted"


@dataclass(frozen=True)
class ArchiveSummary:
    """The content of an archive. `classes` counts images per class, and is empty without folders;
    `sizes` has the 20 most common (height, width), `rejected` the first rejected entries with their
    reasons. `digest` is the sha256 of the archive, or of this and of how its files are read where
    that is not the default; `reading` has the levels found, and `warnings` are sentences."""

    digest: str
    num_images: int
    channels: int
    classes: dict[str, int]
    sizes: list[dict[str, int]]
    rejected: list[dict[str, str]]
    num_rejected: int
    reading: Reading
    warnings: list[str]


@dataclass(frozen=True)
class Dataset:
    """Images (N, H, W, C), and labels (N,) into `class_names`, all 0 without classes."""

    images: UInt8
    labels: Int64
    class_names: tuple[str, ...]


def inspect_archive(
    path: Path, limits: ArchiveLimits | None = None, reading: Reading | None = None
) -> ArchiveSummary:
    """Decode every image once and count.

    Raises Invalid if the file is not an archive, is damaged, exceeds the limits, or holds fewer
    than two usable images.
    """
    limits, reading = limits or ArchiveLimits(), reading or Reading()
    wide = WideValues()
    rejected: list[dict[str, str]] = []
    num_rejected, grey = 0, True
    sizes: Counter[tuple[int, int]] = Counter()
    labels: list[tuple[str, ...]] = []
    for entry, picture, reason in _pictures(path, limits, reading):
        if picture is None:
            num_rejected += 1
            if len(rejected) < limits.max_rejected_listed:
                rejected.append({"name": entry.name[:200], "reason": reason})
            continue
        wide.add(picture)
        labels.append(entry.label)
        height, width, channels = picture.values.shape
        sizes[height, width] += 1
        grey = grey and channels == 1
    if len(labels) < 2:
        first = f"; the first: {rejected[0]['name']}: {rejected[0]['reason']}" if rejected else ""
        raise Invalid.because(
            f"the archive holds {len(labels)} usable images, at least 2 are needed; "
            f"{num_rejected} entries were rejected{first}"
        )
    classes = Counter(_class_names_of(labels))
    return ArchiveSummary(
        digest=_digest(path, reading),
        num_images=len(labels),
        channels=1 if grey else 3,
        classes={} if set(classes) == {UNSORTED} else dict(sorted(classes.items())),
        sizes=[
            {"height": h, "width": w, "count": count} for (h, w), count in sizes.most_common(20)
        ],
        rejected=rejected,
        num_rejected=num_rejected,
        reading=replace(reading, levels=wide.levels(reading.range)),
        warnings=[warning] if (warning := wide.warning(reading.range)) else [],
    )


def prepare(
    archive: Path,
    folder: Path,
    image_size: tuple[int, int],
    channels: int,
    limits: ArchiveLimits | None = None,
    *,
    fit: Fit = "crop",
    reading: Reading | None = None,
) -> Dataset:
    """Write the archive's usable images at one size to `folder`, which appears whole or not at all.

    `reading` is that of the archive's summary, `fit` how images of another shape come to the size.
    The images of a zip come in the order of their names, those of a tar in the tar's own. OSError
    (a full disk) leaves nothing behind.
    """
    limits, reading = limits or ArchiveLimits(), reading or Reading()
    with staged_folder(folder) as part:
        header = {
            "descr": "|u1",
            "fortran_order": False,
            "shape": (_count(archive, limits, reading), *image_size, channels),
        }
        labels: list[tuple[str, ...]] = []
        # Written, not mapped: on a full disk a write fails with an error, a mapped page with a
        # signal.
        with (part / "images.npy").open("wb") as stored:
            np.lib.format.write_array_header_1_0(stored, header)
            for entry, picture, _ in _pictures(archive, limits, reading):
                if picture is not None:
                    image = resize_image(picture.to_uint8(reading), image_size, fit)
                    stored.write(with_channels(image, channels).tobytes())
                    labels.append(entry.label)
        _write_labels(part, labels)
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
    archive: Path,
    class_names: Sequence[str],
    image_size: tuple[int, int] = (TILE_SIDE, TILE_SIDE),
    channels: int = 3,
    *,
    per_class: int = 8,
    fit: Fit = "crop",
    reading: Reading | None = None,
) -> UInt8:
    """Return the first images of each class in rows of `per_class`, RGB; at most 20 classes.

    They are shown as a network of this size sees them, with whole pixels enlarged to at least
    TILE_SIDE. `class_names` are those that inspect_archive found; none, if all images are of one
    kind.
    """
    limits, reading = ArchiveLimits(), reading or Reading()
    rows: dict[str, list[UInt8]] = {}
    entries = list(read_entries(archive, limits, read=False))
    names = [entry.name for entry in entries]
    classes = _known_classes([entry.label for entry in entries], class_names)
    class_of = dict(zip(names, classes, strict=True))
    wanted = sorted(class_names or [UNSORTED])[:20]
    only = {name for name in names if class_of[name] in wanted}
    for entry, picture, _ in _pictures(archive, limits, reading, only):
        row = rows.setdefault(class_of[entry.name], [])
        if len(row) == per_class:
            if all(len(rows.get(name, ())) == per_class for name in wanted):
                break
            continue
        if picture is not None:
            image = resize_image(picture.to_uint8(reading), image_size, fit)
            row.append(with_channels(with_channels(image, channels), 3))
    height, width = image_size
    blank = np.full((height, width, 3), 255, np.uint8)
    tiles = np.stack(
        [
            tile
            for name in wanted
            if rows.get(name)
            for tile in islice([*rows[name], *[blank] * per_class], per_class)
        ]
    )
    scale = math.ceil(TILE_SIDE / max(height, width))
    return image_grid(tiles.repeat(scale, axis=1).repeat(scale, axis=2), per_class, padding=2)


# Entries -----------------------------------------------------------------------------------------


def _pictures(
    path: Path, limits: ArchiveLimits, reading: Reading, only: set[str] | None = None
) -> Iterator[tuple[Entry, Picture | None, str]]:
    """Yield each picture with its entry, or None and the reason why the entry, or the rest of its
    frames, cannot be used.

    Raises Invalid as read_entries, and where the frames are more than the images allowed.
    """
    count = 0
    for entry in read_entries(path, limits, only=only):
        if entry.data is None:
            yield entry, None, entry.reason
            continue
        try:
            for picture in read_pictures(entry.data, limits.max_pixels, reading.frames):
                height, width = picture.values.shape[:2]
                if min(height, width) < MIN_SIDE:
                    raise Invalid.because(
                        f"it is {height} x {width} pixels; each side must have at least {MIN_SIDE}"
                    )
                yield entry, picture, ""
                count += 1
        except Invalid as error:
            yield entry, None, str(error)
        if count > limits.max_images:
            raise Invalid.because(
                f"the archive has more than {limits.max_images} images, with all their frames"
            )


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


def _write_labels(folder: Path, labels: Sequence[tuple[str, ...]]) -> None:
    class_of = _class_names_of(labels)
    class_names = sorted(set(class_of))
    indices = np.array([class_names.index(name) for name in class_of], dtype=np.int64)
    np.save(folder / "labels.npy", indices)
    facts = {"class_names": [] if class_names == [UNSORTED] else class_names}
    (folder / "dataset.json").write_text(json.dumps(facts))


def _count(archive: Path, limits: ArchiveLimits, reading: Reading) -> int:
    return sum(picture is not None for _, picture, _ in _pictures(archive, limits, reading))


def _digest(path: Path, reading: Reading) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if reading == Reading():
        return digest
    return hashlib.sha256(json.dumps([digest, asdict(reading)]).encode()).hexdigest()
