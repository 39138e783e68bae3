"""Jobs: the record is the truth, and whoever works on one holds it by a fence and a lease.

    queued -> running -> succeeded | failed | cancelled

A worker claims a job by one compare-and-swap that raises its `fence`; every later write of that
worker says `where fence = mine`, so that one which lost its lease can change nothing any more. A
worker's loss returns the job to the next claim, with its checkpoint.

A job of kind "train" makes a model from a data set, one of kind "sample" images from a model.
"""

import secrets
import time
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, Record, UtcTime, now
from store.datasets import DatasetRecord
from store.errors import DatasetNotFound, IllegalTransition, JobNotFound, LostLease, ModelConflict
from store.models import ModelRecord

Kind = Literal["train", "sample"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
DONE: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

MAX_ATTEMPTS = 5  # without a new checkpoint in between


class Job(Record):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(sa.String(16))
    status: Mapped[str]
    dataset: Mapped[str | None]  # of "train"
    model_name: Mapped[str]  # to be made, or to be sampled from
    config: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any]]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    fence: Mapped[int]
    attempts: Mapped[int]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    cancel_requested: Mapped[bool]
    checkpoint_key: Mapped[str | None]
    checkpoint_step: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    queued_at: Mapped[datetime] = mapped_column(UtcTime)  # or last announced to the workers
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)
    version: Mapped[int]  # rises with every change

    @property
    def done(self) -> bool:
        return self.status in DONE


def create_train_job(
    database: Database, *, dataset: str, model_name: str, config: dict[str, Any]
) -> Job:
    """A queued job. Raises DatasetNotFound, or ModelConflict where a model of that name exists or
    another job is about to make it."""
    job = _new_job("train", model_name, config, dataset)
    with database.session(names=True) as session:
        if session.get(DatasetRecord, dataset) is None:
            raise DatasetNotFound(dataset)
        if session.get(ModelRecord, model_name) is not None:
            raise ModelConflict(f"there is a model {model_name!r} already")
        if rival := _unfinished_job_for(session, model_name):
            raise ModelConflict(f"job {rival!r} is about to make a model {model_name!r}")
        session.add(job)
    return job


def create_sample_job(database: Database, *, model_name: str, config: dict[str, Any]) -> Job:
    """A queued job. That its model stays is not ensured: without it the job will fail."""
    job = _new_job("sample", model_name, config)
    with database.session() as session:
        session.add(job)
    return job


def get_job(database: Database, job_id: str, kind: Kind | None = None) -> Job:
    """Raises JobNotFound, also where it is of another kind."""
    with database.session() as session:
        job = session.get(Job, job_id)
    if job is None or kind not in (None, job.kind):
        raise JobNotFound(job_id)
    return job


def list_jobs(
    database: Database,
    kind: Kind,
    *,
    limit: int,
    after: str | None = None,
    status: str | None = None,
) -> tuple[list[Job], bool]:
    """Newest first, those that follow the job `after` in that order; and whether there are more.
    Raises JobNotFound where there is no such job."""
    query = sa.select(Job).where(Job.kind == kind).order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Job.id < get_job(database, after, kind).id)
    if status is not None:
        query = query.where(Job.status == status)
    with database.session() as session:
        jobs = list(session.scalars(query))
    return jobs[:limit], len(jobs) > limit


def count_jobs(database: Database) -> dict[tuple[str, str], int]:
    """By kind and status."""
    query = sa.select(Job.kind, Job.status, sa.func.count()).group_by(Job.kind, Job.status)
    with database.session() as session:
        return {(kind, status): count for kind, status, count in session.execute(query)}


# What workers do ----------------------------------------------------------------------------------


def claim(database: Database, job_id: str, owner: str, lease_seconds: float) -> int | None:
    """The fence under which the job is ours, or None: another has it, or it is done.

    The sixth attempt in a row without a new checkpoint fails the job instead.
    """
    at = now()
    free = sa.and_(
        Job.id == job_id,
        sa.or_(
            Job.status == "queued",
            sa.and_(Job.status == "running", Job.lease_expires_at < at),
        ),
    )
    with database.session() as session:
        given_up = _update(
            session,
            sa.and_(free, Job.attempts >= MAX_ATTEMPTS),
            status="failed",
            error_code="crashed",
            error_message=f"{MAX_ATTEMPTS} attempts in a row ended without a new checkpoint",
            finished_at=at,
            owner=None,
            lease_expires_at=None,
        )
        if given_up:
            return None
        claimed = _update(
            session,
            free,
            status="running",
            fence=Job.fence + 1,
            attempts=Job.attempts + 1,
            owner=owner,
            lease_expires_at=at + timedelta(seconds=lease_seconds),
            started_at=sa.func.coalesce(Job.started_at, at),
        )
        if not claimed:
            return None
        fence: int = session.scalars(sa.select(Job.fence).where(Job.id == job_id)).one()
        return fence


def renew(database: Database, job_id: str, fence: int, lease_seconds: float) -> bool:
    """Hold the job for longer; says whether its cancellation is asked for. Raises LostLease."""
    with database.session() as session:
        statement = (
            sa.update(Job)
            .where(_mine(job_id, fence))
            .values(lease_expires_at=now() + timedelta(seconds=lease_seconds))
        )
        if _count(session, statement) == 0:  # no change that a poller would care about
            raise LostLease(job_id, fence)
        return session.scalars(sa.select(Job.cancel_requested).where(Job.id == job_id)).one()


def record_progress(database: Database, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    _write(database, job_id, fence, progress=progress)


def record_checkpoint(database: Database, job_id: str, fence: int, key: str, step: int) -> None:
    """From now on the job goes on from this checkpoint."""
    _write(database, job_id, fence, checkpoint_key=key, checkpoint_step=step, attempts=0)


def finish(
    database: Database,
    job_id: str,
    fence: int,
    status: Literal["failed", "cancelled"],
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    _write(
        database,
        job_id,
        fence,
        status=status,
        error_code=error_code,
        error_message=error_message,
        finished_at=now(),
        owner=None,
        lease_expires_at=None,
    )


def succeed_with_model(
    database: Database, job_id: str, fence: int, model: ModelRecord, progress: dict[str, Any]
) -> None:
    """The job is done and its model exists, both or neither. Raises ModelConflict where a model of
    that name was uploaded in the meantime."""
    with database.session(names=True) as session:
        changed = _update(
            session,
            _mine(job_id, fence),
            status="succeeded",
            progress=progress,
            finished_at=now(),
            owner=None,
            lease_expires_at=None,
        )
        if not changed:
            raise LostLease(job_id, fence)
        if session.get(ModelRecord, model.name) is not None:
            raise ModelConflict(f"there is a model {model.name!r} already")
        session.add(model)


def succeed(database: Database, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    """The job is done, and whatever it made is in the artefacts."""
    _write(
        database,
        job_id,
        fence,
        status="succeeded",
        progress=progress,
        finished_at=now(),
        owner=None,
        lease_expires_at=None,
    )


def requeue(database: Database, job_id: str, fence: int, *, blameless: bool = False) -> None:
    """Give the job back. `blameless`: the worker was asked to leave, so no attempt is counted."""
    _write(
        database,
        job_id,
        fence,
        status="queued",
        owner=None,
        lease_expires_at=None,
        queued_at=now(),
        **({"attempts": 0} if blameless else {}),
    )


def unclaimed_jobs(database: Database, kind: Kind, announced_before_seconds: float) -> list[str]:
    """Ids of jobs that no worker holds although one should, queued or with an expired lease, and
    that were not announced for a while, or not since their lease expired. Marks them as announced
    now."""
    at = now()
    long_ago = Job.queued_at < at - timedelta(seconds=announced_before_seconds)
    orphaned = sa.and_(Job.status == "running", Job.lease_expires_at < at)
    waiting = sa.or_(
        sa.and_(Job.status == "queued", long_ago),
        sa.and_(orphaned, sa.or_(long_ago, Job.queued_at < Job.lease_expires_at)),
    )
    unclaimed = sa.select(Job.id).where(Job.kind == kind, waiting).order_by(Job.id)
    with database.session() as session:
        ids = list(session.scalars(unclaimed))
        if ids:
            session.execute(sa.update(Job).where(Job.id.in_(ids)).values(queued_at=at))
    return ids


# What callers do ----------------------------------------------------------------------------------


def request_cancel(database: Database, job_id: str, kind: Kind | None = None) -> Job:
    """A queued job is cancelled at once, a running one soon. Raises JobNotFound, and
    IllegalTransition if it is done."""
    get_job(database, job_id, kind)
    with database.session() as session:
        cancelled = _update(
            session,
            sa.and_(Job.id == job_id, Job.status == "queued"),
            status="cancelled",
            finished_at=now(),
        )
        asked = cancelled or _update(
            session, sa.and_(Job.id == job_id, Job.status == "running"), cancel_requested=True
        )
        job = session.get(Job, job_id)
        if job is None:
            raise JobNotFound(job_id)  # deleted a moment ago
        if not asked:
            raise IllegalTransition(job_id, job.status, "cancelled")
    return job


def delete_job(database: Database, job_id: str, kind: Kind) -> None:
    """Forget one that is done; the artefacts are the caller's to remove. Raises JobNotFound and
    IllegalTransition."""
    job = get_job(database, job_id, kind)
    if not job.done:
        raise IllegalTransition(job_id, job.status, "deleted")
    with database.session() as session:
        session.execute(sa.delete(Job).where(Job.id == job_id))


def _write(database: Database, job_id: str, fence: int, **values: Any) -> None:
    with database.session() as session:
        if not _update(session, _mine(job_id, fence), **values):
            raise LostLease(job_id, fence)


def _mine(job_id: str, fence: int) -> sa.ColumnElement[bool]:
    return sa.and_(Job.id == job_id, Job.fence == fence, Job.status == "running")


def _update(session: Session, where: sa.ColumnElement[bool], **values: Any) -> int:
    statement = (
        sa.update(Job).where(where).values(updated_at=now(), version=Job.version + 1, **values)
    )
    return _count(session, statement)


def _count(session: Session, statement: sa.Update) -> int:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)  # type: ignore[attr-defined]


def _unfinished_job_for(session: Session, model_name: str) -> str | None:
    return session.scalars(
        sa.select(Job.id).where(_will_make_a_model(), Job.model_name == model_name)
    ).first()


def _will_make_a_model() -> sa.ColumnElement[bool]:
    return sa.and_(Job.kind == "train", Job.status.not_in(DONE))


def _new_job(
    kind: Kind, model_name: str, config: dict[str, Any], dataset: str | None = None
) -> Job:
    at = now()
    return Job(
        id=_new_id(),
        kind=kind,
        status="queued",
        dataset=dataset,
        model_name=model_name,
        config=config,
        progress={},
        fence=0,
        attempts=0,
        cancel_requested=False,
        created_at=at,
        queued_at=at,
        updated_at=at,
        version=1,
    )


def _new_id() -> str:
    """Sorts by time of creation, to the microsecond."""
    return f"job_{time.time_ns() // 1000:013x}{secrets.token_hex(4)}"


def model_names(database: Database) -> set[str]:
    """All that are taken, by models or by jobs that may still make one."""
    with database.session() as session:
        wanted = session.scalars(sa.select(Job.model_name).where(_will_make_a_model()))
        made = session.scalars(sa.select(ModelRecord.name))
        return {*wanted, *made}
