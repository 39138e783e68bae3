"""Archives that become datasets, whether they are uploaded (app.datasets.route) or fetched
(worker.import_job)."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from models.images.dataset import index_archive
from models.images.formats import Reading
from models.images.index import Index
from models.images.readers import ArchiveLimits
from store.artifacts import ArtifactStore
from store.database import Database
from store.datasets import (
    DatasetRecord,
    Part,
    create_dataset,
    first_version,
    known_dataset,
)


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
    record = DatasetRecord(
        name=name, num_bytes=path.stat().st_size, artifact_key=key, **asdict(summary)
    )
    (part,) = first_version(record).parts
    artifacts.put_file(key, path)
    store_index(artifacts, part, index)
    return create_dataset(database, record, max_pixels)


def store_index(artifacts: ArtifactStore, part: Part, index: Index) -> None:
    """Store the index of a part, and its fingerprints before it."""
    assert index.fingerprints is not None, "an index that was read is stored already"
    artifacts.put_bytes(part.fingerprints_key, index.fingerprints.tobytes())
    artifacts.put_bytes(part.index_key, index.to_bytes())
