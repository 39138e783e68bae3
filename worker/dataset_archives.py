"""Archives that become datasets, whether they are uploaded (app.datasets.route) or fetched
(worker.import_job)."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from models.images.dataset import index_archive
from models.images.formats import Reading
from models.images.readers import ArchiveLimits
from store.artifacts import ArtifactStore
from store.database import Database
from store.datasets import INDEX_SUFFIX, DatasetRecord, create_dataset, known_dataset


def store_archive(
    database: Database,
    artifacts: ArtifactStore,
    name: str,
    path: Path,
    *,
    labels: str,
    reading: Reading,
    max_pixels: int,
    counted: Callable[[int], None] | None = None,
) -> tuple[DatasetRecord, bool]:
    """Store an archive with its index, then its record, so that every record has its archive;
    return the record and whether it is new. `counted` is as in index_archive.

    Raises Invalid as index_archive does, InvalidName, and DatasetConflict where other content has
    the name.
    """
    limits = ArchiveLimits(max_pixels=max_pixels)
    summary, index = index_archive(path, limits, choice=labels, reading=reading, counted=counted)
    if known := known_dataset(database, name, summary.digest):
        return known, False
    key = f"datasets/{name}/{summary.digest}"
    artifacts.put_file(key, path)
    artifacts.put_bytes(key + INDEX_SUFFIX, index.to_bytes())
    record = DatasetRecord(
        name=name, num_bytes=path.stat().st_size, artifact_key=key, **asdict(summary)
    )
    return create_dataset(database, record, limits.max_pixels)
