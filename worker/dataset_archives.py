"""Archives that become datasets, whether they are uploaded (app.datasets.route) or fetched
(worker.import_job)."""

import secrets
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from models.images.dataset import index_archive
from models.images.formats import Reading
from models.images.index import Index
from models.images.readers import ArchiveLimits
from store.access.owners import new_name
from store.access.quotas import check_space
from store.artifacts import ArtifactStore
from store.database import Database
from store.datasets import (
    DatasetRecord,
    Part,
    create_dataset,
    first_version,
    get_version,
    known_dataset,
    restore_dataset,
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
    return the record and whether it is new. One that is there already and was found damaged is
    stored anew. `counted` is as in index_archive.

    Raises Invalid as index_archive does, InvalidName, QuotaExceeded, and DatasetConflict where
    other content has the name.
    """
    name = new_name(database.caller, "dataset", name)
    limits = ArchiveLimits(max_pixels=max_pixels)
    summary, index = index_archive(path, limits, choice=labels, reading=reading, counted=counted)
    if known := known_dataset(database, name, summary.digest):
        if known.damage is not None:
            part = get_version(database, name, 1).parts[0]
            files = _store_part(artifacts, part, path, index)
            known = restore_dataset(database, name, files)
        return known, False
    check_space(database, path.stat().st_size)
    key = f"datasets/{name}/{summary.digest}-{secrets.token_hex(4)}"  # the trash may have others
    record = DatasetRecord(
        name=name, num_bytes=path.stat().st_size, artifact_key=key, **asdict(summary)
    )
    (part,) = first_version(record).parts
    files = _store_part(artifacts, part, path, index)
    return create_dataset(database, record, max_pixels, files)


def _store_part(artifacts: ArtifactStore, part: Part, path: Path, index: Index) -> dict[str, str]:
    archive = artifacts.put_file(part.key, path)
    return {part.key: archive, **store_index(artifacts, part, index)}


def store_index(artifacts: ArtifactStore, part: Part, index: Index) -> dict[str, str]:
    """Store the index of a part, and its fingerprints before it; return the sha256 of each by its
    key."""
    assert index.fingerprints is not None, "an index that was read is stored already"
    contents = {
        part.fingerprints_key: index.fingerprints.tobytes(),
        part.index_key: index.to_bytes(),
    }
    return {key: artifacts.put_bytes(key, content) for key, content in contents.items()}
