"""Damage: indexes and manifests compared with their records, and what was found, marked in the
record that it belongs to.

store.artifacts compares what is fetched with a sha256; store.upkeep.verify walks everything.
"""

import gzip
import hashlib
import zlib
from pathlib import PurePosixPath

import sqlalchemy as sa

from store.artifacts import ArtifactStore
from store.database import Database, now
from store.datasets import DatasetRecord, DatasetVersion, Part
from store.errors import ArtifactDamaged, ArtifactNotFound
from store.jobs.checkpoints import Checkpoint
from store.models import ModelRecord
from store.pictures import FOLDER, Picture


def read_index(artifacts: ArtifactStore, part: Part) -> bytes:
    """Return the index of a part, compressed. Raises ArtifactNotFound, for a part from before there
    were any, and ArtifactDamaged."""
    sha256 = part.sha256_of(part.index_key)
    try:
        content = artifacts.get_bytes(part.index_key, sha256)
    except ArtifactNotFound:
        if sha256 is None:
            raise
        raise ArtifactDamaged(part.index_key, "it is missing") from None
    _unpacked(part.index_key, content)
    return content


def read_manifest(artifacts: ArtifactStore, key: str, digest: str) -> bytes:
    """Return the manifest of the version that has this digest, compressed. Raises ArtifactDamaged,
    also where it is missing."""
    try:
        content = artifacts.get_bytes(key)
    except ArtifactNotFound:
        raise ArtifactDamaged(key, "it is missing") from None
    found = hashlib.sha256(_unpacked(key, content)).hexdigest()
    if found != digest:
        raise ArtifactDamaged.differs(key, found, digest)
    return content


def _unpacked(key: str, content: bytes) -> bytes:
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise ArtifactDamaged(key, f"it cannot be unpacked: {error}") from None


def mark_damage(database: Database, error: ArtifactDamaged) -> None:
    """Write what was found into the record that the artifact belongs to: of a model, a dataset, a
    checkpoint or a picture. Nothing else of a job has a record for it."""
    found = f"{now():%Y-%m-%d %H:%M} UTC: {error}"
    key = PurePosixPath(error.key)
    above = [str(key), *map(str, key.parents)]
    owners = (
        (ModelRecord, ModelRecord.artifact_prefix.in_(above)),
        (Checkpoint, Checkpoint.key.in_(above)),
        (Picture, Picture.id == error.key.removeprefix(f"{FOLDER}/")),
        (DatasetRecord, DatasetRecord.name.in_(_datasets_with(database, error.key))),
    )
    with database.session() as session:
        for record, belongs in owners:
            session.execute(sa.update(record).where(belongs).values(damage=found))


def _datasets_with(database: Database, key: str) -> set[str]:
    if not key.startswith("datasets/"):
        return set()
    with database.session() as session:
        versions = session.scalars(sa.select(DatasetVersion)).all()
    return {version.dataset for version in versions if {key} & version.keys()}
