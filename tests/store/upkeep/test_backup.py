"""A backup is whole whatever is deleted meanwhile, and comes back elsewhere, to the bit."""

import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from host.environment import to_environment
from store import nodes
from store.access.audit import AuditEntry, add_entry, list_entries
from store.access.idempotency import Claim, begin, keep_answer
from store.access.keys import create_key, find_key
from store.artifacts import ArtifactStore
from store.database import Database, Record, migrate, open_database, revisions
from store.datasets import DatasetVersion, delete_dataset, get_version
from store.jobs.checkpoints import list_checkpoints
from store.locations import Locations
from store.models import create_model, delete_model, get_model
from store.upkeep.backup import TOPS, Backup, BackupError, FolderTarget, Manifest, TarTarget
from store.upkeep.dump import load, rows, tables
from store.upkeep.restore import FolderSource, check_target, opened, read_manifest, restore
from store.upkeep.trash import remove
from store.upkeep.verify import Verifier
from tests.store.records import a_model
from tests.store.upkeep import test_verify


def fill(database: Database, artifacts: ArtifactStore, folder: Path) -> dict[str, str]:
    """As tests of verifying do, without the version of a dataset that has no artifacts."""
    keys = test_verify.fill(database, artifacts, folder)
    with database.session() as session:
        session.execute(sa.delete(DatasetVersion).where(DatasetVersion.dataset == "photos"))
    return keys


def back_up(database: Database, artifacts: ArtifactStore, path: Path) -> tuple[Backup, list[str]]:
    backup = Backup(
        database, artifacts, "here", TarTarget(path) if path.suffix else FolderTarget(path)
    )
    _, wrong = backup.make()
    return backup, wrong


def all_rows(database: Database) -> list[object]:
    with database.snapshot() as connection:
        return sorted(rows(connection), key=repr)


def all_artifacts(artifacts: ArtifactStore) -> dict[str, str]:
    return {key: artifacts.sha256(key) for top in TOPS for key in artifacts.keys(top)}


@pytest.fixture(params=["sqlite", "postgresql"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty place to restore to."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'elsewhere.sqlite3'}")
    else:
        database = Database(request.getfixturevalue("postgres_url"))
    yield database
    database.close()


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'here.sqlite3'}")
    yield database
    database.close()


@pytest.mark.parametrize("name", ["folder", "file.tar"])
def test_what_is_restored_is_what_was_backed_up(records, artifacts, elsewhere, tmp_path, name):
    fill(records, artifacts, tmp_path / "model")
    _, key = create_key(records, "alice", ["read"])
    claim = Claim.of("alice", "once", b"body")
    begin(records, claim, "node", is_mine=False)
    keep_answer(records, claim, 201, [("a", "b")], b"\x00\xff")
    entry = {"action": "DELETE", "path": "/", "status": 204, "request_id": "1"}
    add_entry(records, AuditEntry(**entry))
    path = tmp_path / name
    _, wrong = back_up(records, artifacts, path)
    assert wrong == []

    other = ArtifactStore(str(tmp_path / "other"))
    with opened(path, tmp_path) as source:
        manifest = read_manifest(source)
        check_target(elsewhere, other, manifest, replace=False)
        counts, damaged = restore(source, manifest, elsewhere, other)
    assert damaged == []
    assert (counts["models"], counts["dataset_versions"], counts["idempotency"]) == (2, 2, 1)
    assert counts["pictures"] == 1
    assert all_rows(elsewhere) == all_rows(records)
    assert all_artifacts(other) == all_artifacts(artifacts)
    assert list(Verifier(elsewhere, other, tmp_path).walk()) == []
    assert find_key(elsewhere, key) is not None
    begun = begin(elsewhere, claim, "node", is_mine=False)
    assert begun is not None
    assert begun.body == b"\x00\xff"
    add_entry(elsewhere, AuditEntry(**entry))  # its number goes on
    assert [each.number for each in list_entries(elsewhere, limit=5)[0]] == [2, 1]


def test_artifacts_come_from_a_bucket_and_go_to_one(records, s3_url, s3_server, tmp_path):
    here, there = ArtifactStore(s3_url), ArtifactStore(s3_server.new_bucket())
    fill(records, here, tmp_path / "model")
    here.put_bytes("jobs/unknown/large", bytes(9 << 20))  # no record needs it
    first, wrong = back_up(records, here, tmp_path / "backup")
    assert wrong == []
    assert first.copied.keys() == all_artifacts(here).keys() - {"jobs/unknown/large"}
    assert back_up(records, here, tmp_path / "backup")[0].num_copied == 0
    source = FolderSource(tmp_path / "backup")
    other = Database(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    _, damaged = restore(source, read_manifest(source), other, there)
    assert damaged == []
    assert list(Verifier(other, there, tmp_path).walk()) == []
    other.close()


def test_a_place_that_is_not_empty_is_refused_or_replaced(records, artifacts, elsewhere, tmp_path):
    fill(records, artifacts, tmp_path / "model")
    back_up(records, artifacts, tmp_path / "backup")
    source = FolderSource(tmp_path / "backup")
    manifest = read_manifest(source)
    other = ArtifactStore(str(tmp_path / "other"))
    other.put_bytes("models/stale", b"1")
    with pytest.raises(BackupError, match="artifacts is not empty; --replace"):
        check_target(elsewhere, other, manifest, replace=False)
    with elsewhere.engine.begin() as connection:
        migrate(connection)
    create_model(elsewhere, a_model("mine"))
    with pytest.raises(BackupError, match="database is not empty; --replace"):
        check_target(elsewhere, other, manifest, replace=False)
    nodes.heartbeat(elsewhere, "worker")
    with pytest.raises(BackupError, match=r"worker-.* uses this database; stop the service first"):
        check_target(elsewhere, other, manifest, replace=True)
    nodes.leave(elsewhere, "worker")
    check_target(elsewhere, other, manifest, replace=True)
    restore(source, manifest, elsewhere, other)
    assert all_rows(elsewhere) == all_rows(records)
    assert all_artifacts(other) == all_artifacts(artifacts)


def test_a_second_backup_to_a_folder_copies_what_is_new_and_drops_what_is_gone(
    records, artifacts, tmp_path
):
    fill(records, artifacts, tmp_path / "model")
    first, _ = back_up(records, artifacts, tmp_path / "backup")
    assert first.num_copied > 8
    same, _ = back_up(records, artifacts, tmp_path / "backup")
    assert same.num_copied == 0
    remove(records, artifacts, "datasets", delete_dataset(records, "pets").id)
    new = a_model("new")
    new.files = {"w": artifacts.put_bytes("models/new/w", b"new")}
    create_model(records, new)
    second, wrong = back_up(records, artifacts, tmp_path / "backup")
    assert wrong == []
    assert second.num_copied == 2  # the records and the model
    manifest = Manifest.from_json((tmp_path / "backup" / "manifest.json").read_bytes())
    assert manifest.artifacts.keys() == all_artifacts(artifacts).keys()
    files = {p.name for p in (tmp_path / "backup" / "files").glob("*/*")}
    assert files == {manifest.records, *(each.sha256 for each in manifest.artifacts.values())}


class Deleting(ArtifactStore):
    """A store in which something is deleted right before the first copy."""

    def __init__(self, url: str, delete) -> None:
        super().__init__(url)
        self._delete = delete

    def download(self, key, path, sha256=None):
        delete, self._delete = self._delete, lambda: None
        delete()
        return super().download(key, path, sha256)


def test_what_is_deleted_while_it_is_copied_is_not_in_the_backup(records, artifacts, tmp_path):
    fill(records, artifacts, tmp_path / "model")

    def delete() -> None:
        for entry in (delete_model(records, "faces"), delete_dataset(records, "pets")):
            remove(records, artifacts, entry.collection, entry.id)

    deleting = Deleting(str(tmp_path / "artifacts"), delete)
    backup, wrong = back_up(records, deleting, tmp_path / "backup")
    assert wrong == []
    assert backup.copied.keys() >= all_artifacts(artifacts).keys()
    manifest = read_manifest(FolderSource(tmp_path / "backup"))
    assert manifest.artifacts.keys() == all_artifacts(artifacts).keys()
    other = open_database(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    place = ArtifactStore(str(tmp_path / "other"))
    restore(FolderSource(tmp_path / "backup"), manifest, other, place)
    assert list(Verifier(other, place, tmp_path).walk()) == []
    other.close()


def test_writers_do_not_wait_for_a_snapshot_and_do_not_change_it(database):
    create_model(database, a_model("before"))
    with database.snapshot() as connection:
        assert len([row for row in rows(connection) if row[0] == "models"]) == 1
        writer = threading.Thread(target=create_model, args=(database, a_model("after")))
        writer.start()
        writer.join(10)
        assert not writer.is_alive()
        assert len([row for row in rows(connection) if row[0] == "models"]) == 1
    assert get_model(database, "after")


def test_what_is_missing_or_damaged_at_its_place_is_said_and_the_rest_is_kept(
    records, artifacts, tmp_path
):
    keys = fill(records, artifacts, tmp_path / "model")
    artifacts.delete(keys["archive"])
    artifacts.put_bytes(keys["weights"], b"other")
    _, wrong = back_up(records, artifacts, tmp_path / "backup")
    assert wrong == [
        f"missing  {keys['archive']}",
        f"damaged  {keys['weights']}: its sha256 is not that of its record",
    ]


def test_a_file_that_was_damaged_in_the_backup_is_left_out(records, artifacts, tmp_path, elsewhere):
    keys = fill(records, artifacts, tmp_path / "model")
    back_up(records, artifacts, tmp_path / "backup")
    source = FolderSource(tmp_path / "backup")
    manifest = read_manifest(source)
    (tmp_path / "backup" / manifest.artifacts[keys["archive"]].name).write_bytes(b"other")
    (tmp_path / "backup" / manifest.artifacts[keys["image"]].name).unlink()
    other = ArtifactStore(str(tmp_path / "other"))
    _, damaged = restore(source, manifest, elsewhere, other)
    assert damaged == [keys["archive"], keys["image"]]
    assert [error.key for error in Verifier(elsewhere, other, tmp_path).walk()] == [keys["archive"]]
    (tmp_path / "backup" / f"files/{manifest.records[:2]}/{manifest.records}").write_bytes(b"")
    with pytest.raises(BackupError, match="the records are damaged"):
        restore(source, manifest, elsewhere, other)
    assert get_model(elsewhere, "faces")  # as it was


def test_a_backup_of_an_earlier_schema_is_migrated(tmp_path, elsewhere):
    earlier = [
        (
            "models",
            {
                "name": "faces",
                "digest": "0",
                "details": {},
                "artifact_prefix": "models/f",
                "num_bytes": 1,
                "created_at": "2026-01-01T00:00:00+00:00",
            },
        ),
    ]
    with elsewhere.engine.begin() as connection:
        load(connection, "0012", earlier)
    model = get_model(elsewhere, "faces")
    assert (model.visibility, model.files, model.made_by) == ("private", None, None)
    assert model.created_at.isoformat() == "2026-01-01T00:00:00+00:00"


def test_a_backup_of_a_later_schema_is_refused(records, artifacts, tmp_path):
    fill(records, artifacts, tmp_path / "model")
    back_up(records, artifacts, tmp_path / "backup")
    path = tmp_path / "backup" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "9999"}))
    manifest = read_manifest(FolderSource(tmp_path / "backup"))
    with pytest.raises(BackupError, match="schema 9999, which this version does not know"):
        check_target(records, artifacts, manifest, replace=True)


def test_every_table_of_the_schema_is_dumped(database):
    with database.engine.connect() as connection:
        found = {table.name for table in tables(connection)}
    there = set(sa.inspect(database.engine).get_table_names())
    assert found == there - {"alembic_version"} == Record.metadata.tables.keys()


def test_the_commands_say_what_they_did_and_leave_nothing_where_they_fail(tmp_path):
    here, there = Locations(tmp_path / "here"), Locations(tmp_path / "there")
    database = open_database(here.database_url)
    artifacts = ArtifactStore(here.artifacts_url)
    fill(database, artifacts, tmp_path / "model")

    def run(locations: Locations, *arguments: object) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "app.cli.main", *map(str, arguments)],
            env={**os.environ, **to_environment(locations)},
            capture_output=True,
            text=True,
        )

    tar = tmp_path / "backup.tar"
    done = run(here, "backup", tar)
    assert (done.returncode, done.stderr) == (0, "")
    assert "the records and 14 artifacts of " in done.stdout
    assert tar.stat().st_mode & 0o777 == 0o600
    again = run(here, "backup", tar)
    assert (again.returncode, again.stderr) == (
        1,
        f"diffusion backup: {tar} is there already; choose another file, or a folder\n",
    )
    assert "is not a backup" in run(there, "restore", here.data_dir / "diffusion.sqlite3").stderr
    done = run(there, "restore", tar)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 records of models\n" in done.stdout
    restored = open_database(there.database_url)
    assert len(list_checkpoints(restored, restored_job(restored))) == 1
    assert get_version(restored, "pets").number == 2
    restored.close()
    assert run(there, "verify").returncode == 0
    refused = run(there, "restore", tar)
    assert refused.stderr == (
        "diffusion restore: the database is not empty; --replace deletes what is there\n"
    )
    assert run(there, "restore", tar, "--replace").returncode == 0
    with tarfile.open(tar) as members:
        assert members.getnames()[-1] == "manifest.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "backup.tar",
        "here",
        "model",
        "there",
    ]
    database.close()
    with opened(tar, tmp_path) as source:
        assert read_manifest(source).revision == revisions()[-1]


def restored_job(database: Database) -> str:
    with database.engine.connect() as connection:
        return connection.scalar(sa.text("SELECT job_id FROM job_checkpoints"))
