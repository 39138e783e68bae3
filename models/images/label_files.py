"""Files of labels in an archive: a row of columns for each image.

A file of labels is one of

    dataset.json      {"labels": [["00000/img00000000.png", 6], ...]}, as StyleGAN and EDM have it
    metadata.jsonl    {"file_name": "1.png", "label": "cat"} in each line (Hugging Face)
    metadata.csv, labels.csv    a row for each image; one column names its file
    1.cls, 1.json     beside 1.png (webdataset)

and `labels=FILE:COLUMN` names any other of these kinds. The rows of a table of images (parquet)
carry their columns themselves.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from models.images.readers import PARQUET, Entry, clean, path_of, text_of

LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv", "labels.csv")
SIDECARS = (".cls", ".json")  # as suffixes of files beside the images
SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
MAX_SIDECAR_BYTES = 2**16
MAX_REFERENCE = 4096  # characters of the name of an image in a label file

Row = dict[str, str]  # a column's name to its value, without empty ones


def rows_from(source: str, images: Sequence[Entry], files: Mapping[str, bytes]) -> Sequence[Row]:
    """Return a row for each image, empty where the source says nothing of it. Raises ValueError for
    a file that cannot be read."""
    if source == PARQUET:
        return [dict(image.columns) for image in images]
    if source in SIDECARS:
        return _rows_beside(source, images, files)
    found: list[Row] = [{} for _ in images]
    places = _Places.of(images)
    for name in files_of(source, files):
        rows = list(_parsed(name, files[name]))
        column = _file_column(rows, partial(places.find, path_of(name).parent))
        for row in rows:
            at = places.find(path_of(name).parent, row.get(column, ""))
            if at is not None:
                found[at] = {key: value for key, value in row.items() if key != column}
    return found


def _rows_beside(suffix: str, images: Sequence[Entry], files: Mapping[str, bytes]) -> list[Row]:
    told: dict[str, Row] = {}
    wanted = {_key(image.name) for image in images}
    for name, data in files.items():
        if path_of(name).suffix != suffix or (key := _key(name)) not in wanted:
            continue
        if suffix == ".cls":
            text = clean(data.decode("utf-8", "replace"))
            told[key] = {"cls": text} if text else {}
            continue
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError):
            continue
        told[key] = _row(fields) if isinstance(fields, dict) else {}
    return [told.get(_key(image.name), {}) for image in images]


def _key(name: str) -> str:
    """Return what files of one sample share: the path up to the first dot of the file's name."""
    path = path_of(name)
    return str(path.parent / path.name.partition(".")[0])


def files_of(source: str, files: Mapping[str, bytes]) -> list[str]:
    return sorted(name for name in files if is_named(name, source))


def is_named(name: str, source: str) -> bool:
    return f"/{path_of(name)}".endswith(f"/{path_of(source)}")


def has_rows(source: str, files: Mapping[str, bytes]) -> bool:
    return any(any(True for _ in _parsed(name, files[name])) for name in files_of(source, files))


def _parsed(name: str, data: bytes) -> Iterator[Row]:
    suffix = path_of(name).suffix.lower()
    try:
        text = data.decode("utf-8-sig")
        if suffix == ".json":
            yield from _rows_of_json(json.loads(text))
        elif suffix == ".jsonl":
            for line in filter(str.strip, text.split("\n")):
                fields = json.loads(line)
                if not isinstance(fields, dict):
                    raise ValueError("a line is not an object")
                yield _row(fields)
        else:
            delimiter = "\t" if suffix == ".tsv" else ","
            for fields in csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter):
                yield _row(fields)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg}, line {error.lineno})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _rows_of_json(document: object) -> Iterator[Row]:
    """Read {"labels": [[file, label], ...]}, {"labels": {file: label}}, {file: label} or a list of
    objects."""
    if isinstance(document, dict) and "labels" in document:
        document = document["labels"]
    if isinstance(document, dict):
        document = [[name, label] for name, label in document.items()]
    if not isinstance(document, list | None):
        raise ValueError("it is neither a list nor an object")
    for item in document or ():
        if isinstance(item, dict):
            yield _row(item)
        elif isinstance(item, list) and len(item) == 2:
            yield _row({"file_name": item[0], "label": item[1]})
        else:
            raise ValueError("an item of it is neither an object nor a pair of file and label")


def _row(fields: Mapping[object, object]) -> Row:
    texts = ((str(name), text_of(value)) for name, value in fields.items())
    return {clean(name): text for name, text in texts if text}


# Which image a row is about -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Places:
    """The images by their whole path, and by name and stem where those are unique."""

    paths: Sequence[PurePosixPath]
    by_path: Mapping[PurePosixPath, int]
    by_name: Mapping[str, int | None]
    by_stem: Mapping[str, int | None]

    @classmethod
    def of(cls, images: Sequence[Entry]) -> "_Places":
        paths = [path_of(image.name) for image in images]
        return cls(
            paths,
            {path: at for at, path in enumerate(paths)},
            _unique([path.name for path in paths]),
            _unique([path.stem for path in paths]),
        )

    def find(self, folder: PurePosixPath, reference: str) -> int | None:
        """Return the image that a label file in `folder` calls `reference`, None if there is none.

        The reference is relative to the file or to the archive, or has more or fewer outer folders
        than the image; without any folder it may leave out the suffix.
        """
        wanted = path_of(reference)
        for path in (folder / wanted, wanted):
            if path in self.by_path:
                return self.by_path[path]
        at = self.by_name.get(wanted.name)
        if at is not None:
            inner = zip(reversed(wanted.parts), reversed(self.paths[at].parts), strict=False)
            return at if all(a == b for a, b in inner) else None
        return self.by_stem.get(wanted.name) if len(wanted.parts) == 1 else None


def _unique(names: Sequence[str]) -> dict[str, int | None]:
    """Return the position of each name, None where it occurs twice."""
    found: dict[str, int | None] = {}
    for at, name in enumerate(names):
        found[name] = None if name in found else at
    return found


def _file_column(rows: Sequence[Row], find: Callable[[str], int | None]) -> str:
    """Return the column that names the images: file_name, else the one that names most of them."""
    found = Counter(
        name
        for row in rows
        for name, value in row.items()
        if len(value) <= MAX_REFERENCE and find(value) is not None
    )
    if found["file_name"]:
        return "file_name"
    return max(found, key=lambda name: found[name], default="")
