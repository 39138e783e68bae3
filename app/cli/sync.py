"""What `diffusion dataset sync` sends: the difference between a folder and a dataset.

Files are compared by their sha256. The classes and splits of the folder are those that an upload of
all of it would have (models.images.labels).
"""

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from client.answers import ImageAnswer
from models.fields import Invalid
from models.images.formats import Frames
from models.images.labels import UNSORTED, decide_labels, is_label_file
from models.images.readers import Entry, is_hidden, path_of
from models.images.reading import MAX_PIXELS, read_pictures

LABEL_FILE, LABELS = "labels.csv", "labels.csv:class"  # of an archive of additions


@dataclass(frozen=True)
class LocalFile:
    """An image file of the folder; `name` is its path there, with '/'."""

    name: str
    sha256: str
    class_name: str
    split: str


@dataclass(frozen=True)
class RemoteFile:
    """An image file of the dataset, with the ids of its images: one for each frame."""

    name: str
    sha256: str
    class_name: str
    split: str
    images: tuple[str, ...]


@dataclass
class Plan:
    """Files to send, and what becomes of those that are there. `skipped` are no images, with the
    reason of each."""

    add: list[LocalFile] = field(default_factory=list)
    remove: list[RemoteFile] = field(default_factory=list)
    move: list[tuple[RemoteFile, LocalFile]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.add or self.remove or self.move)

    def moves(self) -> dict[str, list[str]]:
        """Return the ids of images to move, by the class that they come to."""
        found: dict[str, list[str]] = {}
        for there, here in self.move:
            found.setdefault(here.class_name, []).extend(there.images)
        return found

    def lines(self) -> Iterator[str]:
        yield from (f"add     {file.name} ({file.class_name})" for file in self.add)
        yield from (f"remove  {file.name} ({file.class_name})" for file in self.remove)
        for there, here in self.move:
            yield f"move    {there.name} ({there.class_name} -> {here.class_name})"
        yield from (f"skip    {name}: {reason}" for name, reason in self.skipped)


def plan_sync(folder: Path, images: Iterable[ImageAnswer], labels: str, frames: Frames) -> Plan:
    """Compare a folder with the images of a dataset. `labels` says where the folder's classes come
    from, `frames` which frames of a file the dataset takes. Raises Invalid for a wrong `labels`."""
    there = remote_files(images)
    plan = Plan()
    here = local_files(folder, {file.sha256 for file in there}, labels, frames, plan.skipped)
    left = list(there)
    waiting = list(here)
    # Of equal files those go together that have most in common.
    keys: Sequence[Callable[[LocalFile | RemoteFile], tuple[str, ...]]] = (
        lambda f: (f.sha256, f.split, f.class_name, f.name),
        lambda f: (f.sha256, f.split, f.name),
        lambda f: (f.sha256, f.split, f.class_name),
        lambda f: (f.sha256, f.split),
    )
    for key in keys:
        known: dict[tuple[str, ...], list[RemoteFile]] = {}
        for remote in reversed(left):
            known.setdefault(key(remote), []).append(remote)
        rest: list[LocalFile] = []
        for local in waiting:
            if not (same := known.get(key(local))):
                rest.append(local)
            elif (remote := same.pop()).class_name != local.class_name:
                plan.move.append((remote, local))
        left = [remote for same in known.values() for remote in same]
        waiting = rest
    plan.add = waiting
    plan.remove = sorted(left, key=lambda f: f.name)
    return plan


def remote_files(images: Iterable[ImageAnswer]) -> list[RemoteFile]:
    """Bring the images of one file together."""
    found: dict[tuple[str, str, str], list[ImageAnswer]] = {}
    for image in images:
        part = image.id.partition("-")[0]
        found.setdefault((part, image.name, image.sha256), []).append(image)
    return [
        RemoteFile(
            name,
            sha256,
            same[0].class_name or UNSORTED,
            same[0].split,
            tuple(image.id for image in same),
        )
        for (_, name, sha256), same in found.items()
    ]


def local_files(
    folder: Path,
    known: set[str],
    labels: str,
    frames: Frames,
    skipped: list[tuple[str, str]],
) -> list[LocalFile]:
    """Return the images of a folder, in the order of their names. Files whose sha256 is known are
    images; each of the others is decoded to see whether it is one."""
    found: dict[str, str] = {}
    label_files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if is_hidden(name) or not path.is_file():
            continue
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 not in known:
            try:
                next(read_pictures(data, MAX_PIXELS, frames))
            except Invalid as error:
                if is_label_file(name, len(data), labels):
                    label_files[name] = data
                else:
                    skipped.append((name, str(error)))
                continue
        found[name] = sha256
    entries = [Entry(name, path_of(name).parts[:-1], None) for name in found]
    decided = decide_labels(entries, label_files, labels)
    return [
        LocalFile(name, sha256, class_name, split)
        for (name, sha256), class_name, split in zip(
            found.items(), decided.classes, decided.splits, strict=True
        )
    ]


def write_additions(folder: Path, files: Sequence[LocalFile], target: IO[bytes]) -> None:
    """Write a zip of files with their classes and splits, as the folder has them."""
    table = io.StringIO()
    rows = csv.writer(table)
    rows.writerow(["file_name", "class", "split"])
    rows.writerows([file.name, file.class_name, file.split] for file in files)
    with zipfile.ZipFile(target, "w") as archive:
        for file in files:
            archive.write(folder / file.name, file.name)
        archive.writestr(LABEL_FILE, table.getvalue())
