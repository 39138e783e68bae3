"""The report on a dataset: what in it is likely to harm a training, from fingerprints alone.

docs/datasets.md says what was found with these thresholds in sets of photographs, drawings and
digits.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.arrays import Float64, Int64, UInt8
from models.images.duplicates import FINE_SIDE, same_pictures
from models.images.fingerprints import Fingerprints
from models.images.labels import FEW_IMAGES, UNSORTED, SplitName

Kind = Literal[
    "exact-duplicate",
    "near-duplicate",
    "one-colour",
    "blurred",
    "tiny",
    "odd-size",
    "odd-shape",
    "small-class",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

ONE_COLOUR = 2.0  # standard deviation, of 255: more than the noise of a scanner or of JPEG
BLURRED = 0.35  # sharpness; the least of ordinary images was 0.64, blurred by 2 pixels all had less
BLURRED_SIDE = 32  # pixels; smaller images are soft by their size
ENLARGED, LARGEST_SIDE = 2, 256  # times; pixels of the largest networks
ODD_AREA, ODD_SHAPE = 16.0, 2.0  # times the median: fitting the image loses most of it
ODD_SPREAD = 5.0  # standard deviations: sets of many sizes or shapes have no odd ones

_SPLITS: dict[SplitName, int] = {"test": 0, "val": 1, "train": 2}
_NONE: Int64 = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Group:
    """Images that are the same, the first one the best to keep; `images` may be the first of
    them."""

    images: tuple[int, ...]
    num_images: int
    across_splits: bool
    across_classes: bool


@dataclass(frozen=True)
class Finding:
    """One kind of finding. `images` (M,) are the positions of all its images, the worst first.

    Of duplicates, `group` (M,) numbers their groups from 0, which lie side by side. Those with
    images both for training and for validation or tests come first (`across_splits`, a value for
    each group), then those of several classes, then the largest.
    """

    kind: Kind
    sentence: str
    images: Int64
    group: Int64 = field(default_factory=lambda: _NONE)
    across_splits: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    across_classes: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))

    @property
    def num_groups(self) -> int:
        return len(self.across_splits)

    def groups(self, limit: int, each: int) -> Iterator[Group]:
        """Yield the first groups, with the first images of each."""
        starts = np.searchsorted(self.group, np.arange(min(limit, self.num_groups) + 1))
        for number, (start, end) in enumerate(pairwise(starts.tolist())):
            yield Group(
                tuple(self.images[start : min(end, start + each)].tolist()),
                end - start,
                bool(self.across_splits[number]),
                bool(self.across_classes[number]),
            )


@dataclass(frozen=True)
class Report:
    """The findings, in the order of KINDS; kinds without images are left out. If not `complete`,
    so many images are alike that not all pairs were compared."""

    num_images: int
    findings: tuple[Finding, ...]
    complete: bool


def find(
    rows: Fingerprints, classes: Sequence[str] = (), splits: Sequence[SplitName] = ()
) -> Report:
    """Return what is worth looking at among N images.

    `classes` and `splits` (train, val, test) are those of the images, or empty where there are
    none. Raises ValueError if their lengths differ from N.
    """
    images = _Images.of(rows, classes, splits)
    plain = rows["deviation"] < ONE_COLOUR
    tiny = _tiny(images)
    exact, copies = _exact(images)
    near, complete = _near(images, np.flatnonzero(~copies & ~plain))
    findings = [
        exact,
        near,
        _one_colour(plain),
        _blurred(rows, plain),
        tiny,
        _odd_size(images, tiny.images),
        _odd_shape(images),
        _small_classes(images, copies),
    ]
    return Report(len(rows), tuple(f for f in findings if f.images.size), complete)


@dataclass(frozen=True)
class _Images:
    rows: Fingerprints
    class_names: list[str]
    class_of: Int64  # into class_names; all 0 without classes
    split_of: Int64  # values of _SPLITS
    height: Float64
    width: Float64

    @classmethod
    def of(
        cls, rows: Fingerprints, classes: Sequence[str], splits: Sequence[SplitName]
    ) -> "_Images":
        for name, values in (("classes", classes), ("splits", splits)):
            if len(values) not in (0, len(rows)):
                raise ValueError(f"{name} has {len(values)} entries; there are {len(rows)} images")
        number: dict[str, int] = {}
        found = [number.setdefault(name, len(number)) for name in classes] or [0] * len(rows)
        split_of = [_SPLITS[split] for split in splits] or [_SPLITS["train"]] * len(rows)
        return cls(
            rows,
            [] if set(number) == {UNSORTED} else list(number),
            np.array(found, np.int64),
            np.array(split_of, np.int64),
            rows["height"].astype(float),
            rows["width"].astype(float),
        )


# Duplicates ---------------------------------------------------------------------------------------


def _exact(images: _Images) -> tuple[Finding, NDArray[np.bool_]]:
    """Return groups of equal pixels, and which images are copies: all but the first of a group."""
    digests = np.ascontiguousarray(images.rows["sha256"]).view("V32")[:, 0]
    _, root = np.unique(digests, return_inverse=True)
    finding = _grouped("exact-duplicate", images, root)
    copies = np.zeros(len(root), bool)
    copies[finding.images[1:]] = finding.group[1:] == finding.group[:-1]
    return finding, copies


def _near(images: _Images, candidates: Int64) -> tuple[Finding, bool]:
    """Return groups of images that look the same. In a group, each does so to another one."""
    luma: UInt8 = images.rows["luma"][candidates]
    chroma: UInt8 = images.rows["chroma"][candidates]
    fine = np.minimum(images.height, images.width)[candidates] >= FINE_SIDE
    first, complete = same_pictures(luma, chroma, fine)
    root = np.arange(len(images.rows))
    root[candidates] = candidates[first]
    return _grouped("near-duplicate", images, root), complete


def _grouped(kind: Kind, images: _Images, root: Int64) -> Finding:
    """Return the finding of the groups that share a root (N,).

    The first of a group is the one to keep: one for tests rather than one to learn from, since
    moving it would change what is measured; then the one of most pixels, then the first.
    """
    _, number, count = np.unique(root, return_inverse=True, return_counts=True)
    members = np.flatnonzero(count[number] > 1)
    if not members.size:
        return Finding(kind, "", _NONE)
    pixels = images.height[members] * images.width[members]
    order = np.lexsort((members, -pixels, images.split_of[members], number[members]))
    members = members[order]
    starts = np.flatnonzero(np.diff(number[members], prepend=-1))
    # Test is before val, and train is last: of the same images in test and val none is learned.
    splits = (np.minimum.reduceat(images.split_of[members], starts) < _SPLITS["train"]) & (
        np.maximum.reduceat(images.split_of[members], starts) == _SPLITS["train"]
    )
    class_of = images.class_of[members]
    classes = np.minimum.reduceat(class_of, starts) != np.maximum.reduceat(class_of, starts)
    sizes = np.diff(starts, append=len(members))
    ranking = np.lexsort((members[starts], -sizes, ~classes, ~splits))
    rank = np.empty_like(ranking)
    rank[ranking] = np.arange(len(ranking))
    group = np.repeat(rank, sizes)
    order = np.argsort(group, kind="stable")
    return Finding(
        kind,
        _sentence_of_groups(kind, sizes, splits, classes),
        members[order],
        group[order],
        splits[ranking],
        classes[ranking],
    )


def _sentence_of_groups(
    kind: Kind, sizes: Int64, splits: NDArray[np.bool_], classes: NDArray[np.bool_]
) -> str:
    copies = int(sizes.sum()) - len(sizes)
    one, many, same = (
        ("has", "have", "the same pixels")
        if kind == "exact-duplicate"
        else ("looks", "look", "nearly the same")
    )
    parts = [
        f"{_counted(copies, 'image')} {one if copies == 1 else many} {same} as another "
        f"({_counted(len(sizes), 'group')})"
    ]
    if across := int(splits.sum()):
        parts.append(
            f"{_counted(across, 'group')} with images both to learn from and to measure with"
        )
    if across := int(classes.sum()):
        parts.append(f"{_counted(across, 'group')} with images of more than one class")
    return "; ".join(parts)


# Single images ------------------------------------------------------------------------------------


def _one_colour(plain: NDArray[np.bool_]) -> Finding:
    found = np.flatnonzero(plain)
    return Finding("one-colour", f"{_counted(len(found), 'image')} of one colour", found)


def _blurred(rows: Fingerprints, plain: NDArray[np.bool_]) -> Finding:
    judged = ~plain & (np.minimum(rows["height"], rows["width"]) >= BLURRED_SIDE)
    sharpness = rows["sharpness"]
    found = np.flatnonzero(judged & (sharpness < BLURRED))
    found = found[np.argsort(sharpness[found], kind="stable")]
    return Finding("blurred", _counted(len(found), "blurred image"), found)


def _tiny(images: _Images) -> Finding:
    shorter = np.minimum(images.height, images.width)
    usual = min(LARGEST_SIDE, _median(shorter))
    found = np.flatnonzero(shorter * ENLARGED < usual)
    found = found[np.argsort(shorter[found], kind="stable")]
    return Finding(
        "tiny",
        f"{_counted(len(found), 'image')} would be enlarged more than {ENLARGED} times to have "
        f"{usual:.0f} pixels on the shorter side",
        found,
    )


def _odd_size(images: _Images, tiny: Int64) -> Finding:
    area = np.log(images.height * images.width)
    found, usual = _outliers(area, np.log(ODD_AREA))
    found = found[~np.isin(found, tiny)]
    return Finding(
        "odd-size",
        f"{_counted(len(found), 'image')} with more than {ODD_AREA:.0f} times the usual "
        f"{np.exp(usual):,.0f} pixels, or less than one in {ODD_AREA:.0f} of them",
        found,
    )


def _odd_shape(images: _Images) -> Finding:
    longer = np.maximum(images.height, images.width)
    shape = np.log(longer / np.minimum(images.height, images.width))
    found, usual = _outliers(shape, np.log(ODD_SHAPE))
    return Finding(
        "odd-shape",
        f"{_counted(len(found), 'image')} of another shape than the usual "
        f"{np.exp(usual):.2g} : 1, so that cutting would lose more than half",
        found,
    )


def _outliers(values: Float64, least: float) -> tuple[Int64, float]:
    """Return the positions farther from the median than `least` and than ODD_SPREAD standard
    deviations, the farthest first, and the median. The deviation is taken from the median one, as
    for a normal distribution, so that the outliers do not hide themselves."""
    median = _median(values)
    distance = np.abs(values - median)
    found = np.flatnonzero(distance > max(least, ODD_SPREAD * 1.4826 * _median(distance)))
    return found[np.argsort(-distance[found], kind="stable")], median


def _median(values: Any) -> float:
    return float(np.median(values)) if len(values) else 0.0


# Classes ------------------------------------------------------------------------------------------


def _small_classes(images: _Images, copies: NDArray[np.bool_]) -> Finding:
    """Return the images of classes with fewer than FEW_IMAGES to learn from, copies not counted."""
    if len(images.class_names) < 2:
        return Finding("small-class", "", _NONE)
    learned = (images.split_of == _SPLITS["train"]) & ~copies
    count = np.bincount(images.class_of[learned], minlength=len(images.class_names))
    small = np.flatnonzero(count < FEW_IMAGES)
    found = np.flatnonzero(np.isin(images.class_of, small))
    found = found[np.lexsort((images.class_of[found], count[images.class_of[found]]))]
    named = sorted(small, key=lambda c: (count[c], images.class_names[c]))
    listed = ", ".join(f"{images.class_names[c]} ({count[c]})" for c in named[:5])
    more = f" and {len(named) - 5} more" if len(named) > 5 else ""
    return Finding(
        "small-class",
        f"{_counted(len(small), 'class', 'classes')} of {len(images.class_names)} with fewer than "
        f"{FEW_IMAGES} different images to learn from: {listed}{more}",
        found,
    )


def _counted(count: int, singular: str, plural: str = "") -> str:
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
