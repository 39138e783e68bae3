"""Images to learn from: an archive of them (models.images.readers) becomes one uint8 memory map.

What is a class and what a split is decided in models.images.labels. Entries that cannot be used are
listed with the reason and do not fail the rest.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from host.folders import staged_folder
from models.arrays import Int64
from models.fields import Invalid
from models.images.files import resize_image, with_channels
from models.images.fingerprints import FINGERPRINT, fingerprint
from models.images.formats import Fit, Reading
from models.images.gathered import GatheredImages, Images
from models.images.index import Index, sha256_of
from models.images.labels import (
    UNSORTED,
    LabelRule,
    Labels,
    check_choice,
    count_warnings,
    decide_labels,
    is_label_file,
    may_hold_labels,
)
from models.images.readers import ArchiveLimits, Entry, read_entries
from models.images.reading import Picture, WideValues, read_pictures
from models.images.versions import Contents, Manifest

MIN_SIDE = 8


@dataclass(frozen=True)
class ArchiveSummary:
    """The content of an archive. `classes` counts images per class, and is empty without classes;
    `splits` counts images per split, and is empty where all are for training; `labels` is the rule
    that both follow. `sizes` has the 20 most common (height, width), `rejected` the first rejected
    entries with their reasons. `digest` is the sha256 of the file and, where they are not the
    default, of the choice of labels and of how its files are read; `reading` has the levels found,
    and `warnings` are sentences."""

    digest: str
    num_images: int
    channels: int
    classes: dict[str, int]
    splits: dict[str, int]
    labels: LabelRule
    sizes: list[dict[str, int]]
    rejected: list[dict[str, str]]
    num_rejected: int
    reading: Reading
    warnings: list[str]


@dataclass(frozen=True)
class Dataset:
    """Images (N, H, W, C), and labels (N,) into `class_names`, all 0 without classes. `set_apart`
    are the positions of the images that the archive has for validation and tests."""

    images: Images
    labels: Int64
    class_names: tuple[str, ...]
    set_apart: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))


def inspect_archive(
    path: Path,
    limits: ArchiveLimits | None = None,
    *,
    choice: str = "auto",
    reading: Reading | None = None,
) -> ArchiveSummary:
    """Describe an archive; as index_archive, without the index."""
    return index_archive(path, limits, choice=choice, reading=reading)[0]


def index_archive(
    path: Path,
    limits: ArchiveLimits | None = None,
    *,
    choice: str = "auto",
    rule: LabelRule | None = None,
    reading: Reading | None = None,
    at_least: int = 2,
    counted: Callable[[int], None] | None = None,
) -> tuple[ArchiveSummary, Index]:
    """Decode every image once, count, and write down where each is. `choice` says which labels are
    meant (models.images.labels); `rule` has them decided already. `reading` may have levels, which
    then stay. `counted` is called with the number of images so far, and may end it by an exception.

    Raises Invalid if the file is not an archive, is damaged, exceeds the limits, holds fewer than
    `at_least` usable images, or has no labels of that choice.
    """
    limits, reading = limits or ArchiveLimits(), reading or Reading()
    check_choice(choice)
    wide = WideValues()
    rejected: list[dict[str, str]] = []
    num_rejected = 0
    files = LabelFiles(rule.choice if rule else choice, limits)
    rows = _Rows()

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

    for entry, picture, reason in _pictures(path, limits, reading):
        if picture is not None:
            wide.add(picture)
            rows.add(entry, picture)
            if counted:
                counted(len(rows.entries))
        elif not files.take(entry, reason):
            reject(entry.name, reason)
    if len(rows.entries) < at_least:
        first = f"; the first: {rejected[0]['name']}: {rejected[0]['reason']}" if rejected else ""
        raise Invalid.because(
            f"the archive holds {len(rows.entries)} usable images, at least {at_least} are needed; "
            f"{num_rejected} entries were rejected{first}"
        )
    if rule is None:
        # An addition to a dataset may be of validation images alone.
        min_train = 2 if at_least >= 2 else 0
        labels = decide_labels(rows.entries, files.contents, choice, min_train)
    else:
        labels = Labels(rule, *rule.apply(rows.entries, files.contents), ())
    for name in sorted(files.contents):
        if not is_label_file(name, len(files.contents[name]), labels.rule.choice):
            reject(name, files.reasons[name])
    dark = [warning] if (warning := wide.warning(reading.range)) else []
    index = rows.index(labels, dark)
    contents = Contents.of(Manifest.of("", index), [index])
    summary = ArchiveSummary(
        digest=_digest(path, choice, reading),
        num_images=contents.num_images,
        channels=contents.channels,
        classes=contents.classes,
        splits=contents.splits,
        labels=labels.rule,
        sizes=contents.sizes,
        rejected=rejected,
        num_rejected=num_rejected,
        reading=replace(reading, levels=reading.levels or wide.levels(reading.range)),
        warnings=[*labels.warnings, *dark],
    )
    return summary, index


def prepare(
    archive: Path,
    folder: Path,
    image_size: tuple[int, int],
    channels: int,
    limits: ArchiveLimits | None = None,
    *,
    rule: LabelRule | None = None,
    fit: Fit = "crop",
    reading: Reading | None = None,
) -> Dataset:
    """Write the archive's usable images at one size to `folder`, which appears whole or not at all.
    `rule` is that of its ArchiveSummary; without one the classes are decided anew.

    `reading` is that of the archive's summary, `fit` how images of another shape come to the size.
    The images of a zip come in the order of their names, those of a tar in the tar's own. OSError
    (a full disk) leaves nothing behind.
    """
    limits, reading = limits or ArchiveLimits(), reading or Reading()
    with staged_folder(folder) as part:
        _write(archive, part, image_size, channels, limits, rule, fit, reading)
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


def select_images(parts: Sequence[Images], manifest: Manifest) -> Dataset:
    """Return the dataset of a version from all images of its parts, which are not copied.

    Raises Invalid if a part has fewer images than the version knows of."""
    for number, (images, digest) in enumerate(zip(parts, manifest.parts, strict=True)):
        if len(images) <= manifest.row[manifest.part == number].max():
            raise Invalid.because(f"the archive {digest[:12]} has only {len(images)} images")
    whole = len(parts) == 1 and len(parts[0]) == len(manifest)
    names = manifest.class_names
    return Dataset(
        images=parts[0] if whole else GatheredImages(parts, manifest.part, manifest.row),
        labels=manifest.label,
        class_names=() if names == (UNSORTED,) else names,
        set_apart=manifest.set_apart,
    )


# Entries -----------------------------------------------------------------------------------------


def _pictures(
    path: Path, limits: ArchiveLimits, reading: Reading
) -> Iterator[tuple[Entry, Picture | None, str]]:
    """Yield each picture with its entry, or None and the reason why the entry, or the rest of its
    frames, cannot be used.

    Raises Invalid as read_entries, and where the frames are more than the images allowed.
    """
    count = 0
    for entry in read_entries(path, limits):
        for picture, reason in _pictures_of(entry, limits, reading):
            yield entry, picture, reason
            count += picture is not None
        if count > limits.max_images:
            raise Invalid.because(
                f"the archive has more than {limits.max_images} images, with all their frames"
            )


def _pictures_of(
    entry: Entry, limits: ArchiveLimits, reading: Reading
) -> Iterator[tuple[Picture | None, str]]:
    if entry.data is None:
        yield None, entry.reason
        return
    try:
        for picture in read_pictures(entry.data, limits.max_pixels, reading.frames):
            height, width = picture.values.shape[:2]
            if min(height, width) < MIN_SIDE:
                raise Invalid.because(
                    f"it is {width} x {height} pixels; each side must have at least {MIN_SIDE}"
                )
            yield picture, ""
    except Invalid as error:
        yield None, str(error)


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


@dataclass
class _Rows:
    """The rows of an index, as far as they are known before the labels."""

    entries: list[Entry] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    sha256: list[str] = field(default_factory=list)
    fingerprints: bytearray = field(default_factory=bytearray)
    _read: Entry | None = None  # the last one

    def add(self, entry: Entry, picture: Picture) -> None:
        again = entry is self._read
        self.frames.append(self.frames[-1] + 1 if again else 0)
        self.sha256.append(self.sha256[-1] if again else sha256_of(entry.data or b""))
        self.shapes.append(picture.values.shape)
        self.fingerprints += fingerprint(picture).tobytes()
        self.entries.append(self.entries[-1] if again else replace(entry, data=None))
        self._read = entry

    def index(self, labels: Labels, warnings: Sequence[str]) -> Index:
        places = [entry.place for entry in self.entries if entry.place]
        counted = set(count_warnings(labels.counts, labels.learned))
        return Index(
            names=[entry.name for entry in self.entries],
            frames=self.frames,
            shapes=np.array(self.shapes, np.int64),
            classes=labels.classes,
            splits=labels.splits,
            sha256=self.sha256,
            places=places if len(places) == len(self.entries) else None,
            warnings=[*(w for w in labels.warnings if w not in counted), *warnings],
            fingerprints=np.frombuffer(self.fingerprints, FINGERPRINT),
        )


# Writing ------------------------------------------------------------------------------------------


def _write(
    archive: Path,
    folder: Path,
    size: tuple[int, int],
    channels: int,
    limits: ArchiveLimits,
    rule: LabelRule | None,
    fit: Fit,
    reading: Reading,
) -> None:
    header = {
        "descr": "|u1",
        "fortran_order": False,
        "shape": (_count(archive, limits, reading), *size, channels),
    }
    entries: list[Entry] = []
    files = LabelFiles(rule.choice if rule else "auto", limits)
    # Written, not mapped: on a full disk a write fails with an error, a mapped page with a signal.
    with (folder / "images.npy").open("wb") as stored:
        np.lib.format.write_array_header_1_0(stored, header)
        for entry, picture, _ in _pictures(archive, limits, reading):
            if picture is not None:
                image = resize_image(picture.to_uint8(reading), size, fit)
                stored.write(with_channels(image, channels).tobytes())
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


def _count(archive: Path, limits: ArchiveLimits, reading: Reading) -> int:
    return sum(picture is not None for _, picture, _ in _pictures(archive, limits, reading))


def _digest(path: Path, choice: str, reading: Reading) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    if reading != Reading():  # another reading, or other labels, make another dataset
        digest.update(f" reading={json.dumps(asdict(reading))}".encode())
    if choice != "auto":
        digest.update(f" labels={choice}".encode())
    return digest.hexdigest()
