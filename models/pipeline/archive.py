"""Zip archives of models, and the checks of those that callers upload.

An upload is what people's tools pack: the model's folder, perhaps inside others, with files of the
system, pictures, logs, checkpoints and a pickle beside it. Only the model's own files are opened.
"""

import errno
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from models.fields import Invalid
from models.pipeline.folder import CONVERT, WEIGHTS

_NOT_A_ZIP = "the file is not a zip archive, or it is damaged"
_A_MODEL = (
    "a model is a diffusers folder, which has the config.json of a UNet2DModel with its weights as "
    "safetensors"
)
_MAX_FILES = 64  # of the model
_MAX_ENTRIES = 100_000  # of the archive
_MAX_NAME = 200  # characters of a path in an archive
_SUFFIXES = {".json", ".safetensors", ".md", ".txt"}
_NAMES = {"LICENSE", "NOTICE"}  # files without a suffix
_FOLDERS = {"", "unet", "scheduler"}
_PICKLES = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}


@dataclass(frozen=True)
class Skipped:
    """A file of an archive that is no part of the model, and was not opened."""

    name: str
    reason: str


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


def extract_model_archive(
    archive: Path, folder: Path, *, max_bytes: int = 8 * 2**30
) -> list[Skipped]:
    """Unpack an uploaded model without the folders around it, and return what was skipped.

    Raises Invalid where the archive has no model or several, or a file of the model is not a plain
    one inside the archive's own tree. Files that were unpacked until then stay for the caller to
    remove.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            files, skipped = _files_of_model(file.infolist())
            _check_size(files, max_bytes)
            left = max_bytes
            for info, path in files:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(info) as source, target.open("xb") as sink:
                    while chunk := source.read(1 << 20):
                        left -= len(chunk)
                        if left < 0:
                            raise Invalid.because(
                                f"the archive unpacks to more than {max_bytes} bytes"
                            )
                        sink.write(chunk)
            return skipped
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


# Which files are the model's ----------------------------------------------------------------------

Files = list[tuple[zipfile.ZipInfo, PurePosixPath]]  # with the path that each is unpacked to


def _files_of_model(infos: list[zipfile.ZipInfo]) -> tuple[Files, list[Skipped]]:
    """Tell the model's files, with their paths in its folder, from the others."""
    infos = [info for info in infos if not info.filename.endswith("/")]
    if not infos:
        raise Invalid.because("the archive is empty")
    if len(infos) > _MAX_ENTRIES:
        raise Invalid.because(
            f"the archive has {len(infos)} files; at most {_MAX_ENTRIES} are allowed"
        )
    reasons = {info.filename: _reason_by_name(_path(info)) for info in infos}
    kept = [(info, _checked_path(info)) for info in infos if not reasons[info.filename]]
    root = _root_of_model([path for _, path in kept])
    inside = [(info, path.relative_to(root)) for info, path in kept if root in path.parents]
    reasons |= {
        info.filename: f"outside of the model's folder, {str(root)!r}"
        for info, path in kept
        if root not in path.parents
    }
    folder = _weights_folder(path for _, path in inside)
    is_whole = PurePosixPath(folder, WEIGHTS) in {path for _, path in inside}
    reasons |= {info.filename: _reason_by_place(path, folder, is_whole) for info, path in inside}
    files = [(info, path) for info, path in inside if not reasons[info.filename]]
    _check_there_are_weights(files, reasons)
    skipped = [Skipped(name[:_MAX_NAME], reason) for name, reason in reasons.items() if reason]
    return files, skipped


def _reason_by_name(path: PurePosixPath) -> str:
    """Return why a file is skipped for its name or for a folder that it is in; empty if it is
    not."""
    if any(part == "__MACOSX" or (part[0] == "." and part != "..") for part in path.parts):
        return "a file of the system or of a tool"
    if path.suffix.lower() in _PICKLES:
        return "it may be a pickle, which is never opened"
    if path.suffix.lower() not in _SUFFIXES and path.name.upper() not in _NAMES:
        return "no part of a model"
    return ""


def _reason_by_place(path: PurePosixPath, folder: str, is_whole: bool) -> str:
    """Return why a file in the model's folder is skipped; empty if it is not. `folder` has the
    weights; `is_whole`: in the one file that needs no other."""
    parent = "" if path.parent == PurePosixPath() else str(path.parent)
    is_index = ".safetensors.index" in path.name
    is_of_weights = path.suffix.lower() == ".safetensors" or is_index
    if parent not in _FOLDERS or (is_of_weights and parent != folder):
        return "no part of a model"
    if is_of_weights and is_whole and path.name != WEIGHTS:
        return f"{WEIGHTS} is read instead"
    return ""


def _root_of_model(paths: list[PurePosixPath]) -> PurePosixPath:
    """Return the folder of the model: the one nearest to the top. Raises Invalid for several."""
    roots = {path.parent for path in paths if path.name == "model_index.json"}
    for path in paths:
        if path.name == "config.json":
            roots.add(path.parent.parent if path.parent.name == "unet" else path.parent)
    if not roots:  # what is missing is said by who reads the folder
        tops = {path.parts[0] for path in paths}
        is_wrapped = len(tops) == 1 and all(len(path.parts) > 1 for path in paths)
        return PurePosixPath(*tops) if is_wrapped and tops != {"unet"} else PurePosixPath()
    least = min(len(root.parts) for root in roots)
    first, *others = sorted(str(root) for root in roots if len(root.parts) == least)
    if others:
        raise Invalid.because(
            f"the archive has several models, in {first!r} and {others[0]!r}; send one of them"
        )
    return PurePosixPath(first)


def _weights_folder(paths: Iterable[PurePosixPath]) -> str:
    return "unet" if any(path.parts[0] == "unet" for path in paths) else ""


def _check_there_are_weights(files: Files, reasons: Mapping[str, str]) -> None:
    if not files:
        raise Invalid.because(f"no file of the archive is part of a model; {_A_MODEL}")
    if any(path.suffix.lower() == ".safetensors" for _, path in files):
        return
    for name in reasons:
        if PurePosixPath(name).suffix.lower() in _PICKLES:
            raise Invalid.because(
                f"weights are read from safetensors only; there is {name[:_MAX_NAME]!r}, which may "
                f"be a pickle: {CONVERT} makes a folder of it on your machine"
            )


# What an archive may hold -------------------------------------------------------------------------


def _check_size(files: Files, max_bytes: int) -> None:
    if len(files) > _MAX_FILES:
        raise Invalid.because(
            f"{len(files)} files of the archive could be the model's, at most {_MAX_FILES} may be; "
            f"{_A_MODEL}"
        )
    if sum(info.file_size for info, _ in files) > max_bytes:
        raise Invalid.because(f"the archive unpacks to more than {max_bytes} bytes")


def _path(info: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(info.filename.replace("\\", "/"))


def _checked_path(info: zipfile.ZipInfo) -> PurePosixPath:
    path, shown = _path(info), info.filename[:_MAX_NAME]
    if len(info.filename) > _MAX_NAME:
        raise Invalid.because(f"the path {shown!r}... is longer than {_MAX_NAME} characters")
    if path.is_absolute() or ".." in path.parts:
        raise Invalid.because(f"the path {shown!r} leaves the archive")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Invalid.because(f"{shown!r} is a symbolic link")
    return path
