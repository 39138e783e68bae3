"""The worker's side of jobs: a worker holds a job by a fence and a lease.

A worker claims a job by one compare-and-swap that raises its `fence`. Every later write of that
worker says `where fence = mine`, so that a worker without a lease can change nothing any more. When
a worker is lost, the next claim gets the job with its checkpoint. A request to cancel or pause a
running job stays in its record until the worker carries it out, or until another process does that
finds the worker lost.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import nodes
from store.database import Database, now
from store.errors import LostLease, ModelConflict
from store.jobs import transitions
from store.jobs.checkpoints import Checkpoint, keep_checkpoint
from store.jobs.configs import EvaluateConfig
from store.jobs.events import EventType, NewEvent
from store.jobs.kinds import JOB_KINDS, Kind, Pool
from store.jobs.progress import EvaluationProgress, Progress
from store.jobs.record import Job, Status
from store.jobs.turns import next_owner, used_by
from store.models import ModelRecord

Requested = Literal["cancel", "pause"]

GPU = "cuda"
MAX_ATTEMPTS = 5  # without a new checkpoint in between


def claim_next(
    database: Database, kind: Kind, owner: str, lease_seconds: float, device: str | None = None
) -> tuple[str, int] | None:
    """Claim the oldest waiting job of the highest priority, of the owner whose turn it is; return
    its id and our fence.

    None where no job waits for a worker that computes on `device`.
    """
    waiting = sa.and_(
        Job.kind == kind, transitions.claimable(), _fits_device(database, kind, device)
    )
    while True:
        with database.session() as session:
            whose = Job.made_by.is_not_distinct_from(_next_owner(session, kind, waiting))
            first = sa.select(Job.id).where(waiting, whose)
            job_id = session.scalars(first.order_by(Job.priority.desc(), Job.id).limit(1)).first()
        if job_id is None:
            return None
        if (fence := claim(database, job_id, owner, lease_seconds)) is not None:
            return job_id, fence


def _next_owner(session: Session, kind: Kind, waiting: sa.ColumnElement[bool]) -> str | None:
    """Return whose turn it is among the owners of waiting jobs (store.jobs.turns)."""
    by_age = sa.select(Job.made_by).where(waiting).group_by(Job.made_by)
    owners = session.scalars(by_age.order_by(sa.func.min(Job.id))).all()
    if len(owners) < 2:
        return owners[0] if owners else None
    return next_owner(owners, used_by(session, [kind])[kind])


def _fits_device(database: Database, kind: Kind, device: str | None) -> sa.ColumnElement[bool]:
    """Select the jobs that a worker on `device` may take: a job that was planned for a GPU waits
    for one as long as a live worker with a GPU takes its kind."""
    if device == GPU or GPU not in nodes.devices(database, kind):
        return sa.true()
    return Job.device.is_distinct_from(GPU)


def claim(database: Database, job_id: str, owner: str, lease_seconds: float) -> int | None:
    """Claim this job; return our fence, None where another worker has it or it does not wait.

    The sixth attempt in a row without a new checkpoint fails the job instead. A pause or a cancel
    that was requested before its worker was lost is carried out instead.
    """
    with database.session() as session:
        job = transitions.lock_job(session, sa.and_(Job.id == job_id, transitions.claimable()))
        if job is None:
            return None
        if job.status == "running":
            transitions.record_event(session, job_id, "lost", step=job.checkpoint_step or 0)
            if transitions.carry_out_request(session, job):
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
        transitions.record_event(
            session, job_id, event, attempt=job.fence + 1, step=job.checkpoint_step or 0
        )
        return job.fence + 1


def renew(database: Database, job_id: str, fence: int, lease_seconds: float) -> Requested | None:
    """Renew the lease; return what is requested of the job, if anything. Raises LostLease."""
    with database.session() as session:
        statement = (
            sa.update(Job)
            .where(transitions.held_under(job_id, fence))
            .values(lease_expires_at=now() + timedelta(seconds=lease_seconds))
        )
        if not transitions.count_rows(session, statement):  # not shown to pollers: no new version
            raise LostLease(job_id, fence)
        requested = sa.select(Job.cancel_requested, Job.pause_requested).where(Job.id == job_id)
        cancel, pause = session.execute(requested).one()
        return "cancel" if cancel else "pause" if pause else None


def record_progress(database: Database, job_id: str, fence: int, progress: Progress) -> None:
    """Write the progress into the record. Raises LostLease."""
    _write(database, job_id, fence, progress=progress.to_dict())


def record_checkpoint(
    database: Database,
    job_id: str,
    fence: int,
    key: str,
    step: int,
    *,
    checkpoint: Checkpoint | None = None,
    keep: int = 1,
    events: Iterable[NewEvent] = (),
) -> None:
    """Make this the job's resume point, and record the events that led to it.

    `checkpoint` joins the registered ones, of which the last `keep` and the best stay. Raises
    LostLease.
    """
    with database.session() as session:
        changed = transitions.update(
            session,
            transitions.held_under(job_id, fence),
            checkpoint_key=key,
            checkpoint_step=step,
            attempts=0,
        )
        if not changed:
            raise LostLease(job_id, fence)
        if checkpoint:
            keep_checkpoint(session, checkpoint, keep)
        for event in events:
            transitions.record_event(session, job_id, event.type, **event.data)


def finish(
    database: Database,
    job_id: str,
    fence: int,
    status: Literal["failed", "cancelled"],
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    """End the job without a result. Raises LostLease."""
    mine = transitions.held_under(job_id, fence)
    with database.session() as session:
        if status == "failed":
            changed = transitions.fail(session, mine, job_id, error_code, error_message)
        else:
            changed = transitions.cancel(session, mine, job_id)
        if not changed:
            raise LostLease(job_id, fence)


def succeed_with_model(
    database: Database, job_id: str, fence: int, model: ModelRecord, progress: Progress
) -> None:
    """End the job and create its model, both or neither.

    Raises LostLease, and ModelConflict where a model of that name was uploaded in the meantime.
    """
    with database.session(names=True) as session:
        transitions.succeed(session, job_id, fence, progress)
        if session.get(ModelRecord, model.name) is not None:
            raise ModelConflict(f"there is a model {model.name!r} already")
        session.add(model)
        transitions.record_event(session, job_id, "completed", model=model.name)


def succeed_with_scores(
    database: Database, job_id: str, fence: int, progress: EvaluationProgress, precision: str
) -> None:
    """End the evaluation and write its result into the details of its model, whose `scores` are the
    latest in each precision; not where the model of that name has other weights by now, or is gone.
    Raises LostLease."""
    with database.session() as session:
        transitions.succeed(session, job_id, fence, progress)
        transitions.record_event(session, job_id, "completed")
        job = session.get_one(Job, job_id)
        model = session.get(ModelRecord, job.model_name)
        if model is not None and model.digest == EvaluateConfig.from_dict(job.config).digest:
            scores = {**(progress.result or {}), "evaluation": job_id}
            others = model.details.get("scores", {})
            model.details = {**model.details, "scores": {**others, precision: scores}}


def succeed(
    database: Database, job_id: str, fence: int, progress: Progress, **outcome: str
) -> None:
    """End a job whose results are all stored already; `outcome` is the data of its last event.
    Raises LostLease."""
    with database.session() as session:
        transitions.succeed(session, job_id, fence, progress)
        transitions.record_event(session, job_id, "completed", **outcome)


def give_back(database: Database, job_id: str, fence: int, *, blameless: bool = False) -> Status:
    """Give up a job whose process ended before it; return its new status: paused or cancelled where
    that was requested, else queued.

    `blameless`: the worker was asked to leave or the job to pause, so that no attempt is counted.
    Raises LostLease.
    """
    with database.session() as session:
        job = transitions.lock_job(session, transitions.held_under(job_id, fence))
        if job is None:
            raise LostLease(job_id, fence)
        if status := transitions.carry_out_request(session, job):
            return status
        attempts = transitions.attempts_without_this(job) if blameless else job.attempts
        transitions.update(
            session,
            Job.id == job_id,
            status="queued",
            queued_at=now(),
            attempts=attempts,
            **transitions.NO_OWNER,
        )
        transitions.record_event(session, job_id, "requeued", step=job.checkpoint_step or 0)
        return "queued"


def unclaimed_kinds(database: Database, announced_before_seconds: float) -> set[Kind]:
    """Return the kinds of jobs that unclaimed_jobs may have something to do for: in an idle service
    none, by one query."""
    at = now()
    long_ago = Job.queued_at < at - timedelta(seconds=announced_before_seconds)
    orphaned = sa.and_(Job.status == "running", Job.lease_expires_at < at)
    waiting = sa.or_(sa.and_(Job.status == "queued", long_ago), orphaned)
    with database.session() as session:
        return set(session.scalars(sa.select(Job.kind).where(waiting).distinct()))


def unclaimed_jobs(database: Database, kind: Kind, announced_before_seconds: float) -> list[str]:
    """Return the ids of jobs that no worker holds although one should, and mark them as announced.

    They are queued and were not announced for a while, or their lease expired and they were not
    announced for a while or not since. A pause or a cancel that was requested needs no worker
    and is carried out here.
    """
    at = now()
    long_ago = Job.queued_at < at - timedelta(seconds=announced_before_seconds)
    orphaned = sa.and_(Job.status == "running", Job.lease_expires_at < at)
    waiting = sa.or_(
        sa.and_(Job.status == "queued", long_ago),
        sa.and_(orphaned, sa.or_(long_ago, Job.queued_at < Job.lease_expires_at)),
    )
    unclaimed = sa.select(Job.id).where(Job.kind == kind, waiting).order_by(Job.id)
    with database.session() as session:
        transitions.carry_out_orphans_requests(session, sa.and_(Job.kind == kind, orphaned))
        ids = list(session.scalars(unclaimed))
        if ids:
            session.execute(sa.update(Job).where(Job.id.in_(ids)).values(queued_at=at))
    return ids


def is_one_queued(database: Database, pool: Pool) -> bool:
    """Tell whether a job waits for a worker of this pool."""
    kinds = [kind for kind, row in JOB_KINDS.items() if row.pool == pool]
    query = sa.select(sa.exists().where(Job.status == "queued", Job.kind.in_(kinds)))
    with database.session() as session:
        return bool(session.scalar(query))


def _write(database: Database, job_id: str, fence: int, **values: Any) -> None:
    with database.session() as session:
        if not transitions.update(session, transitions.held_under(job_id, fence), **values):
            raise LostLease(job_id, fence)
