"""What no record knows of is found, and nothing else is."""

import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from host.environment import to_environment
from store.artifacts import ArtifactStore
from store.database import Database, now, open_database
from store.locations import Locations
from store.models import create_model, delete_model
from store.pictures import Filters, delete_pictures, keep_pictures, list_pictures
from store.upkeep.backup import TOPS
from store.upkeep.orphans import orphaned_artifacts, orphaned_caches
from store.upkeep.trash import TrashEntry
from tests.store.records import a_job, a_model, a_picture

LATER = timedelta(hours=1)


@pytest.fixture(params=["folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "s3":
        return ArtifactStore(request.getfixturevalue("s3_url"))
    return ArtifactStore(str(tmp_path / "artifacts"))


def fill(database: Database, artifacts: ArtifactStore) -> list[str]:
    """With what records know, and what they do not; the keys of the latter."""
    job = a_job(database)  # with a data set, photos
    create_model(database, a_model("faces"))
    orphans = [
        "datasets/photos.zip.index.old",
        "jobs/job_0/attempt-1/checkpoint-00000010/state.pt",
        "models/faces-2/1234/unet/config.json",
        "pictures/66161b95621b60dca",
    ]
    keep_pictures(database, artifacts, [a_picture("a"), a_picture("b")], 2)
    (newest,) = list_pictures(database, Filters(), limit=1)[0]
    delete_pictures(database, [newest.id])  # it is in the trash
    known = [
        "datasets/photos.zip",
        "datasets/photos.zip.index",
        "datasets/photos.zip.fingerprints",
        f"jobs/{job.id}/attempt-1/checkpoint-00000010/state.pt",
        f"jobs/{job.id}/samples/00000010.png",
        "models/faces/unet/config.json",
    ]
    for key in (*orphans, *known):
        artifacts.put_bytes(key, b"x")
    return orphans


def test_only_what_no_record_knows_is_found(database, artifacts):
    orphans = fill(database, artifacts)
    assert orphaned_artifacts(database, artifacts, now() + LATER) == orphans
    entry = delete_model(database, "faces")
    assert orphaned_artifacts(database, artifacts, now() + LATER) == orphans  # it is in the trash
    with database.session() as session:
        session.delete(session.get(TrashEntry, entry.id))
    orphans.append("models/faces/unet/config.json")
    assert orphaned_artifacts(database, artifacts, now() + LATER) == sorted(orphans)


def test_what_is_young_may_be_work_under_way(database, artifacts):
    fill(database, artifacts)
    assert orphaned_artifacts(database, artifacts, now() - LATER) == []


def test_prepared_data_sets_are_kept_while_there_is_a_record(database, tmp_path):
    a_job(database)  # its data set's digest is d
    for digest in ("d", "gone"):
        (tmp_path / "cache" / digest / "8x8x1").mkdir(parents=True)
        (tmp_path / "cache" / digest / "lock").touch()
    (tmp_path / "cache" / "compiled" / "net").mkdir(parents=True)  # the engine's
    assert orphaned_caches(database, tmp_path, now() + LATER) == [tmp_path / "cache" / "gone"]
    assert orphaned_caches(database, tmp_path, now() - LATER) == []


def test_the_command_deletes_only_when_it_is_told_to(tmp_path):
    locations = Locations(tmp_path)
    database, artifacts = (
        open_database(locations.database_url),
        ArtifactStore(locations.artifacts_url),
    )
    orphans = fill(database, artifacts)
    database.close()
    before = [key for top in TOPS for key in artifacts.keys(top)]
    time.sleep(0.01)

    def run(*options: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "store.upkeep.orphans", *options],
            env={**os.environ, **to_environment(locations)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    assert run() == ["0 artifacts and 0 prepared datasets found; --delete removes them"]
    assert run("--hours", "0")[:-1] == orphans
    assert [key for top in TOPS for key in artifacts.keys(top)] == before
    assert run("--hours", "0", "--delete") == [
        *orphans,
        "4 artifacts and 0 prepared datasets deleted",
    ]
    assert run("--hours", "0")[:-1] == []
    left = [key for top in TOPS for key in artifacts.keys(top)]
    assert left == [key for key in before if key not in orphans]
