"""Datasets at the image size of a run: prepared once per host and shared by its jobs."""

import fcntl
from pathlib import Path

from models.images.dataset import Dataset, open_dataset, prepare
from models.images.formats import Fit, Reading
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
    yet; other jobs that need it wait meanwhile."""
    cache = data_dir / "cache" / record.digest
    cache.mkdir(parents=True, exist_ok=True)
    height, width = image_size
    folder = cache / f"{height}x{width}x{channels}-{fit}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            archive = scratch / "archive"
            artifacts.download(record.artifact_key, archive)
            reading = Reading.from_dict(record.reading)
            prepare(archive, folder, image_size, channels, fit=fit, reading=reading)
            archive.unlink()
    return open_dataset(folder)
