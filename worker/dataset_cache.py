"""Datasets at the image size of a run: prepared once per host and shared by its jobs."""

import fcntl
import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from models.fields import Invalid
from models.images.dataset import Dataset, open_dataset, prepare
from models.images.formats import Fit, Reading
from models.images.labels import LabelRule
from store.artifacts import ArtifactStore
from store.datasets import DatasetRecord


def cached_dataset(
    record: DatasetRecord,
    image_size: tuple[int, int],
    channels: int,
    fit: Fit,
    artifacts: ArtifactStore,
    data_dir: Path,
    scratch: Path,
) -> Dataset:
    """Open a dataset at this size and fit, and prepare it where no job of this host has done so
    yet; other jobs that need it wait meanwhile.

    Raises Invalid if its classes are no longer those of its record.
    """
    cache = data_dir / "cache" / record.digest
    cache.mkdir(parents=True, exist_ok=True)
    height, width = image_size
    rule = LabelRule(**(record.labels or {}))
    folder = cache / f"{height}x{width}x{channels}-{fit}-{_name_of(rule)}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            archive = scratch / "archive"
            artifacts.download(record.artifact_key, archive)
            reading = Reading.from_dict(record.reading)
            prepare(archive, folder, image_size, channels, rule=rule, fit=fit, reading=reading)
            archive.unlink()
    dataset = open_dataset(folder)
    if dataset.class_names != tuple(sorted(record.classes)):  # labels are positions among them
        raise Invalid.because(
            f"dataset {record.name!r} was uploaded to another version of the service, which found "
            "other classes in it; upload it again"
        )
    return dataset


def _name_of(rule: LabelRule) -> str:
    """Return a part of the folder's name: another version of the service may decide otherwise for
    the same archive."""
    return hashlib.sha256(json.dumps(asdict(rule)).encode()).hexdigest()[:8]
