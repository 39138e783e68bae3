"""Sources of images: the kinds of file that a dataset may come from, a row of READERS each.

A reader yields entries: a name, a label and the bytes of an image file. Entries that cannot be used
are yielded with a reason instead of bytes, and do not fail the rest. No entry is ever written to a
path that the archive names. Which labels are classes is decided in models.images.labels.
"""

import errno
import importlib
import io
import json
import lzma
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from models.fields import Invalid
from models.images.reading import MAX_PIXELS

PARQUET = "parquet"

_ARCHIVE_SUFFIXES = {
    *(".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
    ".parquet",
}
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
# Folders and files of operating systems, NAS and sync programs, in lower case.
_CLUTTER = {
    "__macosx",
    "icon\r",
    "network trash folder",
    "temporary items",
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "picasa.ini",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "@eadir",  # Synology
    "#recycle",
    "#snapshot",
    "@recycle",  # QNAP
    "@recently-snapshot",
    "@__thumb",
    "sync.ffs_db",  # FreeFileSync
    "sync.ffs_lock",
}
_PARQUET_ROWS = 16  # read at once
_MAX_TEXT = 1000  # characters kept of a column's value
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
DIRECT = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # methods of members that have a Place
_COMPRESSIONS = {
    9: "Deflate64, as Windows does for large archives",
    93: "Zstandard",
    95: "XZ",
    97: "WavPack",
    98: "PPMd",
}


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds of an archive; `max_pixels` and `max_file_bytes` are those of one entry."""

    max_images: int = 1_000_000
    max_pixels: int = MAX_PIXELS
    max_file_bytes: int = 64 * 2**20
    max_total_bytes: int = 64 * 2**30
    max_label_bytes: int = 256 * 2**20  # of all label files or columns together
    max_row_group_bytes: int = 2 * 2**30  # of a parquet table
    max_rejected_listed: int = 100


class Place(NamedTuple):
    """The offset and the length of an entry in its archive: those of a zip's member, behind a local
    header that begins there, if `packed`, else those of the file itself."""

    offset: int
    length: int
    packed: bool


@dataclass(frozen=True)
class Entry:
    """A file of an archive. `label` names its folders, the outermost first, or the class that the
    archive gives it; it is empty without any. `data` is None if the entry is refused unread, and
    `reason` then says why. `columns` are the others of a table's row, without empty ones. `place`
    is where the data can be read alone (models.images.parts), None if nowhere."""

    name: str
    label: tuple[str, ...]
    data: bytes | None
    reason: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    place: Place | None = None


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
        count, total, texts = 0, 0, 0
        for entry in _reader_of(path).entries(path, limits, read, only):
            count, total = count + 1, total + len(entry.data or b"")
            texts += sum(map(len, entry.columns.values()))
            if count > limits.max_images:
                raise Invalid.because(f"the archive has more than {limits.max_images} entries")
            if total > limits.max_total_bytes:
                raise Invalid.because(
                    f"the archive unpacks to more than {limits.max_total_bytes} bytes"
                )
            if texts > limits.max_label_bytes:
                raise Invalid.because(
                    f"the table has more than {limits.max_label_bytes} characters of labels"
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


def is_archive(path: Path) -> bool:
    return any(reader.recognises(path) for reader in READERS)


def _reader_of(path: Path) -> Reader:
    for reader in READERS:
        if reader.recognises(path):
            return reader
    raise Invalid.because(
        f"the file is neither {' nor '.join(f'a {r.name}' for r in READERS)} archive"
    )


def path_of(name: str) -> PurePosixPath:
    """Return an entry's path; Windows' separators become those of other systems."""
    return PurePosixPath(name.replace("\\", "/"))


def text_of(value: object) -> str:
    """Return a label as text; empty if it is none: a list, an object or nothing."""
    if isinstance(value, bool):
        return str(value).lower()
    if value != value:  # NaN, as pandas writes a gap
        return ""
    if isinstance(value, float) and value.is_integer():  # what pandas makes of 3 beside a gap
        value = int(value)
    return clean(str(value)) if isinstance(value, str | int | float) else ""


def clean(text: str) -> str:
    """Return text that every database takes: valid UTF-8 without NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "�").strip()


# Zip ----------------------------------------------------------------------------------------------


def _is_zip(path: Path) -> bool:
    return zipfile.is_zipfile(path) and not tarfile.is_tarfile(path)  # a tar may end with a zip


def _zip_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    with zipfile.ZipFile(path) as archive:
        for info in sorted(archive.infolist(), key=lambda i: i.filename):
            if info.filename.endswith("/") or is_hidden(info.filename):
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
                place = None
                if info.compress_type in DIRECT:
                    place = Place(info.header_offset, info.compress_size, True)
                with archive.open(info) as file:
                    yield _read(info.filename, file, limits, place)
            except NotImplementedError:
                yield _unread(info.filename, _compressed_by(info.compress_type))
            except _DAMAGE:
                yield _unread(info.filename, "it is damaged in the archive")


def _compressed_by(method: int) -> str:
    how = _COMPRESSIONS.get(method, f"method {method} of the zip format")
    return f"it is compressed by {how}, which cannot be read here; pack the archive anew by Deflate"


# Tar ----------------------------------------------------------------------------------------------


def _tar_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    with _open_tar(path) as archive:
        for info in archive:  # in file order: a compressed tar cannot be read in any other
            name = _text(info.name)
            if info.isdir() or is_hidden(name):
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
            plain = isinstance(archive.fileobj, io.BufferedReader) and info.sparse is None
            place = Place(info.offset_data, info.size, False) if plain else None
            yield _read(name, file, limits, place)


def _is_tar(path: Path) -> bool:
    return _is_zstd(path) or tarfile.is_tarfile(path)


def _is_zstd(path: Path) -> bool:
    return _begins_with(path, _ZSTD_MAGIC)


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    if not _is_zstd(path):
        with tarfile.open(path) as archive:
            yield archive
        return
    zstd: Any = importlib.import_module(
        "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    )
    try:
        with zstd.open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            yield archive
    except zstd.ZstdError:
        raise Invalid.because(_DAMAGED) from None


def _text(name: str) -> str:
    """Return a tar's name as text. It is bytes in no agreed encoding; the database rejects invalid
    UTF-8 and NUL."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\0", "�")


# Parquet ------------------------------------------------------------------------------------------


def _is_parquet(path: Path) -> bool:
    return _begins_with(path, b"PAR1")


def _parquet_entries(
    path: Path, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    """Yield the rows of a table with a column of images, as Hugging Face's datasets have it: bytes,
    or a struct of `bytes` and `path`. Integers of a ClassLabel become the names in the schema."""
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise Invalid.because(
            "the file is a parquet table, which needs pyarrow on the service's side: "
            "pip install 'diffusion-service[parquet]'"
        ) from None
    try:
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=2**20) as table:
            yield from _rows_of_parquet(table, arrow, limits, read, only)
    except arrow.ArrowException:
        raise Invalid.because(_DAMAGED) from None


def _rows_of_parquet(
    table: Any, arrow: Any, limits: ArchiveLimits, read: bool, only: set[str] | None
) -> Iterator[Entry]:
    schema = table.schema_arrow
    features = _features(schema)
    image = _image_column(schema, features, arrow.types)
    names = {name: feature.get("names") for name, feature in features.items()}
    scalar = ("is_integer", "is_string", "is_large_string", "is_boolean", "is_dictionary")
    labels = [f.name for f in schema if any(getattr(arrow.types, s)(f.type) for s in scalar)]
    if table.metadata.num_rows > limits.max_images:
        raise Invalid.because(f"the archive has more than {limits.max_images} entries")
    for group in range(table.metadata.num_row_groups):
        size = table.metadata.row_group(group).total_byte_size
        if size > limits.max_row_group_bytes:
            raise Invalid.because(
                f"a row group of the table unpacks to {size} bytes; at most "
                f"{limits.max_row_group_bytes} are possible"
            )
    columns = [*labels, image] if read else labels
    at = 0
    for batch in table.iter_batches(_PARQUET_ROWS, columns=columns, use_threads=False):
        told = {name: batch.column(name).to_pylist() for name in labels}
        for row in range(batch.num_rows):
            name = f"row {at}"
            at += 1
            if only is not None and name not in only:
                continue
            texts = {c: _label_text(v[row], names.get(c)) for c, v in told.items()}
            told_here = {c: text for c, text in texts.items() if text}
            data, reason = None, ""
            if read:
                data, reason = _image_bytes(batch.column(image)[row], limits)
            yield Entry(name, (), data, reason, told_here)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Return Hugging Face's description of the columns, as far as the schema has one."""
    try:
        known = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: f for name, f in known.items() if isinstance(f, dict)}
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        return {}


def _image_column(schema: Any, features: dict[str, dict[str, Any]], types: Any) -> str:
    def has_images(column: Any) -> bool:
        kind = column.type
        if types.is_struct(kind):
            kind = next(
                (kind[i].type for i in range(kind.num_fields) if kind[i].name == "bytes"), None
            )
        return kind is not None and (types.is_binary(kind) or types.is_large_binary(kind))

    found: list[str] = [column.name for column in schema if has_images(column)]
    if not found:
        raise Invalid.because(
            "the table has no column of images: of bytes, or a struct with a field 'bytes'; "
            f"its columns are {', '.join(schema.names)[:500]}"
        )
    return min(found, key=lambda name: features.get(name, {}).get("_type") != "Image")


def _image_bytes(value: Any, limits: ArchiveLimits) -> tuple[bytes | None, str]:
    content = value.as_py()
    data = content.get("bytes") if isinstance(content, dict) else content
    if data is None:
        return None, "the table has no bytes of it"
    if len(data) > limits.max_file_bytes:
        return None, f"it is larger than {limits.max_file_bytes} bytes"
    return data, ""


def _label_text(value: object, names: object) -> str:
    """Return a label as text, by the names of its classes; empty if there is none, as for -1 of a
    ClassLabel."""
    if not isinstance(names, list) or not isinstance(value, int):
        return text_of(value)[:_MAX_TEXT]
    return text_of(names[value]) if 0 <= value < len(names) else ""


READERS = (
    Reader("zip", _is_zip, _zip_entries),
    Reader("tar", _is_tar, _tar_entries),
    Reader(PARQUET, _is_parquet, _parquet_entries),
)


# Entries of both ----------------------------------------------------------------------------------


def _read(name: str, file: IO[bytes], limits: ArchiveLimits, place: Place | None) -> Entry:
    """Read an entry, but no more than the limit: the declared size may lie."""
    data = file.read(limits.max_file_bytes + 1)
    if len(data) > limits.max_file_bytes:
        return _unread(name, f"it is larger than {limits.max_file_bytes} bytes")
    return Entry(name, _folders(name), data, place=place)


def _unread(name: str, reason: str) -> Entry:
    return Entry(name, _folders(name), None, reason)


def _folders(name: str) -> tuple[str, ...]:
    return path_of(name).parts[:-1]


def _refusal(name: str, size: int, limits: ArchiveLimits) -> str:
    path = path_of(name)
    if path.is_absolute() or ".." in path.parts:
        return "its path leaves the archive"
    if path.suffix.lower() in _ARCHIVE_SUFFIXES:
        return "it is an archive inside the archive"
    if size > limits.max_file_bytes:
        return f"it is larger than {limits.max_file_bytes} bytes"
    return ""


def is_hidden(name: str) -> bool:
    """Return whether a file is hidden, or one of those that systems and programs leave."""
    parts = path_of(name).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or any(part.lower() in _CLUTTER for part in parts)
