"""Jobs: the record is the truth, and whoever works on one holds it by a fence and a lease.

    queued -> running -> succeeded | failed | cancelled
    queued, running -> paused -> queued

A worker claims a job by one compare-and-swap that raises its `fence`; every later write of that
worker says `where fence = mine`, so that one which lost its lease can change nothing any more. A
worker's loss returns the job to the next claim, with its checkpoint. A running job that is to be
cancelled or paused carries the wish until its worker, or whoever finds that lost, has fulfilled it.

Each change of state writes the event that tells of it (store.events), and the webhook that is to
(store.webhooks), in its own transaction.

A job of kind "train" makes a model from a data set, one of kind "sample" images from a model, and
one of kind "evaluate" says how good a model is.
"""

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store import webhooks
from store.checkpoints import Checkpoint, forget_checkpoints, keep_checkpoint
from store.database import Database, Record, UtcTime, now
from store.datasets import DatasetRecord
from store.errors import DatasetNotFound, IllegalTransition, JobNotFound, LostLease, ModelConflict
from store.events import EventType, forget_events, tell
from store.models import ModelRecord

Kind = Literal["train", "sample", "evaluate"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
DONE: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

Wish = Literal["cancel", "pause"]

MAX_ATTEMPTS = 5  # without a new checkpoint in between
PRIORITIES = (0, 9)
DEFAULT_PRIORITY = 5

_NOBODY: dict[str, Any] = {"owner": None, "lease_expires_at": None}
_HOOKS: dict[EventType, str] = {
    "completed": "completed",
    "error": "failed",
    "cancelled": "cancelled",
    "paused": "paused",
}


@dataclass(frozen=True)
class Webhook:
    """Who is told when the job is done, fails, or waits."""

    url: str
    secret: str


class Job(Record):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(sa.String(16))
    status: Mapped[str]
    dataset: Mapped[str | None]  # of "train"
    model_name: Mapped[str]  # to be made, or to be sampled from
    config: Mapped[dict[str, Any]]  # what the result is a function of
    options: Mapped[dict[str, Any]]  # of "train": what to begin with, what to keep
    priority: Mapped[int]  # the higher the sooner
    progress: Mapped[dict[str, Any]]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    fence: Mapped[int]
    attempts: Mapped[int]
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    cancel_requested: Mapped[bool]
    pause_requested: Mapped[bool]
    checkpoint_key: Mapped[str | None]
    checkpoint_step: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    queued_at: Mapped[datetime] = mapped_column(UtcTime)  # or last announced to the workers
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)
    version: Mapped[int]  # rises with every change
    webhook_url: Mapped[str | None]
    webhook_secret: Mapped[str | None]

    @property
    def done(self) -> bool:
        return self.status in DONE


def create_train_job(
    database: Database,
    *,
    dataset: str,
    model_name: str,
    config: dict[str, Any],
    options: dict[str, Any] | None = None,
    priority: int = DEFAULT_PRIORITY,
    webhook: Webhook | None = None,
    checkpoint: Checkpoint | None = None,
) -> Job:
    """A queued job, which begins with `checkpoint` where one is given (it names the job's id).
    Raises DatasetNotFound, or ModelConflict where a model of that name exists or another job is
    about to make it."""
    job = _new_job("train", model_name, config, dataset)
    job.options, job.priority = options or {}, priority
    if webhook:
        job.webhook_url, job.webhook_secret = webhook.url, webhook.secret
    if checkpoint:
        job.id = checkpoint.job_id
        job.checkpoint_key, job.checkpoint_step = checkpoint.key, checkpoint.step
    with database.session(names=True) as session:
        if session.get(DatasetRecord, dataset) is None:
            raise DatasetNotFound(dataset)
        if session.get(ModelRecord, model_name) is not None:
            raise ModelConflict(f"there is a model {model_name!r} already")
        if rival := _unfinished_job_for(session, model_name):
            raise ModelConflict(f"job {rival!r} is about to make a model {model_name!r}")
        session.add(job)
        if checkpoint:
            session.add(checkpoint)
        session.flush()
        _tell(session, job.id, "queued", step=job.checkpoint_step or 0)
    return job


def create_sample_job(database: Database, *, model_name: str, config: dict[str, Any]) -> Job:
    """A queued job. That its model stays is not ensured: without it the job will fail."""
    return _created(database, _new_job("sample", model_name, config))


def create_evaluation(
    database: Database, *, model_name: str, dataset: str, config: dict[str, Any]
) -> Job:
    """A queued job; what it needs may be deleted before it starts, and fails it then."""
    return _created(database, _new_job("evaluate", model_name, config, dataset))


def _created(database: Database, job: Job) -> Job:
    with database.session() as session:
        session.add(job)
        session.flush()
        _tell(session, job.id, "queued", step=0)
    return job


def get_job(database: Database, job_id: str, kind: Kind | None = None) -> Job:
    """Raises JobNotFound, also where it is of another kind."""
    with database.session() as session:
        job = session.get(Job, job_id)
    if job is None or kind not in (None, job.kind):
        raise JobNotFound(job_id)
    return job


def version_of(database: Database, job_id: str) -> int:
    """Rises with every change. Raises JobNotFound."""
    with database.session() as session:
        version = session.scalar(sa.select(Job.version).where(Job.id == job_id))
    if version is None:
        raise JobNotFound(job_id)
    return version


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


def claim_next(
    database: Database, kind: Kind, owner: str, lease_seconds: float
) -> tuple[str, int] | None:
    """Of the jobs that wait, the one of the highest priority, and of those the oldest: its id, and
    the fence under which it is ours. None where no job waits."""
    first = (
        sa.select(Job.id)
        .where(Job.kind == kind, _free())
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


def claim(database: Database, job_id: str, owner: str, lease_seconds: float) -> int | None:
    """The fence under which this job is ours, or None: another has it, or it does not wait.

    The sixth attempt in a row without a new checkpoint fails the job instead; one that was to be
    paused or cancelled when its worker was lost is so now.
    """
    with database.session() as session:
        job = _locked(session, sa.and_(Job.id == job_id, _free()))
        if job is None:
            return None
        if job.status == "running":
            _tell(session, job_id, "lost", step=job.checkpoint_step or 0)
            if _fulfil(session, job):
                return None
        if job.attempts >= MAX_ATTEMPTS:
            message = f"{MAX_ATTEMPTS} attempts in a row ended without a new checkpoint"
            _fail(session, Job.id == job_id, job_id, "crashed", message)
            return None
        at = now()
        _update(
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
        _tell(session, job_id, event, attempt=job.fence + 1, step=job.checkpoint_step or 0)
        return job.fence + 1


def renew(database: Database, job_id: str, fence: int, lease_seconds: float) -> Wish | None:
    """Hold the job for longer; says what is asked of it. Raises LostLease."""
    with database.session() as session:
        statement = (
            sa.update(Job)
            .where(_mine(job_id, fence))
            .values(lease_expires_at=now() + timedelta(seconds=lease_seconds))
        )
        if _count(session, statement) == 0:  # no change that a poller would care about
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
        changed = _update(
            session, _mine(job_id, fence), checkpoint_key=key, checkpoint_step=step, attempts=0
        )
        if not changed:
            raise LostLease(job_id, fence)
        if checkpoint:
            keep_checkpoint(session, checkpoint, keep)
        for event, data in events:
            _tell(session, job_id, event, **data)


def finish(
    database: Database,
    job_id: str,
    fence: int,
    status: Literal["failed", "cancelled"],
    error_code: str | None = None,
    error_message: str | None = None,
) -> None:
    mine = _mine(job_id, fence)
    with database.session() as session:
        if status == "failed":
            changed = _fail(session, mine, job_id, error_code, error_message)
        else:
            changed = _cancel(session, mine, job_id)
        if not changed:
            raise LostLease(job_id, fence)


def succeed_with_model(
    database: Database, job_id: str, fence: int, model: ModelRecord, progress: dict[str, Any]
) -> None:
    """The job is done and its model exists, both or neither. Raises ModelConflict where a model of
    that name was uploaded in the meantime."""
    with database.session(names=True) as session:
        _succeed(session, job_id, fence, progress)
        if session.get(ModelRecord, model.name) is not None:
            raise ModelConflict(f"there is a model {model.name!r} already")
        session.add(model)
        _tell(session, job_id, "completed", model=model.name)


def succeed(database: Database, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    """The job is done, and whatever it made is in the artefacts."""
    with database.session() as session:
        _succeed(session, job_id, fence, progress)
        _tell(session, job_id, "completed")


def give_back(database: Database, job_id: str, fence: int, *, blameless: bool = False) -> Status:
    """The process on it has ended and the job has not: what it is now, paused or cancelled where
    that was asked for, else queued again. `blameless`: its worker was asked to leave, or it was to
    pause, so that no attempt is counted. Raises LostLease."""
    with database.session() as session:
        job = _locked(session, _mine(job_id, fence))
        if job is None:
            raise LostLease(job_id, fence)
        if status := _fulfil(session, job):
            return status
        attempts = _without_this(job) if blameless else job.attempts
        _update(
            session,
            Job.id == job_id,
            status="queued",
            queued_at=now(),
            attempts=attempts,
            **_NOBODY,
        )
        _tell(session, job_id, "requeued", step=job.checkpoint_step or 0)
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
        _fulfil_orphans(session, sa.and_(Job.kind == kind, orphaned))
        ids = list(session.scalars(unclaimed))
        if ids:
            session.execute(sa.update(Job).where(Job.id.in_(ids)).values(queued_at=at))
    return ids


# What callers do ----------------------------------------------------------------------------------


def request_cancel(database: Database, job_id: str, kind: Kind | None = None) -> Job:
    """A job that waits is cancelled at once, a running one soon. Raises JobNotFound, and
    IllegalTransition if it is done."""
    with database.session() as session:
        job = _asked_for(session, job_id, kind)
        if job.status in ("queued", "paused"):
            _cancel(session, Job.id == job_id, job_id)
        elif job.status == "running":
            _update(session, Job.id == job_id, cancel_requested=True)
        else:
            raise IllegalTransition(job_id, job.status, "cancelled")
        session.refresh(job)
    return job


def request_pause(database: Database, job_id: str, kind: Kind) -> Job:
    """A queued job is paused at once, a running one as soon as it has written a checkpoint. Raises
    JobNotFound and IllegalTransition."""
    with database.session() as session:
        job = _asked_for(session, job_id, kind)
        if job.status == "queued":
            _pause(session, job)
        elif job.status == "running" and not job.cancel_requested:
            _update(session, Job.id == job_id, pause_requested=True)
        else:
            status = "being cancelled" if job.cancel_requested and not job.done else job.status
            raise IllegalTransition(job_id, status, "paused")
        session.refresh(job)
    return job


def resume(database: Database, job_id: str, kind: Kind) -> Job:
    """A paused job is queued again; a pause that is asked for and not carried out yet is taken
    back. Raises JobNotFound and IllegalTransition."""
    with database.session() as session:
        job = _asked_for(session, job_id, kind)
        if job.status == "paused":
            _update(session, Job.id == job_id, status="queued", queued_at=now())
            _tell(session, job_id, "queued", step=job.checkpoint_step or 0)
        elif job.status == "running" and job.pause_requested:
            _update(session, Job.id == job_id, pause_requested=False)
        else:
            raise IllegalTransition(job_id, job.status, "resumed")
        session.refresh(job)
    return job


def delete_job(database: Database, job_id: str, kind: Kind) -> None:
    """Forget one that is done; the artefacts are the caller's to remove. Raises JobNotFound and
    IllegalTransition."""
    job = get_job(database, job_id, kind)
    if not job.done:
        raise IllegalTransition(job_id, job.status, "deleted")
    with database.session() as session:
        session.execute(sa.delete(Job).where(Job.id == job_id))
        forget_events(session, job_id)
        forget_checkpoints(session, job_id)


# Transitions, within a transaction ----------------------------------------------------------------


def _fulfil(session: Session, job: Job) -> Status | None:
    """What a running job has become because it was asked for, or None. To be cancelled counts more
    than to be paused."""
    if job.cancel_requested:
        _cancel(session, Job.id == job.id, job.id)
        return "cancelled"
    if job.pause_requested:
        _pause(session, job)
        return "paused"
    return None


def _fulfil_orphans(session: Session, orphaned: sa.ColumnElement[bool]) -> None:
    asked = sa.or_(Job.cancel_requested, Job.pause_requested)
    query = sa.select(Job).where(orphaned, asked).with_for_update(skip_locked=True)
    for job in session.scalars(query).all():
        _tell(session, job.id, "lost", step=job.checkpoint_step or 0)
        _fulfil(session, job)


def _pause(session: Session, job: Job) -> None:
    attempts = _without_this(job) if job.status == "running" else job.attempts
    _update(
        session,
        Job.id == job.id,
        status="paused",
        pause_requested=False,
        attempts=attempts,
        **_NOBODY,
    )
    _tell(session, job.id, "paused", step=job.checkpoint_step or 0)


def _cancel(session: Session, where: sa.ColumnElement[bool], job_id: str) -> bool:
    changed = _update(session, where, status="cancelled", finished_at=now(), **_NOBODY)
    if changed:
        _tell(session, job_id, "cancelled")
    return bool(changed)


def _fail(
    session: Session,
    where: sa.ColumnElement[bool],
    job_id: str,
    code: str | None,
    message: str | None,
) -> bool:
    changed = _update(
        session,
        where,
        status="failed",
        error_code=code,
        error_message=message,
        finished_at=now(),
        **_NOBODY,
    )
    if changed:
        _tell(session, job_id, "error", code=code, message=message)
    return bool(changed)


def _succeed(session: Session, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    changed = _update(
        session,
        _mine(job_id, fence),
        status="succeeded",
        progress=progress,
        finished_at=now(),
        **_NOBODY,
    )
    if not changed:
        raise LostLease(job_id, fence)


def _tell(session: Session, job_id: str, event: EventType, **data: Any) -> None:
    """After the change, in its transaction."""
    tell(session, job_id, event, **data)
    if event not in _HOOKS:
        return
    query = sa.select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    job = session.scalars(query).one()
    if job.webhook_url and job.webhook_secret:
        webhooks.enqueue(
            session,
            job_id=job_id,
            url=job.webhook_url,
            secret=job.webhook_secret,
            event=f"{job.kind}_job.{_HOOKS[event]}",
            payload=_summary(job),
        )


def _summary(job: Job) -> dict[str, Any]:
    """What a receiver of webhooks is told; the rest can be asked for."""
    times = {
        name: at.isoformat() if (at := getattr(job, name)) else None
        for name in ("created_at", "started_at", "finished_at")
    }
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    links = {"self": f"/{job.kind}-jobs/{job.id}"}
    if job.kind == "train" and job.status == "succeeded":
        links["model"] = f"/models/{job.model_name}"
    return {
        "id": job.id,
        "status": job.status,
        "model": job.model_name,
        "progress": job.progress,
        "error": error,
        **times,
        "links": links,
    }


def _without_this(job: Job) -> int:
    """The attempts, but for one that ended because somebody wanted it to."""
    return max(0, job.attempts - 1)


def _write(database: Database, job_id: str, fence: int, **values: Any) -> None:
    with database.session() as session:
        if not _update(session, _mine(job_id, fence), **values):
            raise LostLease(job_id, fence)


def _free() -> sa.ColumnElement[bool]:
    """Any worker may have it."""
    lost = sa.and_(Job.status == "running", Job.lease_expires_at < now())
    return sa.or_(Job.status == "queued", lost)


def _locked(session: Session, where: sa.ColumnElement[bool]) -> Job | None:
    """Nobody else changes it before this transaction ends."""
    return session.scalars(sa.select(Job).where(where).with_for_update()).first()


def _asked_for(session: Session, job_id: str, kind: Kind | None) -> Job:
    job: Job | None = session.get(Job, job_id, with_for_update=True)
    if job is None or kind not in (None, job.kind):
        raise JobNotFound(job_id)
    return job


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
        id=new_job_id(),
        kind=kind,
        status="queued",
        dataset=dataset,
        model_name=model_name,
        config=config,
        options={},
        priority=DEFAULT_PRIORITY,
        progress={},
        fence=0,
        attempts=0,
        cancel_requested=False,
        pause_requested=False,
        created_at=at,
        queued_at=at,
        updated_at=at,
        version=1,
    )


def new_job_id() -> str:
    """Sorts by time of creation, to the microsecond."""
    return f"job_{time.time_ns() // 1000:013x}{secrets.token_hex(4)}"


def model_names(database: Database) -> set[str]:
    """All that are taken, by models or by jobs that may still make one."""
    with database.session() as session:
        wanted = session.scalars(sa.select(Job.model_name).where(_will_make_a_model()))
        made = session.scalars(sa.select(ModelRecord.name))
        return {*wanted, *made}
