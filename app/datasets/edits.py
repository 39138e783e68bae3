"""Edits of a dataset: each makes a new version from the newest, and no two are lost in a race."""

import secrets
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from app.datasets.parts import INDEXES, index_of, manifest_of
from app.services import Services
from models.fields import Invalid
from models.images.dataset import ArchiveSummary, index_archive
from models.images.formats import Reading
from models.images.index import Index
from models.images.labels import UNSORTED
from models.images.readers import ArchiveLimits, is_archive, path_of
from models.images.versions import Changes, Contents, Manifest, check_class
from store.access.quotas import check_space
from store.datasets import DatasetVersion, Part, add_version, get_version, new_version
from store.errors import StaleVersion
from worker.dataset_archives import store_index

MAX_REJECTED = 100  # files that a version lists
MAX_FILE_NAME = 255
Edit = Callable[[Manifest], Manifest]


def change_images(
    services: Services, name: str, changes: Changes, parent: int | None
) -> tuple[DatasetVersion, bool]:
    """Apply an edit to the newest version, which must be `parent` where that is given; return the
    version that follows, and whether it is new: an edit without effect makes none.

    Raises Invalid, DatasetNotFound and StaleVersion.
    """
    while True:
        version = newest_version(services, name, parent)
        manifest = manifest_of(services, version)
        edited = manifest.edited(changes)
        if edited.digest == manifest.digest:
            return version, False
        try:
            return _add(services, version, edited, changes.in_words()), True
        except StaleVersion:
            if parent is not None:
                raise


def add_images(
    services: Services,
    name: str,
    path: Path,
    *,
    choice: str,
    class_name: str | None,
    file_name: str,
    parent: int | None,
) -> tuple[DatasetVersion, bool]:
    """Add the images of an archive, or one image file, as `change_images` does."""
    version = newest_version(services, name, parent)
    if class_name is not None:
        check_class("class", class_name)
        choice = "none"
    limits = ArchiveLimits(max_pixels=services.settings.max_pixels)
    if not is_archive(path) and path.stat().st_size <= limits.max_file_bytes:
        _pack(path, file_name)
    check_space(services.database, path.stat().st_size)
    reading = Reading.from_dict(version.reading)
    summary, index = index_archive(path, limits, choice=choice, reading=reading, at_least=1)
    part = Part(
        summary.digest,
        f"datasets/{version.dataset}/{summary.digest}-{secrets.token_hex(4)}",
        path.stat().st_size,
        summary.num_images,
        asdict(summary.labels),
        asdict(summary.reading),
        limits.max_pixels,
    )
    archive = services.artifacts.put_file(part.key, path)
    files = {part.key: archive, **store_index(services.artifacts, part, index)}
    part = replace(part, files=files)
    INDEXES.add(services.artifacts, part.index_key, index)  # it is needed at once
    used = False
    try:
        while True:
            manifest = manifest_of(services, version)
            classes = [class_name] * len(index) if class_name else _classes(index, manifest, choice)
            edited = manifest.with_part(part.digest, index, classes)
            count = len(edited) - len(manifest)
            if not count:
                return version, False
            words = f"added {count} image{'' if count == 1 else 's'}"
            try:
                made = _add(services, version, edited, words, part, summary)
            except StaleVersion:
                version = newest_version(services, name, parent)
                continue
            used = any(part.key == each.key for each in made.parts)
            return made, True
    finally:
        if not used:
            for key in part.keys:
                services.artifacts.delete(key)


def newest_version(services: Services, name: str, parent: int | None) -> DatasetVersion:
    """Return the newest version, to edit it. Raises DatasetNotFound, NotYours, and StaleVersion if
    it is not `parent`."""
    version = get_version(services.database, name, to_change=True)
    if parent not in (None, version.number):
        raise StaleVersion(name, parent, version.number)
    return version


def _add(
    services: Services,
    before: DatasetVersion,
    manifest: Manifest,
    change: str,
    added: Part | None = None,
    summary: ArchiveSummary | None = None,
) -> DatasetVersion:
    """Store a manifest and the version that it is. Raises StaleVersion."""
    known = {part.digest: part for part in ([added] if added else []) + before.parts}
    parts = [known[digest] for digest in manifest.parts]
    indexes = [index_of(services, part) for part in parts]
    parts = [replace(p, num_images=len(i)) for p, i in zip(parts, indexes, strict=True)]
    reading, rejected, num_rejected = before.reading, before.rejected, before.num_rejected
    if summary:
        reading = asdict(summary.reading)
        rejected = [*summary.rejected, *rejected][:MAX_REJECTED]
        num_rejected += summary.num_rejected
    digest = manifest.digest
    key = f"datasets/{before.dataset}/{digest}-{secrets.token_hex(4)}.manifest"
    services.artifacts.put_bytes(key, manifest.to_bytes())
    try:
        return add_version(
            services.database,
            new_version(
                before.dataset,
                before.number + 1,
                parts,
                change=change,
                manifest_key=key,
                digest=digest,
                num_bytes=sum(part.num_bytes for part in parts),
                labels=before.labels,
                reading=reading,
                rejected=rejected,
                num_rejected=num_rejected,
                **asdict(Contents.of(manifest, indexes)),
            ),
        )
    except BaseException:
        services.artifacts.delete(key)
        raise


def _classes(index: Index, manifest: Manifest, choice: str) -> Sequence[str]:
    """Return the classes of images to add. An archive with one folder around all of it has no
    classes by itself, but that folder, or one inside, may be a class of the dataset."""
    if choice != "auto" or set(index.classes) != {UNSORTED}:
        return index.classes
    known = set(manifest.class_names)
    folders = ([f for f in path_of(name).parts[:-1] if f in known] for name in index.names)
    return [found[-1] if found else UNSORTED for found in folders]


def _pack(path: Path, name: str) -> None:
    """Make of a file a zip with that file in it. Raises Invalid for names that it cannot have."""
    if not 1 <= len(name) <= MAX_FILE_NAME or name[0] == "." or set(name) & set("/\\\0"):
        raise Invalid(
            "filename",
            name[:MAX_FILE_NAME],
            f"it must have 1..{MAX_FILE_NAME} characters, no '/' and no '.' at its beginning",
        )
    content = path.read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), content)  # without a date
