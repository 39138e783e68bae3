"""Images to learn from: an archive of them (models.images.readers) becomes one uint8 memory map.

What is a class and what a split is decided in models.images.labels. Entries that cannot be used are
listed with the reason and do not fail the rest.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from host.folders import staged_folder
from models.arrays import Int64, UInt8
from models.fields import Invalid
from models.images.files import image_grid, resize_image, with_channels
from models.images.formats import Fit, Reading
from models.images.labels import (
    UNSORTED,
    LabelRule,
    check_choice,
    decide_labels,
    is_label_file,
    may_hold_labels,
)
from models.images.readers import ArchiveLimits, Entry, read_entries
from models.images.reading import Picture, WideValues, read_pictures

MIN_SIDE = 8
TILE_SIDE = 64  # pixels of a contact sheet's tiles, at least


@dataclass(frozen=True)
class ArchiveSummary:
    """The content of an archive. `classes` counts images per class, and is empty without classes;
    `splits` counts images per split, and is empty where all are for training; `labels` is the rule
    that both follow. `sizes` has the 20 most common (height, width), `rejected` the first rejected
    entries with their reasons. `digest` is the sha256 of the file and, where they are not the
    default, of the choice of labels and of how its files are read; `reading` has the levels found,
    and `warnings` are sentences."""

    digest: str
    num_images: int
    channels: int
    classes: dict[str, int]
    splits: dict[str, int]
    labels: LabelRule
    sizes: list[dict[str, int]]
    rejected: list[dict[str, str]]
    num_rejected: int
    reading: Reading
    warnings: list[str]


@dataclass(frozen=True)
class Dataset:
    """Images (N, H, W, C), and labels (N,) into `class_names`, all 0 without classes. `set_apart`
    are the positions of the images that the archive has for validation and tests."""

    images: UInt8
    labels: Int64
    class_names: tuple[str, ...]
    set_apart: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))


def inspect_archive(
    path: Path,
    limits: ArchiveLimits | None = None,
    *,
    choice: str = "auto",
    reading: Reading | None = None,
    on_picture: Callable[[Picture], None] | None = None,
) -> ArchiveSummary:
    """Decode every image once and count. `choice` says which labels are meant
    (models.images.labels); `on_picture` gets each usable picture, in their order.

    Raises Invalid if the file is not an archive, is damaged, exceeds the limits, holds fewer than
    two usable images, or has no labels of that choice.
    """
    limits, reading = limits or ArchiveLimits(), reading or Reading()
    check_choice(choice)
    wide = WideValues()
    rejected: list[dict[str, str]] = []
    num_rejected, grey = 0, True
    sizes: Counter[tuple[int, int]] = Counter()
    files = LabelFiles(choice, limits)
    images: list[Entry] = []

    def reject(name: str, reason: str) -> None:
        nonlocal num_rejected
        num_rejected += 1
        if len(rejected) < limits.max_rejected_listed:
            hint = (
                f"; labels={name} reads its labels"
                if len(name) <= 200 and may_hold_labels(name)
                else ""
            )
            rejected.append({"name": name[:200], "reason": reason + hint})

    for entry, picture, reason in _pictures(path, limits, reading):
        if picture is not None:
            wide.add(picture)
            if on_picture:
                on_picture(picture)
            images.append(replace(entry, data=None))
            height, width, channels = picture.values.shape
            sizes[height, width] += 1
            grey = grey and channels == 1
        elif not files.take(entry, reason):
            reject(entry.name, reason)
    if len(images) >= 2:
        labels = decide_labels(images, files.contents, choice)
        for name in sorted(files.contents):
            if not is_label_file(name, len(files.contents[name]), labels.rule.choice):
                reject(name, files.reasons[name])
    else:
        first = f"; the first: {rejected[0]['name']}: {rejected[0]['reason']}" if rejected else ""
        raise Invalid.because(
            f"the archive holds {len(images)} usable images, at least 2 are needed; "
            f"{num_rejected} entries were rejected{first}"
        )
    return ArchiveSummary(
        digest=_digest(path, choice, reading),
        num_images=len(images),
        channels=1 if grey else 3,
        classes=labels.counts,
        splits=labels.split_counts,
        labels=labels.rule,
        sizes=[
            {"height": h, "width": w, "count": count} for (h, w), count in sizes.most_common(20)
        ],
        rejected=rejected,
        num_rejected=num_rejected,
        reading=replace(reading, levels=wide.levels(reading.range)),
        warnings=[*labels.warnings, *filter(None, [wide.warning(reading.range)])],
    )


def prepare(
    archive: Path,
    folder: Path,
    image_size: tuple[int, int],
    channels: int,
    limits: ArchiveLimits | None = None,
    *,
    rule: LabelRule | None = None,
    fit: Fit = "crop",
    reading: Reading | None = None,
) -> Dataset:
    """Write the archive's usable images at one size to `folder`, which appears whole or not at all.
    `rule` is that of its ArchiveSummary; without one the classes are decided anew.

    `reading` is that of the archive's summary, `fit` how images of another shape come to the size.
    The images of a zip come in the order of their names, those of a tar in the tar's own. OSError
    (a full disk) leaves nothing behind.
    """
    limits, reading = limits or ArchiveLimits(), reading or Reading()
    with staged_folder(folder) as part:
        _write(archive, part, image_size, channels, limits, rule, fit, reading)
    return open_dataset(folder)


def open_dataset(folder: Path) -> Dataset:
    """Open a folder that `prepare` wrote; the images are mapped, not read."""
    facts = json.loads((folder / "dataset.json").read_text())
    return Dataset(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        class_names=tuple(facts["class_names"]),
        set_apart=np.load(folder / "set_apart.npy"),
    )


def contact_sheet(
    archive: Path,
    class_names: Sequence[str],
    image_size: tuple[int, int] = (TILE_SIDE, TILE_SIDE),
    channels: int = 3,
    *,
    per_class: int = 8,
    rule: LabelRule | None = None,
    fit: Fit = "crop",
    reading: Reading | None = None,
) -> UInt8:
    """Return the first images of each class in rows of `per_class`, RGB; at most 20 classes.

    They are shown as a network of this size sees them, with whole pixels enlarged to at least
    TILE_SIDE. `class_names`, `rule` and `reading` are those that inspect_archive found; no names,
    if all images are of one kind.
    """
    limits, reading = ArchiveLimits(), reading or Reading()
    rows: dict[str, list[UInt8]] = {}
    entries = list(read_entries(archive, limits, read=False))
    names = [entry.name for entry in entries]
    classes = _known_classes(archive, entries, class_names, rule or LabelRule(), limits)
    class_of = dict(zip(names, classes, strict=True))
    wanted = sorted(class_names or [UNSORTED])[:20]
    only = {name for name in names if class_of[name] in wanted}
    for entry in read_entries(archive, limits, only=only):
        row = rows.setdefault(class_of[entry.name], [])
        if len(row) == per_class:
            if all(len(rows.get(name, ())) == per_class for name in wanted):
                break
            continue
        for picture, _ in islice(_pictures_of(entry, limits, reading), per_class - len(row)):
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
    path: Path, limits: ArchiveLimits, reading: Reading
) -> Iterator[tuple[Entry, Picture | None, str]]:
    """Yield each picture with its entry, or None and the reason why the entry, or the rest of its
    frames, cannot be used.

    Raises Invalid as read_entries, and where the frames are more than the images allowed.
    """
    count = 0
    for entry in read_entries(path, limits):
        for picture, reason in _pictures_of(entry, limits, reading):
            yield entry, picture, reason
            count += picture is not None
        if count > limits.max_images:
            raise Invalid.because(
                f"the archive has more than {limits.max_images} images, with all their frames"
            )


def _pictures_of(
    entry: Entry, limits: ArchiveLimits, reading: Reading
) -> Iterator[tuple[Picture | None, str]]:
    if entry.data is None:
        yield None, entry.reason
        return
    try:
        for picture in read_pictures(entry.data, limits.max_pixels, reading.frames):
            height, width = picture.values.shape[:2]
            if min(height, width) < MIN_SIDE:
                raise Invalid.because(
                    f"it is {height} x {width} pixels; each side must have at least {MIN_SIDE}"
                )
            yield picture, ""
    except Invalid as error:
        yield None, str(error)


@dataclass
class LabelFiles:
    """The label files of an archive that a choice of labels may need."""

    choice: str
    limits: ArchiveLimits
    contents: dict[str, bytes] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    total: int = 0

    def take(self, entry: Entry, reason: str = "") -> bool:
        """Keep the entry if it is one of them, and the reason why it is not an image."""
        if entry.data is None or not is_label_file(entry.name, len(entry.data), self.choice):
            return False
        self.contents[entry.name], self.reasons[entry.name] = entry.data, reason
        self.total += len(entry.data)
        if self.total > self.limits.max_label_bytes:
            raise Invalid.because(
                f"the archive has more than {self.limits.max_label_bytes} bytes of labels"
            )
        return True


def _known_classes(
    archive: Path,
    entries: Sequence[Entry],
    class_names: Sequence[str],
    rule: LabelRule,
    limits: ArchiveLimits,
) -> list[str]:
    """Return the class of each entry, of which some may be unusable: their folders do not count."""
    if not class_names:
        return [UNSORTED] * len(entries)
    if rule.source == "folders" and rule.depth is None:
        named = set(class_names) - {UNSORTED}
        levels = enumerate(zip_longest(*(entry.label for entry in entries), fillvalue=""))
        rule = replace(rule, depth=next((d for d, names in levels if named <= set(names)), 0))
    files = LabelFiles(rule.choice, limits)
    wanted = {entry.name for entry in entries if is_label_file(entry.name, 0, rule.choice)}
    for entry in read_entries(archive, limits, only=wanted) if wanted else ():
        files.take(entry)
    return rule.apply(entries, files.contents)[0]


# Writing ------------------------------------------------------------------------------------------


def _write(
    archive: Path,
    folder: Path,
    size: tuple[int, int],
    channels: int,
    limits: ArchiveLimits,
    rule: LabelRule | None,
    fit: Fit,
    reading: Reading,
) -> None:
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (_count(archive, limits, reading), *size, channels),
    }
    entries: list[Entry] = []
    files = LabelFiles(rule.choice if rule else "auto", limits)
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
    with (folder / "images.npy").open("wb") as stored:
        np.lib.format.write_array_header_1_0(stored, header)
        for entry, picture, _ in _pictures(archive, limits, reading):
            if picture is not None:
                image = resize_image(picture.to_uint8(reading), size, fit)
                stored.write(with_channels(image, channels).tobytes())
                entries.append(replace(entry, data=None))
            else:
                files.take(entry)
    rule = rule or decide_labels(entries, files.contents).rule
    class_of, split_of = rule.apply(entries, files.contents)
    class_names = sorted(set(class_of))
    index_of = {name: i for i, name in enumerate(class_names)}
    np.save(folder / "labels.npy", np.array([index_of[name] for name in class_of], np.int64))
    apart = np.flatnonzero([split != "train" for split in split_of])
    np.save(folder / "set_apart.npy", apart.astype(np.int64))
    facts = {"class_names": [] if class_names == [UNSORTED] else class_names}
    (folder / "dataset.json").write_text(json.dumps(facts))


def _count(archive: Path, limits: ArchiveLimits, reading: Reading) -> int:
    return sum(picture is not None for _, picture, _ in _pictures(archive, limits, reading))


def _digest(path: Path, choice: str, reading: Reading) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if reading != Reading():  # another reading, or other labels, make another dataset
        digest.update(f" reading={json.dumps(asdict(reading))}".encode())
    if choice != "auto":
        digest.update(f" labels={choice}".encode())
    return digest.hexdigest()
