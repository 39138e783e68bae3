"""Images to learn from: a zip or tar of them becomes one uint8 memory map.

Folders are classes: the first folder of an entry's path, after a folder that all entries share is
dropped. Where some images lie in folders and others do not, the others' class is "unsorted". What
cannot be used is listed with the reason and does not fail the rest. No entry is ever written to a
path that the archive names.
"""

import errno
import hashlib
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from host.folders import staged_folder
from models.fields import Invalid
from models.images.files import MAX_PIXELS, decode_image, image_grid, resize_image, with_channels

MIN_SIDE = 8
UNSORTED = "unsorted"
_ARCHIVE_SUFFIXES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,  # a version or a compression that does not exist
    OverflowError,
    UnicodeError,
)
_DAMAGED = "the archive is truncated or damaged"
_CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class ArchiveLimits:
    max_images: int = 1_000_000
    max_pixels: int = MAX_PIXELS
    max_file_bytes: int = 64 * 2**20
    max_total_bytes: int = 64 * 2**30
    max_rejected_listed: int = 100


@dataclass(frozen=True)
class ArchiveSummary:
    """What an archive holds. `classes` counts images per class, empty where there are no folders;
    `sizes` has the 20 most common (height, width); `rejected` the first few with their reasons."""

    digest: str
    num_images: int
    channels: int
    classes: dict[str, int]
    sizes: list[dict[str, int]]
    rejected: list[dict[str, str]]
    num_rejected: int


@dataclass(frozen=True)
class Dataset:
    """`images` uint8 (N, H, W, C); `labels` int64 (N,) into `class_names`, or 0 without any."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


def inspect_archive(path: Path, limits: ArchiveLimits | None = None) -> ArchiveSummary:
    """Decode every image once and count. Raises Invalid where the file is no archive, is
    damaged, exceeds the limits, or holds fewer than two usable images."""
    limits = limits or ArchiveLimits()
    rejected: list[dict[str, str]] = []
    num_rejected, grey = 0, True
    sizes: Counter[tuple[int, int]] = Counter()
    names: list[str] = []
    for entry in _entries(path, limits):
        image, reason = _usable(entry, limits)
        if image is None:
            num_rejected += 1
            if len(rejected) < limits.max_rejected_listed:
                rejected.append({"name": entry.name[:200], "reason": reason})
            continue
        names.append(entry.name)
        sizes[image.shape[:2]] += 1
        grey = grey and image.shape[2] == 1
    if len(names) < 2:
        first = f"; the first: {rejected[0]['name']}: {rejected[0]['reason']}" if rejected else ""
        raise Invalid.because(
            f"the archive holds {len(names)} usable images, at least 2 are needed; "
            f"{num_rejected} entries were rejected{first}"
        )
    classes = Counter(_class_names_of(names))
    return ArchiveSummary(
        digest=_digest(path),
        num_images=len(names),
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
    """Write the archive's usable images at one size to `folder`, which appears whole or not at all,
    those of a zip in the order of their names, those of a tar in its own. OSError (a full disk)
    leaves nothing behind."""
    limits = limits or ArchiveLimits()
    with staged_folder(folder) as part:
        _write(archive, part, image_size, channels, limits)
    return open_dataset(folder)


def open_dataset(folder: Path) -> Dataset:
    facts = json.loads((folder / "dataset.json").read_text())
    return Dataset(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy"),
        class_names=tuple(facts["class_names"]),
    )


def contact_sheet(archive: Path, side: int = 64, per_class: int = 8) -> NDArray[np.uint8]:
    """The first images of each class in rows of `per_class`, RGB; at most 20 classes."""
    limits = ArchiveLimits()
    rows: dict[str, list[NDArray[np.uint8]]] = {}
    names = [entry.name for entry in _entries(archive, limits, read=False)]
    class_of = dict(zip(names, _class_names_of(names), strict=True))
    wanted = sorted(set(class_of.values()))[:20]
    for entry in _entries(archive, limits, only={n for n in names if class_of[n] in wanted}):
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


# Entries of an archive ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """`data` is None where the entry is refused unread, and `reason` says why."""

    name: str
    data: bytes | None
    reason: str = ""


def _entries(
    path: Path, limits: ArchiveLimits, *, read: bool = True, only: set[str] | None = None
) -> Iterator[Entry]:
    try:
        if tarfile.is_tarfile(path):  # asked first: a tar that ends with a zip looks like one
            entries = _tar_entries(path, limits, read, only)
        elif zipfile.is_zipfile(path):
            entries = _zip_entries(path, limits, read, only)
        else:
            raise Invalid.because("the file is neither a zip nor a tar archive")
        count, total = 0, 0
        for entry in entries:
            count, total = count + 1, total + len(entry.data or b"")
            if count > limits.max_images:
                raise Invalid.because(f"the archive has more than {limits.max_images} entries")
            if total > limits.max_total_bytes:
                raise Invalid.because(
                    f"the archive unpacks to more than {limits.max_total_bytes} bytes"
                )
            yield entry
    except Invalid:
        raise
    except (*_DAMAGE, ValueError):  # numbers in headers that are none
        raise Invalid.because(_DAMAGED) from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # Not the disk's: a decompressor's complaint, or an offset before the file's beginning.
        raise Invalid.because(_DAMAGED) from None


def _zip_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda i: i.filename):
            if info.filename.endswith("/") or _is_clutter(info.filename):
                continue
            if only is not None and info.filename not in only:
                continue
            reason = _refusal(info.filename, info.file_size, limits)
            if info.external_attr >> 28 == 0o12:
                reason = "it is a symbolic link"
            elif info.flag_bits & 1:
                reason = "it is encrypted"
            if reason or not read:
                yield Entry(info.filename, None, reason)
                continue
            try:
                with archive.open(info) as file:
                    yield _read(info.filename, file, limits)
            except _DAMAGE:
                yield Entry(info.filename, None, "it is damaged in the archive")


def _tar_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    with tarfile.open(path) as archive:
        for info in archive:  # in file order: a compressed tar cannot be read in any other
            name = _text(info.name)
            if info.isdir() or _is_clutter(name):
                continue
            if only is not None and name not in only:
                continue
            reason = _refusal(name, info.size, limits)
            if info.issym() or info.islnk():
                reason = "it is a link"
            elif not info.isfile():
                reason = "it is not a regular file"
            if reason or not read:
                yield Entry(name, None, reason)
                continue
            file = archive.extractfile(info)
            assert file is not None
            yield _read(name, file, limits)


def _text(name: str) -> str:
    """A tar's names are bytes in no agreed encoding, and a database takes neither what is not
    UTF-8 nor a NUL."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "�")


def _read(name: str, file: IO[bytes], limits: ArchiveLimits) -> Entry:
    """The declared size may lie, so no more than the limit is ever read."""
    data = file.read(limits.max_file_bytes + 1)
    if len(data) > limits.max_file_bytes:
        return Entry(name, None, f"it is larger than {limits.max_file_bytes} bytes")
    return Entry(name, data)


def _refusal(name: str, size: int, limits: ArchiveLimits) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "its path leaves the archive"
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        return "it is an archive inside the archive"
    if size > limits.max_file_bytes:
        return f"it is larger than {limits.max_file_bytes} bytes"
    return ""


def _is_clutter(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or any(part in _CLUTTER for part in parts)


def _usable(entry: Entry, limits: ArchiveLimits) -> tuple[NDArray[np.uint8] | None, str]:
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


def _class_names_of(names: list[str]) -> list[str]:
    """The class of each entry, by its path."""
    paths = [PurePosixPath(name.replace("\\", "/")).parts[:-1] for name in names]
    while paths and all(paths) and len({p[0] for p in paths}) == 1:
        paths = [p[1:] for p in paths]  # a folder around everything is no class
    return [p[0] if p else UNSORTED for p in paths]


# Writing ------------------------------------------------------------------------------------------


def _write(
    archive: Path, folder: Path, size: tuple[int, int], channels: int, limits: ArchiveLimits
) -> None:
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (_count(archive, limits), *size, channels),
    }
    names: list[str] = []
    # Written, not mapped: a full disk is an error to a writer and death to who maps a file.
    with (folder / "images.npy").open("wb") as stored:
        np.lib.format.write_array_header_1_0(stored, header)
        for entry in _entries(archive, limits):
            image, _ = _usable(entry, limits)
            if image is not None:
                stored.write(with_channels(resize_image(image, size), channels).tobytes())
                names.append(entry.name)
    class_of = _class_names_of(names)
    class_names = sorted(set(class_of))
    labels = np.array([class_names.index(name) for name in class_of], dtype=np.int64)
    np.save(folder / "labels.npy", labels)
    facts: dict[str, Any] = {"class_names": [] if class_names == [UNSORTED] else class_names}
    (folder / "dataset.json").write_text(json.dumps(facts))


def _count(archive: Path, limits: ArchiveLimits) -> int:
    return sum(_usable(entry, limits)[0] is not None for entry in _entries(archive, limits))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
