"""Data sets at the size of a run: made once per host and shared by its jobs."""

import fcntl
from pathlib import Path

from models.images.dataset import Dataset, open_dataset, prepare
from store.artifacts import ArtifactStore
from store.datasets import DatasetRecord


def cached_dataset(
    record: DatasetRecord,
    image_size: tuple[int, int],
    channels: int,
    artifacts: ArtifactStore,
    data_dir: Path,
    scratch: Path,
) -> Dataset:
    """Who comes second waits for who came first."""
    cache = data_dir / "cache" / record.digest
    cache.mkdir(parents=True, exist_ok=True)
    height, width = image_size
    folder = cache / f"{height}x{width}x{channels}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            archive = scratch / "archive"
            artifacts.download(record.artifact_key, archive)
            prepare(archive, folder, image_size, channels)
            archive.unlink()
    return open_dataset(folder)
