"""Versions of datasets at the image size of a run. Each part, an archive as it was uploaded, is
prepared once per host, size and fit; a version is some rows of its parts, and shares them with the
others."""

import fcntl
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from models.fields import Invalid
from models.images.dataset import Dataset, open_dataset, prepare, select_images
from models.images.formats import Fit, Reading
from models.images.labels import LabelRule
from models.images.readers import ArchiveLimits
from models.images.reading import MAX_PIXELS
from models.images.versions import Manifest
from store.artifacts import ArtifactStore
from store.datasets import DatasetVersion


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
    this host has prepared yet; other jobs that need them wait meanwhile.

    Raises Invalid if its images or classes are no longer those of its record.
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
            if not folder.exists():
                archive = scratch / "archive"
                artifacts.download(part.key, archive)
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
        parts.append(open_dataset(folder))
        if part.num_images not in (None, len(parts[-1].images)):
            raise _changed(version, "images")
    dataset = parts[0]
    if version.manifest_key is not None:
        manifest = Manifest.from_bytes(artifacts.get_bytes(version.manifest_key))
        dataset = select_images([part.images for part in parts], manifest)
    if dataset.class_names != tuple(sorted(version.classes)):  # labels are positions among them
        raise _changed(version, "classes")
    return dataset


def _changed(version: DatasetVersion, what: str) -> Invalid:
    return Invalid.because(
        f"dataset {version.dataset!r} was uploaded to another version of the service, which found "
        f"other {what} in it; upload it again"
    )


def _name_of(rule: LabelRule) -> str:
    """Return a part of the folder's name: another version of the service may decide otherwise for
    the same archive."""
    return hashlib.sha256(json.dumps(asdict(rule)).encode()).hexdigest()[:8]
