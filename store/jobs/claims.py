"""What workers do with jobs: each holds one by a fence and a lease.

A worker claims a job by one compare-and-swap that raises its `fence`; every later write of that
worker says `where fence = mine`, so that one which lost its lease can change nothing any more. A
worker's loss returns the job to the next claim, with its checkpoint. A running job that is to be
cancelled or paused carries the wish until its worker, or whoever finds that lost, has fulfilled it.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa

from store import nodes
from store.database import Database, now
from store.errors import LostLease, ModelConflict
from store.jobs import transitions
from store.jobs.checkpoints import Checkpoint, keep_checkpoint
from store.jobs.events import EventType
from store.jobs.kinds import Kind
from store.jobs.record import Job, Status
from store.models import ModelRecord

Wish = Literal["cancel", "pause"]

GPU = "cuda"
MAX_ATTEMPTS = 5  # without a new checkpoint in between


def claim_next(
    database: Database, kind: Kind, owner: str, lease_seconds: float, device: str | None = None
) -> tuple[str, int] | None:
    """Of the jobs that wait, the one of the highest priority, and of those the oldest: its id, and
    the fence under which it is ours. None where no job waits for one who computes on `device`."""
    first = (
        sa.select(Job.id)
        .where(Job.kind == kind, transitions.free(), _suits(device))
        .order_by(Job.priority.desc(), Job.id)
        .limit(1)
    )
    while True:
        with database.session() as session:
            job_id = session.scalars(first).first()
        if job_id is None:
            return None
        if (fence := claim(database, job_id, owner, lease_seconds)) is not None:
            return job_id, fence


def _suits(device: str | None) -> sa.ColumnElement[bool]:
    """What was planned for a GPU waits for one, as long as there is a live worker that has it."""
    if device == GPU:
        return sa.true()
    return sa.or_(Job.device.is_distinct_from(GPU), sa.not_(nodes.has_worker(GPU)))


def claim(database: Database, job_id: str, owner: str, lease_seconds: float) -> int | None:
    """The fence under which this job is ours, or None: another has it, or it does not wait.

    The sixth attempt in a row without a new checkpoint fails the job instead; one that was to be
    paused or cancelled when its worker was lost is so now.
    """
    with database.session() as session:
        job = transitions.locked(session, sa.and_(Job.id == job_id, transitions.free()))
        if job is None:
            return None
        if job.status == "running":
            transitions.tell_all(session, job_id, "lost", step=job.checkpoint_step or 0)
            if transitions.fulfil(session, job):
                return None
        if job.attempts >= MAX_ATTEMPTS:
            message = f"{MAX_ATTEMPTS} attempts in a row ended without a new checkpoint"
            transitions.fail(session, Job.id == job_id, job_id, "crashed", message)
            return None
        at = now()
        transitions.update(
            session,
            Job.id == job_id,
            status="running",
            fence=job.fence + 1,
            attempts=job.attempts + 1,
            owner=owner,
            lease_expires_at=at + timedelta(seconds=lease_seconds),
            started_at=job.started_at or at,
        )
        event: EventType = "resumed" if job.fence else "started"
        transitions.tell_all(
            session, job_id, event, attempt=job.fence + 1, step=job.checkpoint_step or 0
        )
        return job.fence + 1


def renew(database: Database, job_id: str, fence: int, lease_seconds: float) -> Wish | None:
    """Hold the job for longer; says what is asked of it. Raises LostLease."""
    with database.session() as session:
        statement = (
            sa.update(Job)
            .where(transitions.mine(job_id, fence))
            .values(lease_expires_at=now() + timedelta(seconds=lease_seconds))
        )
        if not transitions.count_rows(session, statement):  # no poller cares: no new version
            raise LostLease(job_id, fence)
        wishes = sa.select(Job.cancel_requested, Job.pause_requested).where(Job.id == job_id)
        cancel, pause = session.execute(wishes).one()
        return "cancel" if cancel else "pause" if pause else None


def record_progress(database: Database, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    _write(database, job_id, fence, progress=progress)


def record_checkpoint(
    database: Database,
    job_id: str,
    fence: int,
    key: str,
    step: int,
    *,
    checkpoint: Checkpoint | None = None,
    keep: int = 1,
    events: Iterable[tuple[EventType, dict[str, Any]]] = (),
) -> None:
    """From now on the job goes on from here. `checkpoint` joins those that can be had, of which the
    last `keep` and the best stay; `events` are what led to it."""
    with database.session() as session:
        changed = transitions.update(
            session,
            transitions.mine(job_id, fence),
            checkpoint_key=key,
            checkpoint_step=step,
            attempts=0,
        )
        if not changed:
            raise LostLease(job_id, fence)
        if checkpoint:
            keep_checkpoint(session, checkpoint, keep)
        for event, data in events:
            transitions.tell_all(session, job_id, event, **data)


def finish(
    database: Database,
    job_id: str,
    fence: int,
    status: Literal["failed", "cancelled"],
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    mine = transitions.mine(job_id, fence)
    with database.session() as session:
        if status == "failed":
            changed = transitions.fail(session, mine, job_id, error_code, error_message)
        else:
            changed = transitions.cancel(session, mine, job_id)
        if not changed:
            raise LostLease(job_id, fence)


def succeed_with_model(
    database: Database, job_id: str, fence: int, model: ModelRecord, progress: dict[str, Any]
) -> None:
    """The job is done and its model exists, both or neither. Raises ModelConflict where a model of
    that name was uploaded in the meantime."""
    with database.session(names=True) as session:
        transitions.succeed(session, job_id, fence, progress)
        if session.get(ModelRecord, model.name) is not None:
            raise ModelConflict(f"there is a model {model.name!r} already")
        session.add(model)
        transitions.tell_all(session, job_id, "completed", model=model.name)


def succeed_with_scores(
    database: Database,
    job_id: str,
    fence: int,
    progress: dict[str, Any],
    scores: dict[str, Any],
) -> None:
    """The evaluation is done, and what it found is among its model's details; unless the model of
    that name has other weights by now, or is gone."""
    with database.session() as session:
        transitions.succeed(session, job_id, fence, progress)
        transitions.tell_all(session, job_id, "completed")
        job = session.get_one(Job, job_id)
        model = session.get(ModelRecord, job.model_name)
        if model is not None and model.digest == job.config["digest"]:
            model.details = {**model.details, "scores": {**scores, "evaluation": job_id}}


def succeed(database: Database, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    """The job is done, and whatever it made is in the artefacts."""
    with database.session() as session:
        transitions.succeed(session, job_id, fence, progress)
        transitions.tell_all(session, job_id, "completed")


def give_back(database: Database, job_id: str, fence: int, *, blameless: bool = False) -> Status:
    """The process on it has ended and the job has not: what it is now, paused or cancelled where
    that was asked for, else queued again. `blameless`: its worker was asked to leave, or it was to
    pause, so that no attempt is counted. Raises LostLease."""
    with database.session() as session:
        job = transitions.locked(session, transitions.mine(job_id, fence))
        if job is None:
            raise LostLease(job_id, fence)
        if status := transitions.fulfil(session, job):
            return status
        attempts = transitions.without_this(job) if blameless else job.attempts
        transitions.update(
            session,
            Job.id == job_id,
            status="queued",
            queued_at=now(),
            attempts=attempts,
            **transitions.NOBODY,
        )
        transitions.tell_all(session, job_id, "requeued", step=job.checkpoint_step or 0)
        return "queued"


def unclaimed_jobs(database: Database, kind: Kind, announced_before_seconds: float) -> list[str]:
    """Ids of jobs that no worker holds although one should, queued or with an expired lease, and
    that were not announced for a while, or not since their lease expired. Marks them as announced
    now. Those that were to be paused or cancelled need no worker for it, and are so now."""
    at = now()
    long_ago = Job.queued_at < at - timedelta(seconds=announced_before_seconds)
    orphaned = sa.and_(Job.status == "running", Job.lease_expires_at < at)
    waiting = sa.or_(
        sa.and_(Job.status == "queued", long_ago),
        sa.and_(orphaned, sa.or_(long_ago, Job.queued_at < Job.lease_expires_at)),
    )
    unclaimed = sa.select(Job.id).where(Job.kind == kind, waiting).order_by(Job.id)
    with database.session() as session:
        transitions.fulfil_orphans(session, sa.and_(Job.kind == kind, orphaned))
        ids = list(session.scalars(unclaimed))
        if ids:
            session.execute(sa.update(Job).where(Job.id.in_(ids)).values(queued_at=at))
    return ids


def _write(database: Database, job_id: str, fence: int, **values: Any) -> None:
    with database.session() as session:
        if not transitions.update(session, transitions.mine(job_id, fence), **values):
            raise LostLease(job_id, fence)
