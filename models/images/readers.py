"""Sources of images: the kinds of file that a dataset may come from, a row of READERS each.

A reader yields entries: a name, a label and the bytes of an image file. Entries that cannot be used
are yielded with a reason instead of bytes, and do not fail the rest. No entry is ever written to a
path that the archive names.
"""

import errno
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from models.fields import Invalid
from models.images.reading import MAX_PIXELS

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
_HIDDEN_FILES = {"__MACOSX", "Thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds of an archive; `max_pixels` and `max_file_bytes` are those of one entry."""

    max_images: int = 1_000_000
    max_pixels: int = MAX_PIXELS
    max_file_bytes: int = 64 * 2**20
    max_total_bytes: int = 64 * 2**30
    max_rejected_listed: int = 100


@dataclass(frozen=True)
class Entry:
    """A file of an archive. `label` names its folders, the outermost first, or the class that the
    archive gives it; it is empty without any. `data` is None if the entry is refused unread, and
    `reason` then says why."""

    name: str
    label: tuple[str, ...]
    data: bytes | None
    reason: str = ""


@dataclass(frozen=True)
class Reader:
    """A kind of archive: its name in messages, how its files are recognised by their content, and
    how they are read.

    `entries(path, limits, read, only)` yields the entries; without `read` it leaves their data
    unread, and `only` restricts it to these names.
    """

    name: str
    recognises: Callable[[Path], bool]
    entries: Callable[[Path, ArchiveLimits, bool, set[str] | None], Iterator[Entry]]


def read_entries(
    path: Path, limits: ArchiveLimits, *, read: bool = True, only: set[str] | None = None
) -> Iterator[Entry]:
    """Yield the entries of an archive of any kind.

    Raises Invalid if the file is of no kind in READERS, is damaged, or exceeds the limits.
    """
    try:
        count, total = 0, 0
        for entry in _reader_of(path).entries(path, limits, read, only):
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
    except (*_DAMAGE, ValueError):  # malformed numbers in headers
        raise Invalid.because(_DAMAGED) from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):
            raise
        # Not the disk's: a decompressor's complaint, or an offset before the file's beginning.
        raise Invalid.because(_DAMAGED) from None


def _reader_of(path: Path) -> Reader:
    for reader in READERS:
        if reader.recognises(path):
            return reader
    raise Invalid.because(
        f"the file is neither {' nor '.join(f'a {r.name}' for r in READERS)} archive"
    )


# Zip ----------------------------------------------------------------------------------------------


def _is_zip(path: Path) -> bool:
    return zipfile.is_zipfile(path) and not tarfile.is_tarfile(path)  # a tar may end with a zip


def _zip_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda i: i.filename):
            if info.filename.endswith("/") or _is_hidden(info.filename):
                continue
            if only is not None and info.filename not in only:
                continue
            reason = _refusal(info.filename, info.file_size, limits)
            if info.external_attr >> 28 == 0o12:
                reason = "it is a symbolic link"
            elif info.flag_bits & 1:
                reason = "it is encrypted"
            if reason or not read:
                yield _unread(info.filename, reason)
                continue
            try:
                with archive.open(info) as file:
                    yield _read(info.filename, file, limits)
            except _DAMAGE:
                yield _unread(info.filename, "it is damaged in the archive")


# Tar ----------------------------------------------------------------------------------------------


def _tar_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    with tarfile.open(path) as archive:
        for info in archive:  # in file order: a compressed tar cannot be read in any other
            name = _text(info.name)
            if info.isdir() or _is_hidden(name):
                continue
            if only is not None and name not in only:
                continue
            reason = _refusal(name, info.size, limits)
            if info.issym() or info.islnk():
                reason = "it is a link"
            elif not info.isfile():
                reason = "it is not a regular file"
            if reason or not read:
                yield _unread(name, reason)
                continue
            file = archive.extractfile(info)
            assert file is not None
            yield _read(name, file, limits)


def _text(name: str) -> str:
    """Return a tar's name as text. It is bytes in no agreed encoding; the database rejects invalid
    UTF-8 and NUL."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "�")


READERS = (
    Reader("zip", _is_zip, _zip_entries),
    Reader("tar", tarfile.is_tarfile, _tar_entries),
)


# Entries of both ----------------------------------------------------------------------------------


def _read(name: str, file: IO[bytes], limits: ArchiveLimits) -> Entry:
    """Read an entry, but no more than the limit: the declared size may lie."""
    data = file.read(limits.max_file_bytes + 1)
    if len(data) > limits.max_file_bytes:
        return _unread(name, f"it is larger than {limits.max_file_bytes} bytes")
    return Entry(name, _folders(name), data)


def _unread(name: str, reason: str) -> Entry:
    return Entry(name, _folders(name), None, reason)


def _folders(name: str) -> tuple[str, ...]:
    return PurePosixPath(name.replace("\\", "/")).parts[:-1]


def _refusal(name: str, size: int, limits: ArchiveLimits) -> str:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        return "its path leaves the archive"
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        return "it is an archive inside the archive"
    if size > limits.max_file_bytes:
        return f"it is larger than {limits.max_file_bytes} bytes"
    return ""


def _is_hidden(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or any(part in _HIDDEN_FILES for part in parts)
