"""Classes and splits of an archive's images, from its folders or from a file of labels in it.

`decide_labels` is plain data in and out: the listing and the bytes of the label files become a
class and a split for each image, with the rule that they follow and warnings of what looks odd.
`LabelRule.apply` gives the same from the rule alone.

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
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import PurePosixPath
from typing import Literal, get_args

from models.fields import Invalid
from models.images.readers import PARQUET, Entry, clean, path_of, text_of

UNSORTED = "unsorted"
KINDS = ("auto", "folders", "deepest-folder", "none")
FEW_IMAGES = 10  # of a class
MAX_CLASS_NAME = 200  # characters
MAX_CLASSES = 100_000
MAX_SPLIT_DEPTH = 16  # folders around and with that of the split: deeper ones are not looked at
MAX_REFERENCE = 4096  # characters of the name of an image in a label file

_LABEL_FILES = ("dataset.json", "metadata.jsonl", "metadata.csv", "labels.csv")
_SIDECARS = (".cls", ".json")  # as suffixes of files beside the images
_SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
_MAX_SIDECAR_BYTES = 2**16
_CLASS_COLUMNS = (
    "class_name",
    "label_name",
    "label",
    "labels",
    "class",
    "cls",
    "category",
    "target",
    "class_id",
    "label_id",
    "fine_label",
)
_SPLIT_COLUMN = "split"

SplitName = Literal["train", "val", "test"]
SPLIT_NAMES: tuple[SplitName, ...] = get_args(SplitName)
SPLITS: dict[str, SplitName] = {
    **dict.fromkeys(("train", "training", "trainset", "train_set"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "val_set", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "test_set", "eval"), "test"),
}

Row = dict[str, str]  # a column's name to its value, without empty ones


@dataclass(frozen=True)
class LabelRule:
    """How an image's class and split follow from its entry.

    `source` is "folders", "deepest-folder", "none", "parquet", a file of the archive, or ".cls" or
    ".json" for files beside the images; `column` is its column. The class by folders is the one at
    `depth`, counted without that of the split, which is at `split_depth`. A `depth` of None leaves
    out the folders that all images share.
    """

    source: str = "folders"
    column: str = ""
    depth: int | None = None
    split_depth: int | None = None

    @property
    def choice(self) -> str:
        """The rule as `labels=` names it."""
        if not self.column or self.source == ".cls":
            return self.source
        return f"{self.source}:{self.column}"

    def apply(
        self, images: Sequence[Entry], files: Mapping[str, bytes]
    ) -> tuple[list[str], list[SplitName]]:
        """Return the class and the split of each image. `files` are the archive's label files."""
        entries = _without_frames(images)
        rows = _rows_from(self.source, entries, files)
        return _apply(self, images, _rows_of_frames(rows, entries, images))


@dataclass(frozen=True)
class Labels:
    """The class and the split of each image, in the order of the images, by which rule, and
    warnings for people, a sentence each."""

    rule: LabelRule
    classes: list[str]
    splits: list[SplitName]
    warnings: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Images per class by name; empty without classes."""
        counts = Counter(self.classes)
        return {} if set(counts) == {UNSORTED} else dict(sorted(counts.items()))

    @property
    def learned(self) -> dict[str, int]:
        """Images per class that are for training."""
        return Counter(
            name for name, split in zip(self.classes, self.splits, strict=True) if split == "train"
        )

    @property
    def split_counts(self) -> dict[str, int]:
        """Images per split; empty where all are for training."""
        counts = Counter(self.splits)
        if set(counts) == {"train"}:
            return {}
        return {split: counts[split] for split in SPLIT_NAMES if split in counts}


def check_choice(choice: str) -> None:
    """Raise Invalid unless `choice` is of KINDS, a file that can hold labels, or FILE:COLUMN."""
    source, _, column = choice.partition(":")
    readable = source in (PARQUET, *_SIDECARS) or source.lower().endswith(_SUFFIXES)
    if choice in KINDS or (readable and (column or ":" not in choice)):
        return
    raise Invalid(
        "labels",
        choice,
        f"it must be {', '.join(KINDS)}, or a file of the archive that ends in "
        f"{', '.join(_SUFFIXES)}, with :COLUMN for one of its columns; "
        f"or {', '.join(_SIDECARS)} (files beside the images), or {PARQUET}:COLUMN",
    )


def is_label_file(name: str, size: int, choice: str) -> bool:
    """Return whether an entry of this name and size is to be read for labels."""
    if choice in KINDS and choice != "auto":
        return False
    path, source = path_of(name), choice.partition(":")[0]
    beside = path.suffix in _SIDECARS and size <= _MAX_SIDECAR_BYTES
    if choice == "auto":
        return path.name in _LABEL_FILES or beside
    return beside if source in _SIDECARS else _is_named(name, source)


def may_hold_labels(name: str) -> bool:
    """Return whether `labels=` may name this file."""
    return path_of(name).suffix.lower() in _SUFFIXES


def decide_labels(
    images: Sequence[Entry],
    files: Mapping[str, bytes],
    choice: str = "auto",
    min_train: int = 2,
) -> Labels:
    """Decide the class and the split of each image.

    `images` are the usable entries, whose data is not looked at, one for each frame where a file
    has several; `files` are the archive's label files by name. "auto" takes the first of a table's
    columns, the label files and the files beside the images that tells at least two classes, else
    the folders. With fewer than `min_train` images for training, all are for training. Raises
    Invalid, of `labels`, for a choice that the archive does not have.
    """
    check_choice(choice)
    source, _, column = choice.partition(":")
    warnings: list[str] = []
    entries = _without_frames(images)
    if choice == "auto":
        rule, rows = _auto(entries, files, warnings)
    else:
        rule, rows = _chosen(source, column, entries, files)
    classes, splits = _apply(rule, images, _rows_of_frames(rows, entries, images), min_train)
    labels = Labels(rule, classes, splits, ())
    if choice == "auto" and not labels.counts:
        labels = replace(labels, rule=LabelRule("none", split_depth=rule.split_depth))
    if len(labels.counts) > MAX_CLASSES:
        raise Invalid.because(
            f"{rule.choice} gives {len(labels.counts)} classes; at most {MAX_CLASSES} are possible",
            field="labels",
        )
    return replace(labels, warnings=(*warnings, *_warnings(labels)))


# Which rule ---------------------------------------------------------------------------------------


def _auto(
    images: Sequence[Entry], files: Mapping[str, bytes], warnings: list[str]
) -> tuple[LabelRule, Sequence[Row]]:
    split_depth = _split_depth(images)
    for source in (PARQUET, *_LABEL_FILES, *_SIDECARS):
        if source not in (PARQUET, *_SIDECARS) and not _files_of(source, files):
            continue
        try:
            rows = _rows_from(source, images, files)
        except ValueError as error:
            warnings.append(f"{source} is not read: {error}")
            continue
        if not any(rows):
            if source in _LABEL_FILES and _has_rows(source, files):
                warnings.append(f"{source} says nothing of any image of the archive")
            continue
        column = _class_column(rows)
        if column is not None and len(_values(rows, column)) > 1:
            return LabelRule(source, column, split_depth=split_depth), rows
        if column is not None and source not in _SIDECARS:
            (value,) = _values(rows, column)
            warnings.append(f"{source} has one class for all images, {value!r}")
        elif source in _LABEL_FILES:
            columns = ", ".join(_columns(rows)) or "none"
            warnings.append(
                f"{source} has no column that looks like a class (its columns: {columns}); "
                f"labels={source}:COLUMN names one"
            )
    if _are_shards(images, split_depth):
        return LabelRule("none", split_depth=split_depth), ()
    return LabelRule("folders", "", _shared_depth(images, split_depth), split_depth), ()


def _chosen(
    source: str, column: str, images: Sequence[Entry], files: Mapping[str, bytes]
) -> tuple[LabelRule, Sequence[Row]]:
    if source == "folders":  # whatever their names are
        return LabelRule("folders", depth=_shared_depth(images, None)), ()
    split_depth = _split_depth(images)
    if source in KINDS:
        return LabelRule(source, split_depth=split_depth), ()
    if source not in (PARQUET, *_SIDECARS) and not _files_of(source, files):
        raise Invalid("labels", source, "the archive has no such file")
    try:
        rows = _rows_from(source, images, files)
    except ValueError as error:
        raise Invalid.because(f"labels is {source!r}; {error}", field="labels") from None
    if not any(rows):
        raise Invalid("labels", source, "it says nothing of any image of the archive")
    columns = _columns(rows)
    found = column or _class_column(rows)
    if found is None or found not in columns:
        raise Invalid(
            "labels",
            f"{source}:{column}" if column else source,
            f"name one of its columns, as in labels={source}:COLUMN; they are {', '.join(columns)}",
        )
    if long := next((v for v in _values(rows, found) if len(v) > MAX_CLASS_NAME), None):
        raise Invalid.because(
            f"labels is {source}:{found}, which has {long[:40]!r}... of {len(long)} characters; "
            f"the name of a class has at most {MAX_CLASS_NAME}",
            field="labels",
        )
    return LabelRule(source, found, split_depth=split_depth), rows


def _class_column(rows: Sequence[Row]) -> str | None:
    """Return the column that holds classes: by its name, else the only one whose values repeat."""
    columns = {name: _values(rows, name) for name in _columns(rows)}
    short = {
        name: values
        for name, values in columns.items()
        if name != _SPLIT_COLUMN and all(len(value) <= MAX_CLASS_NAME for value in values)
    }
    by_name = {name.lower(): name for name in reversed(short)}
    for name in _CLASS_COLUMNS:
        if name in by_name:
            return by_name[name]
    labelled = sum(map(bool, rows))
    repeated = [name for name, values in short.items() if 1 < len(values) <= labelled / 2]
    return repeated[0] if len(repeated) == 1 else None


def _columns(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _values(rows: Sequence[Row], column: str) -> set[str]:
    return {row[column] for row in rows if column in row}


def _split_depth(images: Sequence[Entry]) -> int | None:
    """Return the outermost level whose folders are splits, at least two of them."""
    deepest = max((len(image.label) for image in images), default=0)
    for depth in range(min(deepest, MAX_SPLIT_DEPTH)):
        names = {image.label[depth].lower() for image in images if len(image.label) > depth}
        if names <= SPLITS.keys() and len({SPLITS[name] for name in names}) > 1:
            return depth
    return None


def _without_split(folders: tuple[str, ...], split_depth: int | None) -> tuple[str, ...]:
    if split_depth is None:
        return folders
    return folders[:split_depth] + folders[split_depth + 1 :]


def _shared_depth(images: Sequence[Entry], split_depth: int | None) -> int:
    """Return how many folders are around everything: such a folder is not a class."""
    inner = [_without_split(image.label, split_depth) for image in images]
    depth = 0
    while inner and all(len(f) > depth for f in inner) and len({f[depth] for f in inner}) == 1:
        depth += 1
    return depth


def _are_shards(images: Sequence[Entry], split_depth: int | None) -> bool:
    """Return whether folders only divide a numbered row of images, as 00000/img00000012.png: each
    image's number begins with its folder's name."""

    def is_in_shard(image: Entry) -> bool:
        folders = _without_split(image.label, split_depth)
        number = re.fullmatch(r"\D*(\d+)", path_of(image.name).stem, re.ASCII)
        return bool(
            folders
            and number
            and re.fullmatch(r"\d{3,}", folders[-1], re.ASCII)
            and number[1].startswith(folders[-1])
            and len(number[1]) > len(folders[-1])
        )

    return bool(images) and all(map(is_in_shard, images))


# From the rule to classes -------------------------------------------------------------------------


def _apply(
    rule: LabelRule, images: Sequence[Entry], rows: Sequence[Row], min_train: int = 2
) -> tuple[list[str], list[SplitName]]:
    inner = [_without_split(image.label, rule.split_depth) for image in images]
    if rule.source == "folders":
        depth = _shared_depth(images, rule.split_depth) if rule.depth is None else rule.depth
        classes = [f[depth] if len(f) > depth else UNSORTED for f in inner]
    elif rule.source == "deepest-folder":
        classes = [f[-1] if f else UNSORTED for f in inner]
    elif rule.source == "none":
        classes = [UNSORTED] * len(images)
    else:
        classes = [row.get(rule.column, UNSORTED) for row in rows]
    splits: list[SplitName] = ["train"] * len(images)
    if rule.split_depth is not None:
        at = rule.split_depth
        splits = [SPLITS[i.label[at].lower()] if len(i.label) > at else "train" for i in images]
    if rows:
        splits = [
            SPLITS.get(row.get(_SPLIT_COLUMN, "").lower(), split)
            for row, split in zip(rows, splits, strict=True)
        ]
    if splits.count("train") < min_train:  # nothing to learn from
        splits = ["train"] * len(images)
    return classes, splits


# Frames -------------------------------------------------------------------------------------------


def _without_frames(images: Sequence[Entry]) -> list[Entry]:
    """Return each entry once: labels are those of files, which all their frames have."""
    return list({image.name: image for image in images}.values())


def _rows_of_frames(
    rows: Sequence[Row], entries: Sequence[Entry], images: Sequence[Entry]
) -> Sequence[Row]:
    if not rows:
        return rows
    row_of = {entry.name: row for entry, row in zip(entries, rows, strict=True)}
    return [row_of[image.name] for image in images]


# Rows of label files ------------------------------------------------------------------------------


def _rows_from(source: str, images: Sequence[Entry], files: Mapping[str, bytes]) -> Sequence[Row]:
    """Return a row for each image, empty where the source says nothing of it; no rows at all for
    folders. Raises ValueError for a file that cannot be read."""
    if source in KINDS:
        return ()
    if source == PARQUET:
        return [dict(image.columns) for image in images]
    if source in _SIDECARS:
        return _rows_beside(source, images, files)
    found: list[Row] = [{} for _ in images]
    places = _Places.of(images)
    for name in _files_of(source, files):
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


def _files_of(source: str, files: Mapping[str, bytes]) -> list[str]:
    return sorted(name for name in files if _is_named(name, source))


def _is_named(name: str, source: str) -> bool:
    return f"/{path_of(name)}".endswith(f"/{path_of(source)}")


def _has_rows(source: str, files: Mapping[str, bytes]) -> bool:
    return any(any(True for _ in _parsed(name, files[name])) for name in _files_of(source, files))


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


# Warnings -----------------------------------------------------------------------------------------


def _warnings(labels: Labels) -> Iterator[str]:
    rule, counts = labels.rule, labels.counts
    names = [name for name in counts if name != UNSORTED]
    by_folders = rule.source in ("folders", "deepest-folder")
    if rule.split_depth is not None and not labels.split_counts:
        yield "fewer than two images are in a split for training, so all are trained on"
    if not by_folders and UNSORTED in counts:
        yield (
            f"{counts[UNSORTED]} of {len(labels.classes)} images have no label in {rule.choice}; "
            f"their class is {UNSORTED!r}"
        )
    if by_folders and len(names) > 1 and _are_alike_numbers(names):
        yield (
            f"the classes are numbers of equal length ({', '.join(names[:3])}, ...); "
            "if these folders only divide the images, upload them with labels=none"
        )
    if by_folders and (splits := [name for name in names if name.lower() in SPLITS]):
        yield f"the class {splits[0]!r} looks like a split of the data, not like a class"
    yield from count_warnings(counts, labels.learned)


def count_warnings(counts: Mapping[str, int], learned: Mapping[str, int]) -> Iterator[str]:
    """Yield what looks odd about the images per class, of which `learned` are for training."""
    if len(counts) == 1:
        yield f"there is one class, {next(iter(counts))!r}"
    if few := [name for name in counts if learned.get(name, 0) < FEW_IMAGES]:
        shown = ", ".join(f"{name} ({learned.get(name, 0)})" for name in few[:5])
        yield (
            f"{len(few)} of {len(counts)} classes have fewer than {FEW_IMAGES} images to learn "
            f"from: {shown}{', ...' if len(few) > 5 else ''}"
        )


def _are_alike_numbers(names: Sequence[str]) -> bool:
    return len(names[0]) > 1 and all(n.isdigit() and len(n) == len(names[0]) for n in names)
