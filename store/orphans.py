"""`python -m store.orphans [--delete]`: what no record knows of.

A process that is killed between an artefact and the record of it leaves the artefact; so does one
that is killed while it deletes. And what a host has prepared of a data set for training stays in
its cache when the set is deleted. Only what is older than a day counts: younger things may be work
under way. Reads the environment as the service does; a bucket's folder must not be shared with a
service that has another database.
"""

import argparse
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from host.environment import read_settings
from store.artifacts import ArtifactStore
from store.database import Database, now, open_database
from store.datasets import DatasetRecord
from store.jobs.record import Job
from store.locations import Locations
from store.models import ModelRecord

HOURS = 24.0


def orphaned_artifacts(database: Database, artifacts: ArtifactStore, before: datetime) -> list[str]:
    """Keys, sorted, of artefacts last written before that time."""
    # First the artefacts, then the records: a record is written after what it tells of.
    keys = [key for top in ("datasets", "jobs", "models") for key in artifacts.keys(top, before)]
    with database.session() as session:
        datasets = set(session.scalars(sa.select(DatasetRecord.artifact_key)))
        models = set(session.scalars(sa.select(ModelRecord.artifact_prefix)))
        jobs = {f"jobs/{job_id}" for job_id in session.scalars(sa.select(Job.id))}
    owners = datasets | models | jobs

    def is_known(key: str) -> bool:
        parts = key.split("/")
        return any("/".join(parts[:depth]) in owners for depth in range(2, len(parts) + 1))

    return [key for key in keys if not is_known(key)]


def orphaned_caches(database: Database, data_dir: Path, before: datetime) -> list[Path]:
    """Folders of this host with data sets prepared for training (worker.dataset_cache)."""
    folders = sorted(lock.parent for lock in (data_dir / "cache").glob("*/lock"))
    with database.session() as session:
        digests = set(session.scalars(sa.select(DatasetRecord.digest)))
    return [
        folder
        for folder in folders
        if folder.name not in digests and folder.stat().st_mtime < before.timestamp()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m store.orphans", description=__doc__)
    parser.add_argument("--delete", action="store_true", help="not only list them")
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
    print(f"{len(keys)} artefacts and {len(folders)} prepared data sets {done}")


if __name__ == "__main__":
    main()
