"""Versions of datasets at the image size of a run. Each part, an archive as it was uploaded, is
prepared once per host, size and fit; a version is some rows of its parts, and shares them with the
others."""

import fcntl
import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import structlog

from host.folders import fsync
from models.fields import Invalid
from models.images.dataset import Dataset, open_dataset, prepare, select_images
from models.images.formats import Fit, Reading
from models.images.labels import LabelRule
from models.images.readers import ArchiveLimits
from models.images.reading import MAX_PIXELS
from models.images.versions import Manifest
from store.artifacts import ArtifactStore
from store.datasets import DatasetVersion
from store.errors import ArtifactDamaged, ArtifactNotFound
from store.integrity import read_manifest

SUMS = "sha256.json"  # of the other files of a prepared part

log = structlog.get_logger("dataset")


def cached_dataset(
    version: DatasetVersion,
    image_size: tuple[int, int],
    channels: int,
    fit: Fit,
    artifacts: ArtifactStore,
    data_dir: Path,
    scratch: Path,
) -> Dataset:
    """Open a version of a dataset at this size and fit, and prepare the parts of it that no job of
    this host has prepared yet, or that were changed on its disk since; other jobs that need them
    wait meanwhile.

    Raises Invalid if its images or classes are no longer those of its record, and ArtifactDamaged.
    """
    height, width = image_size
    shape = f"{height}x{width}x{channels}-{fit}"
    parts: list[Dataset] = []
    for part in version.parts:
        cache = data_dir / "cache" / part.digest
        cache.mkdir(parents=True, exist_ok=True)
        rule = LabelRule(**(part.labels or {}))
        folder = cache / f"{shape}-{_name_of(rule)}"
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _is_intact(folder):
                archive = scratch / "archive"
                try:
                    artifacts.download(part.key, archive, part.sha256_of(part.key))
                except ArtifactNotFound:  # no dataset is deleted while a job needs it
                    raise ArtifactDamaged(part.key, "it is missing") from None
                prepare(
                    archive,
                    folder,
                    image_size,
                    channels,
                    ArchiveLimits(max_pixels=part.max_pixels or MAX_PIXELS),
                    rule=rule,
                    fit=fit,
                    reading=Reading.from_dict(part.reading),
                )
                archive.unlink()
                _write_sums(folder)
        parts.append(open_dataset(folder))
        if part.num_images not in (None, len(parts[-1].images)):
            raise _changed(version, "images")
    dataset = parts[0]
    if version.manifest_key is not None:
        content = read_manifest(artifacts, version.manifest_key, version.digest)
        manifest = Manifest.from_bytes(content)
        dataset = select_images([part.images for part in parts], manifest)
    if dataset.class_names != tuple(sorted(version.classes)):  # labels are positions among them
        raise _changed(version, "classes")
    return dataset


def _is_intact(folder: Path) -> bool:
    """Look for a prepared part and compare its files with their digests; one that differs is
    removed. All of it is read, as a training does many times."""
    if not folder.exists():
        return False
    sums = folder / SUMS
    if sums.exists() and _sums(folder) == json.loads(sums.read_text()):
        return True
    log.warning("prepared images are incomplete or damaged; they are made again", folder=folder)
    shutil.rmtree(folder)
    return False


def _write_sums(folder: Path) -> None:
    """Write the digests of a part that was just prepared; without them it is prepared again."""
    part = folder / f"{SUMS}.part"
    part.write_text(json.dumps(_sums(folder)))
    fsync(part)
    part.rename(folder / SUMS)


def _sums(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file but those of the digests."""
    found = {}
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(SUMS):
            with path.open("rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _changed(version: DatasetVersion, what: str) -> Invalid:
    return Invalid.because(
        f"dataset {version.dataset!r} was uploaded to another version of the service, which found "
        f"other {what} in it; upload it again"
    )


def _name_of(rule: LabelRule) -> str:
    """Return a part of the folder's name: another version of the service may decide otherwise for
    the same archive."""
    return hashlib.sha256(json.dumps(asdict(rule)).encode()).hexdigest()[:8]
