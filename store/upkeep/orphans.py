"""`python -m store.upkeep.orphans [--delete]`: artifacts and prepared datasets without a record.

A process that is killed between writing an artifact and writing its record leaves the artifact; so
does a process that is killed while it deletes. And a dataset that a host has prepared for training
stays in its cache when the dataset is deleted. Only files older than a day count: younger ones may
belong to work in progress. Reads the environment as the service does; a bucket's folder must not be
shared with a service that has another database.
"""

import argparse
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from host.environment import read_settings
from store.artifacts import ArtifactStore
from store.database import Database, now, open_database
from store.datasets import DatasetVersion
from store.jobs.record import Job
from store.locations import Locations
from store.models import ModelRecord
from store.pictures import Picture, key_of
from store.upkeep.backup import TOPS
from store.upkeep.trash import kept_artifacts

HOURS = 24.0


def orphaned_artifacts(database: Database, artifacts: ArtifactStore, before: datetime) -> list[str]:
    """Return the keys, sorted, of artifacts without a record, last written before that time."""
    # Artifacts are read before the records: a record is written after its artifacts.
    keys = [key for top in TOPS for key in artifacts.keys(top, before)]
    with database.session() as session:
        versions = session.scalars(sa.select(DatasetVersion)).all()
        models = set(session.scalars(sa.select(ModelRecord.artifact_prefix)))
        jobs = {f"jobs/{job_id}" for job_id in session.scalars(sa.select(Job.id))}
        pictures = set(map(key_of, session.scalars(sa.select(Picture.id))))
        trash = kept_artifacts(session)
    owners = models.union(jobs, pictures, trash, *(version.keys() for version in versions))

    def is_known(key: str) -> bool:
        parts = key.split("/")
        return any("/".join(parts[:depth]) in owners for depth in range(2, len(parts) + 1))

    return [key for key in keys if not is_known(key)]


def orphaned_caches(database: Database, data_dir: Path, before: datetime) -> list[Path]:
    """Return the folders of this host with prepared datasets (worker.dataset_cache) that have no
    record, last written before that time."""
    folders = sorted(lock.parent for lock in (data_dir / "cache").glob("*/lock"))
    with database.session() as session:
        versions = session.scalars(sa.select(DatasetVersion)).all()
    digests = {part.digest for version in versions for part in version.parts}
    return [
        folder
        for folder in folders
        if folder.name not in digests and folder.stat().st_mtime < before.timestamp()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m store.upkeep.orphans", description=__doc__)
    parser.add_argument("--delete", action="store_true", help="delete them, too")
    parser.add_argument("--hours", type=float, default=HOURS, help="how old they must be")
    options = parser.parse_args()
    locations = read_settings(Locations)
    database = open_database(locations.database_url)
    artifacts = ArtifactStore(locations.artifacts_url)
    before = now() - timedelta(hours=options.hours)
    keys = orphaned_artifacts(database, artifacts, before)
    folders = orphaned_caches(database, locations.data_dir, before)
    for name in (*keys, *folders):
        print(name)
    if options.delete:
        for key in keys:
            artifacts.delete(key)
        for folder in folders:
            shutil.rmtree(folder)
    done = "deleted" if options.delete else "found; --delete removes them"
    print(f"{len(keys)} artifacts and {len(folders)} prepared datasets {done}")


if __name__ == "__main__":
    main()
