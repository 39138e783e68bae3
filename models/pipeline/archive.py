"""Zip archives of models, and the checks of those that callers upload."""

import errno
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from models.fields import Invalid

_NOT_A_ZIP = "the file is not a zip archive, or it is damaged"
_MAX_FILES = 64
_MAX_NAME = 200  # characters of a path in an archive
_SUFFIXES = {".json", ".safetensors", ".md", ".txt"}


def write_model_archive(folder: Path, archive: Path) -> None:
    """Write a zip of the folder, not compressed: weights do not shrink. The same files give the
    same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                entry = archive_entry(path.relative_to(folder).as_posix())
                entry.file_size = path.stat().st_size  # zipfile decides by it between its formats
                with path.open("rb") as source, file.open(entry, "w") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)


def archive_entry(name: str) -> zipfile.ZipInfo:
    """Return a file that everybody may read, without a time: the same content gives the same
    archive."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    return entry


def extract_model_archive(archive: Path, folder: Path, *, max_bytes: int = 8 * 2**30) -> None:
    """Unpack an uploaded model; one folder around everything is dropped.

    Raises Invalid for anything but plain files with the suffixes of a model, inside the archive's
    own tree. Files that were unpacked until then stay for the caller to remove.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.filename.endswith("/")]
            names = _checked_names(infos, max_bytes)
            left = max_bytes
            for info, name in zip(infos, names, strict=True):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, target.open("xb") as sink:
                    while chunk := source.read(1 << 20):
                        left -= len(chunk)
                        if left < 0:
                            raise Invalid.because(
                                f"the archive unpacks to more than {max_bytes} bytes"
                            )
                        sink.write(chunk)
    except Invalid:
        raise
    except (
        ValueError,  # malformed numbers and names in headers
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        NotImplementedError,  # a compression that zipfile lacks
        RuntimeError,  # encrypted
        FileExistsError,  # a name twice, or once as a file and once as a folder
        NotADirectoryError,
    ):
        raise Invalid.because(_NOT_A_ZIP) from None
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Invalid.because(_NOT_A_ZIP) from None  # an offset before the file's beginning


def _checked_names(infos: list[zipfile.ZipInfo], max_bytes: int) -> list[str]:
    """Return the path that each file is unpacked to, relative to the model's folder."""
    if not infos:
        raise Invalid.because("the archive is empty")
    if len(infos) > _MAX_FILES:
        raise Invalid.because(
            f"the archive has {len(infos)} files; at most {_MAX_FILES} are allowed"
        )
    if sum(info.file_size for info in infos) > max_bytes:
        raise Invalid.because(f"the archive unpacks to more than {max_bytes} bytes")
    paths = [_checked_path(info) for info in infos]
    tops = {path.parts[0] for path in paths}
    if len(tops) == 1 and tops != {"unet"} and all(len(path.parts) > 1 for path in paths):
        paths = [path.relative_to(path.parts[0]) for path in paths]
    return [str(path) for path in paths]


def _checked_path(info: zipfile.ZipInfo) -> PurePosixPath:
    path = PurePosixPath(info.filename.replace("\\", "/"))
    shown = info.filename[:_MAX_NAME]
    if len(info.filename) > _MAX_NAME:
        raise Invalid.because(f"the path {shown!r}... is longer than {_MAX_NAME} characters")
    if path.is_absolute() or ".." in path.parts:
        raise Invalid.because(f"the path {shown!r} leaves the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Invalid.because(f"{shown!r} is a symbolic link")
    if path.suffix.lower() not in _SUFFIXES:
        raise Invalid.because(
            f"{shown!r} is no part of a model; allowed are {', '.join(sorted(_SUFFIXES))} "
            "(weights as safetensors only)"
        )
    return path
