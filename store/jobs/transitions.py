"""What becomes of a job, each within a transaction: a change of its state with the event that tells
of it (store.jobs.events), and the webhook that is to (store.webhooks).
"""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import webhooks
from store.database import now
from store.errors import LostLease
from store.jobs.events import EventType, tell
from store.jobs.kinds import JOB_KINDS
from store.jobs.record import Job, Status

NOBODY: dict[str, Any] = {"owner": None, "lease_expires_at": None}
_HOOKS: dict[EventType, str] = {
    "completed": "completed",
    "error": "failed",
    "cancelled": "cancelled",
    "paused": "paused",
}


def fulfil(session: Session, job: Job) -> Status | None:
    """What a running job has become because it was asked for, or None. To be cancelled counts more
    than to be paused."""
    if job.cancel_requested:
        cancel(session, Job.id == job.id, job.id)
        return "cancelled"
    if job.pause_requested:
        pause(session, job)
        return "paused"
    return None


def fulfil_orphans(session: Session, orphaned: sa.ColumnElement[bool]) -> None:
    asked = sa.or_(Job.cancel_requested, Job.pause_requested)
    query = sa.select(Job).where(orphaned, asked).with_for_update(skip_locked=True)
    for job in session.scalars(query).all():
        tell_all(session, job.id, "lost", step=job.checkpoint_step or 0)
        fulfil(session, job)


def pause(session: Session, job: Job) -> None:
    attempts = without_this(job) if job.status == "running" else job.attempts
    update(
        session,
        Job.id == job.id,
        status="paused",
        pause_requested=False,
        attempts=attempts,
        **NOBODY,
    )
    tell_all(session, job.id, "paused", step=job.checkpoint_step or 0)


def cancel(session: Session, where: sa.ColumnElement[bool], job_id: str) -> bool:
    changed = update(session, where, status="cancelled", finished_at=now(), **NOBODY)
    if changed:
        tell_all(session, job_id, "cancelled")
    return bool(changed)


def fail(
    session: Session,
    where: sa.ColumnElement[bool],
    job_id: str,
    code: str | None,
    message: str | None,
) -> bool:
    changed = update(
        session,
        where,
        status="failed",
        error_code=code,
        error_message=message,
        finished_at=now(),
        **NOBODY,
    )
    if changed:
        tell_all(session, job_id, "error", code=code, message=message)
    return bool(changed)


def succeed(session: Session, job_id: str, fence: int, progress: dict[str, Any]) -> None:
    changed = update(
        session,
        mine(job_id, fence),
        status="succeeded",
        progress=progress,
        finished_at=now(),
        **NOBODY,
    )
    if not changed:
        raise LostLease(job_id, fence)


def tell_all(session: Session, job_id: str, event: EventType, **data: Any) -> None:
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
    kind = JOB_KINDS[job.kind]
    links = {"self": kind.address(job.id)}
    if kind.makes_model and job.status == "succeeded":
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


def without_this(job: Job) -> int:
    """The attempts, but for one that ended because somebody wanted it to."""
    return max(0, job.attempts - 1)


# Rows ---------------------------------------------------------------------------------------------


def free() -> sa.ColumnElement[bool]:
    """Any worker may have it."""
    lost = sa.and_(Job.status == "running", Job.lease_expires_at < now())
    return sa.or_(Job.status == "queued", lost)


def locked(session: Session, where: sa.ColumnElement[bool]) -> Job | None:
    """Nobody else changes it before this transaction ends."""
    return session.scalars(sa.select(Job).where(where).with_for_update()).first()


def mine(job_id: str, fence: int) -> sa.ColumnElement[bool]:
    return sa.and_(Job.id == job_id, Job.fence == fence, Job.status == "running")


def update(session: Session, where: sa.ColumnElement[bool], **values: Any) -> int:
    statement = (
        sa.update(Job).where(where).values(updated_at=now(), version=Job.version + 1, **values)
    )
    return count_rows(session, statement)


def count_rows(session: Session, statement: sa.Update) -> int:
    result = session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)  # type: ignore[attr-defined]
