"""Images to learn from: an archive of them (models.images.readers) becomes one uint8 memory map.

What is a class and what a split is decided in models.images.labels. Entries that cannot be used are
listed with the reason and do not fail the rest.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from host.folders import staged_folder
from models.arrays import Int64, UInt8
from models.fields import Invalid
from models.images.files import decode_image, image_grid, resize_image, with_channels
from models.images.labels import (
    UNSORTED,
    LabelRule,
    check_choice,
    decide_labels,
    is_label_file,
    may_hold_labels,
)
from models.images.readers import ArchiveLimits, Entry, read_entries

MIN_SIDE = 8


@dataclass(frozen=True)
class ArchiveSummary:
    """The content of an archive. `classes` counts images per class, and is empty without classes;
    `splits` counts images per split, and is empty where all are for training; `labels` is the rule
    that both follow. `sizes` has the 20 most common (height, width), `rejected` the first rejected
    entries with their reasons. `digest` is the sha256 of the file and, unless the choice of labels
    is "auto", of that choice."""

    digest: str
    num_images: int
    channels: int
    classes: dict[str, int]
    splits: dict[str, int]
    labels: LabelRule
    warnings: list[str]
    sizes: list[dict[str, int]]
    rejected: list[dict[str, str]]
    num_rejected: int


@dataclass(frozen=True)
class Dataset:
    """Images (N, H, W, C), and labels (N,) into `class_names`, all 0 without classes. `set_apart`
    are the positions of the images that the archive has for validation and tests."""

    images: UInt8
    labels: Int64
    class_names: tuple[str, ...]
    set_apart: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))


def inspect_archive(
    path: Path, limits: ArchiveLimits | None = None, choice: str = "auto"
) -> ArchiveSummary:
    """Decode every image once and count. `choice` says which labels are meant
    (models.images.labels).

    Raises Invalid if the file is not an archive, is damaged, exceeds the limits, holds fewer than
    two usable images, or has no labels of that choice.
    """
    limits = limits or ArchiveLimits()
    check_choice(choice)
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

    for entry in read_entries(path, limits):
        image, reason = _usable(entry, limits)
        if image is not None:
            images.append(replace(entry, data=None))
            sizes[image.shape[:2]] += 1
            grey = grey and image.shape[2] == 1
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
        digest=_digest(path, choice),
        num_images=len(images),
        channels=1 if grey else 3,
        classes=labels.counts,
        splits=labels.split_counts,
        labels=labels.rule,
        warnings=list(labels.warnings),
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
    rule: LabelRule | None = None,
) -> Dataset:
    """Write the archive's usable images at one size to `folder`, which appears whole or not at all.
    `rule` is that of its ArchiveSummary; without one the classes are decided anew.

    The images of a zip come in the order of their names, those of a tar in the tar's own. OSError
    (a full disk) leaves nothing behind.
    """
    limits = limits or ArchiveLimits()
    with staged_folder(folder) as part:
        _write(archive, part, image_size, channels, limits, rule)
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
    side: int = 64,
    per_class: int = 8,
    rule: LabelRule | None = None,
) -> UInt8:
    """Return the first images of each class in rows of `per_class`, RGB; at most 20 classes.

    `class_names` and `rule` are those that inspect_archive found; no names, if all images are of
    one kind.
    """
    limits = ArchiveLimits()
    rows: dict[str, list[UInt8]] = {}
    entries = list(read_entries(archive, limits, read=False))
    names = [entry.name for entry in entries]
    classes = _known_classes(archive, entries, class_names, rule or LabelRule(), limits)
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
) -> None:
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (_count(archive, limits), *size, channels),
    }
    entries: list[Entry] = []
    files = LabelFiles(rule.choice if rule else "auto", limits)
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
    with (folder / "images.npy").open("wb") as stored:
        np.lib.format.write_array_header_1_0(stored, header)
        for entry in read_entries(archive, limits):
            image, _ = _usable(entry, limits)
            if image is not None:
                stored.write(with_channels(resize_image(image, size), channels).tobytes())
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


def _count(archive: Path, limits: ArchiveLimits) -> int:
    return sum(_usable(entry, limits)[0] is not None for entry in read_entries(archive, limits))


def _digest(path: Path, choice: str) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if choice != "auto":  # other labels make another dataset
        digest.update(f" labels={choice}".encode())
    return digest.hexdigest()
