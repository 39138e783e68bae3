"""A worker deletes what was kept for long enough, and a round that fails is not the last."""

import time
from datetime import timedelta

import sqlalchemy as sa

from store.artifacts import ArtifactStore
from store.database import now, open_database
from store.errors import JobNotFound
from store.jobs import requests
from store.jobs.record import Job
from store.upkeep.keeping import Keeping
from worker.sweeper import Sweeper

KEEPING = {"DIFFUSION_KEEP_SAMPLE_JOBS": "2"}  # days


def an_old_job(database) -> str:
    """A sample job that ended three days ago."""
    job = requests.create_job(database, "sample", config={})
    requests.request_cancel(database, job.id)
    with database.session() as session:
        ended = sa.update(Job).where(Job.id == job.id).values(finished_at=now() - timedelta(days=3))
        session.execute(ended)
    return job.id


def is_there(database, job_id: str) -> bool:
    try:
        return bool(requests.get_job(database, job_id))
    except JobNotFound:
        return False


def test_a_worker_sweeps_when_it_starts(place):
    old, new = an_old_job(place.database), requests.create_job(place.database, "sample", config={})
    place.start_worker("import", **KEEPING)
    place.until(lambda: not is_there(place.database, old))
    assert is_there(place.database, new.id)


def test_a_round_that_fails_is_not_the_last(tmp_path):
    database = open_database(f"sqlite:///{tmp_path / 'database'}")
    job_id = an_old_job(database)
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    artifacts.put_bytes(f"jobs/{job_id}/images/00000000.png", b"1")
    with database.session() as session:
        session.execute(sa.text("ALTER TABLE job_events RENAME TO away"))
    sweeper = Sweeper(database, artifacts, Keeping(keep_sample_jobs=2), every_seconds=0.05)
    sweeper.start()
    try:
        sweeper.join(0.5)
        assert sweeper.is_alive()
        assert is_there(database, job_id)
        with database.session() as session:
            session.execute(sa.text("ALTER TABLE away RENAME TO job_events"))
        deadline = time.monotonic() + 30
        while is_there(database, job_id):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        sweeper.stop()
        sweeper.join(10)  # the round that forgets the job deletes its files after it
        database.close()
    assert not sweeper.is_alive()
    assert artifacts.keys(f"jobs/{job_id}") == []
