"""What is deleted by itself, and when: the trash after a week, and what the environment says."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from store.artifacts import ArtifactStore
from store.database import Database, now
from store.jobs.checkpoints import Checkpoint, forget_checkpoints
from store.jobs.events import JobEvent, forget_events
from store.jobs.files import delete_files, log_keys
from store.jobs.metrics import EVALUATIONS_FILE, STEPS_FILE
from store.jobs.parts import forget_parts
from store.jobs.record import DONE, Job
from store.upkeep.keeping import Keeping
from store.upkeep.trash import remove_old


def sweep(database: Database, artifacts: ArtifactStore, keeping: Keeping) -> dict[str, int]:
    """Delete what was kept for long enough; return how many of what. Several processes may do so at
    once."""
    at = now()
    swept = {"trash": remove_old(database, artifacts, at - timedelta(days=keeping.keep_trash))}
    for name, days, forget in (
        ("logs", keeping.keep_logs, _forget_logs),
        ("checkpoints", keeping.keep_checkpoints, _forget_checkpoints),
        ("sample_jobs", keeping.keep_sample_jobs, _forget_sample_jobs),
    ):
        if days:
            swept[name] = forget(database, artifacts, at - timedelta(days=days))
    return {name: count for name, count in swept.items() if count}


def _forget_logs(database: Database, artifacts: ArtifactStore, before: datetime) -> int:
    """Forget the logs and the events of jobs, whose events show that there is something to do."""
    jobs = _ended(database, before, sa.exists().where(JobEvent.job_id == Job.id))
    for job_id in jobs:
        for key in log_keys(artifacts, job_id):
            artifacts.delete(key)
        with database.session() as session:
            forget_events(session, job_id)
    return len(jobs)


def _forget_checkpoints(database: Database, artifacts: ArtifactStore, before: datetime) -> int:
    """Forget the checkpoints of trainings, but for the metrics in them, which belong to the job."""
    jobs = _ended(database, before, sa.exists().where(Checkpoint.job_id == Job.id))
    for job_id in jobs:
        with database.session() as session:
            found = sa.select(Checkpoint.key).where(Checkpoint.job_id == job_id)
            folders = list(session.scalars(found))
            forget_checkpoints(session, job_id)
        for folder in folders:
            for key in artifacts.keys(folder):
                if not key.endswith((f"/{STEPS_FILE}", f"/{EVALUATIONS_FILE}")):
                    artifacts.delete(key)
    return len(jobs)


def _forget_sample_jobs(database: Database, artifacts: ArtifactStore, before: datetime) -> int:
    jobs = _ended(database, before, Job.kind == "sample")
    for job_id in jobs:
        with database.session() as session:
            session.execute(sa.delete(Job).where(Job.id == job_id))
            forget_events(session, job_id)
            forget_parts(session, job_id)
        delete_files(artifacts, job_id)
    return len(jobs)


def _ended(
    database: Database, before: datetime, condition: sa.ColumnElement[bool]
) -> Sequence[str]:
    """Return the ids of jobs that ended before that time and fulfil the condition."""
    query = sa.select(Job.id).where(Job.status.in_(DONE), Job.finished_at < before, condition)
    with database.session() as session:
        return session.scalars(query).all()
