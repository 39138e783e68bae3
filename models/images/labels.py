"""Classes and splits of an archive's images, from its folders or from a file of labels in it.

`decide_labels` is plain data in and out: the listing and the bytes of the label files become a
class and a split for each image, with the rule that they follow and warnings of what looks odd.
`LabelRule.apply` gives the same from the rule alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from models.fields import Invalid
from models.images.label_files import (
    LABEL_FILES,
    MAX_SIDECAR_BYTES,
    SIDECARS,
    SUFFIXES,
    Row,
    files_of,
    has_rows,
    is_named,
    rows_from,
)
from models.images.readers import PARQUET, Entry, path_of

UNSORTED = "unsorted"
KINDS = ("auto", "folders", "deepest-folder", "none")
FEW_IMAGES = 10  # of a class
MAX_CLASS_NAME = 200  # characters
MAX_CLASSES = 100_000
MAX_SPLIT_DEPTH = 16  # folders around and with that of the split: deeper ones are not looked at

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
        rows = () if self.source in KINDS else rows_from(self.source, entries, files)
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
    readable = source in (PARQUET, *SIDECARS) or source.lower().endswith(SUFFIXES)
    if choice in KINDS or (readable and (column or ":" not in choice)):
        return
    raise Invalid(
        "labels",
        choice,
        f"it must be {', '.join(KINDS)}, or a file of the archive that ends in "
        f"{', '.join(SUFFIXES)}, with :COLUMN for one of its columns; "
        f"or {', '.join(SIDECARS)} (files beside the images), or {PARQUET}:COLUMN",
    )


def is_label_file(name: str, size: int, choice: str) -> bool:
    """Return whether an entry of this name and size is to be read for labels."""
    if choice in KINDS and choice != "auto":
        return False
    path, source = path_of(name), choice.partition(":")[0]
    beside = path.suffix in SIDECARS and size <= MAX_SIDECAR_BYTES
    if choice == "auto":
        return path.name in LABEL_FILES or beside
    return beside if source in SIDECARS else is_named(name, source)


def may_hold_labels(name: str) -> bool:
    """Return whether `labels=` may name this file."""
    return path_of(name).suffix.lower() in SUFFIXES


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
    for source in (PARQUET, *LABEL_FILES, *SIDECARS):
        if source not in (PARQUET, *SIDECARS) and not files_of(source, files):
            continue
        try:
            rows = rows_from(source, images, files)
        except ValueError as error:
            warnings.append(f"{source} is not read: {error}")
            continue
        if not any(rows):
            if source in LABEL_FILES and has_rows(source, files):
                warnings.append(f"{source} says nothing of any image of the archive")
            continue
        column = _class_column(rows)
        if column is not None and len(_values(rows, column)) > 1:
            return LabelRule(source, column, split_depth=split_depth), rows
        if column is not None and source not in SIDECARS:
            (value,) = _values(rows, column)
            warnings.append(f"{source} has one class for all images, {value!r}")
        elif source in LABEL_FILES:
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
    if source not in (PARQUET, *SIDECARS) and not files_of(source, files):
        raise Invalid("labels", source, "the archive has no such file")
    try:
        rows = rows_from(source, images, files)
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
