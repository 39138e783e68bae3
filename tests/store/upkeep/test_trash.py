"""What was deleted comes back as it was, or goes for good; what is kept goes when it is old."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import sqlalchemy as sa

from store.access.owners import Caller, Quotas
from store.access.quotas import check_space, usage_of
from store.database import Database, now
from store.datasets import delete_dataset, get_dataset, list_versions
from store.errors import (
    DatasetNotFound,
    JobNotFound,
    ModelNotFound,
    NameTaken,
    NotFound,
    NotInTrash,
    NotYours,
    QuotaExceeded,
)
from store.jobs.checkpoints import Checkpoint, list_checkpoints
from store.jobs.events import events_after
from store.jobs.metrics import STEPS_FILE
from store.jobs.record import Job
from store.jobs.requests import create_job, delete_job, get_job, request_cancel
from store.models import create_model, delete_model, get_model
from store.upkeep.backup import Needs
from store.upkeep.dump import load, rows
from store.upkeep.keeping import Keeping
from store.upkeep.orphans import orphaned_artifacts
from store.upkeep.retention import sweep
from store.upkeep.trash import TrashEntry, list_trash, remove, restore
from tests.store.records import a_job, a_model
from tests.store.upkeep.test_verify import fill_dataset


def all_rows(database):
    with database.snapshot() as connection:
        return sorted((row for row in rows(connection) if row[0] != "trash"), key=repr)


def a_done_job(database, artifacts):
    """A training that was cancelled, with a checkpoint and a log."""
    job = a_job(database)
    attempt = f"jobs/{job.id}/attempt-1"
    folder = f"{attempt}/checkpoint-00000010"
    for key in (f"{folder}/weights", f"{folder}/{STEPS_FILE}", f"{attempt}/log.jsonl"):
        artifacts.put_bytes(key, b"{}")
    with database.session() as session:
        session.add(
            Checkpoint(job_id=job.id, step=10, key=folder, num_bytes=1, seconds=1.0, score=None)
        )
    return request_cancel(database, job.id)


def test_what_was_deleted_is_gone_and_comes_back_as_it_was(database, artifacts):
    job = a_done_job(database, artifacts)
    fill_dataset(database, artifacts)
    create_model(database, a_model("faces"))
    before = all_rows(database)
    deleted = [
        delete_dataset(database, "pets"),
        delete_model(database, "faces"),
        delete_job(database, job.id, "train"),
    ]
    for kind, get in (
        (DatasetNotFound, lambda: get_dataset(database, "pets")),
        (ModelNotFound, lambda: get_model(database, "faces")),
        (JobNotFound, lambda: get_job(database, job.id)),
    ):
        with pytest.raises(kind):
            get()
    assert events_after(database, job.id, 0, 9) == ([], False)
    assert orphaned_artifacts(database, artifacts, now() + timedelta(days=1)) == []
    found, has_more = list_trash(database, limit=2)
    assert ([e.name for e in found], has_more) == ([job.id, "faces"], True)
    assert list_trash(database, limit=2, after=found[-1].id)[0][0].name == "pets"
    for entry in deleted:
        restore(database, entry.collection, entry.id)
        with pytest.raises(NotInTrash):
            restore(database, entry.collection, entry.id)
    assert all_rows(database) == before
    assert list_trash(database, limit=2) == ([], False)
    assert [v.number for v in list_versions(database, "pets", limit=5)[0]] == [2, 1]
    assert len(list_checkpoints(database, job.id)) == 1


def test_of_two_who_delete_at_once_one_does(database):
    for number in range(5):
        create_model(database, a_model(f"faces-{number}"))
        with ThreadPoolExecutor(2) as pool:
            tries = [pool.submit(delete_model, database, f"faces-{number}") for _ in range(2)]
        assert sorted(each.exception() is None for each in tries) == [False, True]
        assert all(isinstance(each.exception(), NotFound | None) for each in tries)
        assert len(list_trash(database, limit=9)[0]) == number + 1


def test_a_name_is_free_at_once_and_what_has_it_by_then_is_in_the_way(database, artifacts):
    create_model(database, a_model("faces", "1"))
    fill_dataset(database, artifacts)
    model, dataset = delete_model(database, "faces"), delete_dataset(database, "pets")
    create_model(database, a_model("faces", "2"))
    with pytest.raises(NameTaken, match="there is a model 'faces' by now; delete it"):
        restore(database, "models", model.id)
    second = delete_model(database, "faces")
    job = a_job(database)  # it will make a model of that name
    with pytest.raises(NameTaken, match=f"job '{job.id}' is about to make a model 'faces'"):
        restore(database, "models", model.id)
    request_cancel(database, job.id)
    restore(database, "models", model.id)
    assert get_model(database, "faces").digest == "1"
    fill_dataset(database, artifacts)
    with pytest.raises(NameTaken, match="there is a dataset 'pets' by now"):
        restore(database, "datasets", dataset.id)
    with pytest.raises(NotInTrash):
        restore(database, "datasets", second.id)  # it is a model


def test_what_is_removed_leaves_no_artifact(database, artifacts):
    job = a_done_job(database, artifacts)
    fill_dataset(database, artifacts)
    artifacts.put_bytes("models/faces/w", b"1")
    artifacts.put_bytes("models/faces-2/w", b"1")
    create_model(database, a_model("faces"))
    for entry in (
        delete_dataset(database, "pets"),
        delete_model(database, "faces"),
        delete_job(database, job.id, "train"),
    ):
        remove(database, artifacts, entry.collection, entry.id)
        with pytest.raises(NotInTrash):
            remove(database, artifacts, entry.collection, entry.id)
    left = [key for top in ("datasets", "models", "jobs") for key in artifacts.keys(top)]
    assert left == ["models/faces-2/w"]


def test_space_in_the_trash_counts_until_it_is_emptied_by_its_owner(database, artifacts):
    quotas = Quotas(quota_bytes=10)
    alice, bob = (database.for_caller(Caller(name, quotas=quotas)) for name in ("alice", "bob"))
    mine = a_model("faces")
    mine.num_bytes = 8
    create_model(alice, mine)
    entry = delete_model(alice, "faces")
    assert usage_of(alice)["bytes"]["used"] == 8
    with pytest.raises(QuotaExceeded, match="of which 8 are in the trash, which you can empty"):
        check_space(alice, 3)
    assert list_trash(bob, limit=5) == ([], False)
    for act in (
        lambda: restore(bob, "models", entry.id),
        lambda: remove(bob, artifacts, "models", entry.id),
    ):
        with pytest.raises((NotInTrash, NotYours)):
            act()
    remove(alice, artifacts, "models", entry.id)
    check_space(alice, 3)
    assert usage_of(alice)["bytes"]["used"] == 0


def test_what_an_administrator_deletes_returns_to_its_owner(database):
    alice = database.for_caller(Caller("alice"))
    create_model(alice, a_model("faces"))
    root = database.for_caller(Caller("root", sees_all=True))
    entry = delete_model(root, "alice:faces")
    assert [each.made_by for each in list_trash(alice, limit=5)[0]] == ["alice"]
    restore(alice, "models", entry.id)
    assert get_model(alice, "faces").made_by == "alice"


def test_rows_of_an_earlier_schema_are_migrated_when_they_return(database):
    create_model(database, a_model("faces"))
    entry = delete_model(database, "faces")
    with database.session() as session:
        kept = session.get(TrashEntry, entry.id)
        then = ("name", "digest", "job_id", "dataset", "artifact_prefix", "num_bytes", "created_at")
        values = {name: kept.rows[0][1][name] for name in then}
        details = {"scores": {"made": {"frechet": 0.5}}}
        kept.rows, kept.revision = [["models", {**values, "details": details}]], "0006"
    restore(database, "models", entry.id)
    model = get_model(database, "faces")
    assert model.details == {"scores": {"float32": {"made": {"frechet": 0.5}}}}  # by 0007
    assert (model.visibility, model.files) == ("private", None)


def test_a_backup_has_the_trash_with_its_artifacts(database, artifacts, tmp_path):
    fill_dataset(database, artifacts)
    before = all_rows(database)
    entry = delete_dataset(database, "pets")
    needs = Needs()
    with database.snapshot() as connection:
        found = list(rows(connection))
    for row in found:
        needs.add(row)
    assert set(entry.artifacts) == set(artifacts.keys("datasets")) == needs.files.keys()
    other = Database(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    with other.engine.begin() as connection:
        load(connection, entry.revision, found)
    restore(other, "datasets", entry.id)
    assert all_rows(other) == before
    other.close()


def age(database, days):
    """Let all that was deleted, and all jobs that ended, have done so days ago."""
    at = now() - timedelta(days=days)
    with database.session() as session:
        session.execute(sa.update(TrashEntry).values(deleted_at=at))
        session.execute(sa.update(Job).where(Job.finished_at.is_not(None)).values(finished_at=at))


def test_by_default_only_the_trash_is_emptied_after_a_week(database, artifacts):
    job = a_done_job(database, artifacts)
    create_model(database, a_model("faces"))
    delete_model(database, "faces")
    age(database, 6.9)
    assert sweep(database, artifacts, Keeping()) == {}
    age(database, 1000)
    kept = all_rows(database)
    files = artifacts.keys("jobs")
    assert sweep(database, artifacts, Keeping()) == {"trash": 1}
    assert list_trash(database, limit=1) == ([], False)
    assert (all_rows(database), artifacts.keys("jobs")) == (kept, files)
    assert get_job(database, job.id)


def test_logs_events_and_checkpoints_of_jobs_that_ended_are_kept_as_long_as_is_said(
    database, artifacts
):
    old = a_done_job(database, artifacts)
    age(database, 3)
    new, running = a_done_job(database, artifacts), a_job(database, "other")
    keeping = Keeping(keep_logs=2, keep_checkpoints=2)
    assert sweep(database, artifacts, keeping) == {"logs": 1, "checkpoints": 1}
    assert sweep(database, artifacts, keeping) == {}
    assert events_after(database, old.id, 0, 9)[0] == []
    assert list_checkpoints(database, old.id) == []
    metrics = f"jobs/{old.id}/attempt-1/checkpoint-00000010/{STEPS_FILE}"
    assert artifacts.keys(f"jobs/{old.id}") == [metrics]
    assert len(artifacts.keys(f"jobs/{new.id}")) == 3
    for job in (new, running):
        assert events_after(database, job.id, 0, 9)[0]


def test_sample_jobs_go_with_their_images(database, artifacts):
    old, running = (create_job(database, "sample", config={}) for _ in range(2))
    training = a_done_job(database, artifacts)
    for job in (old, running):
        artifacts.put_bytes(f"jobs/{job.id}/images/00000000.png", b"1")
    request_cancel(database, old.id)
    age(database, 3)
    assert sweep(database, artifacts, Keeping(keep_sample_jobs=4)) == {}
    assert sweep(database, artifacts, Keeping(keep_sample_jobs=2)) == {"sample_jobs": 1}
    with pytest.raises(JobNotFound):
        get_job(database, old.id)
    assert artifacts.keys(f"jobs/{old.id}") == []
    assert len(artifacts.keys(f"jobs/{running.id}")) == 1
    assert get_job(database, training.id)
