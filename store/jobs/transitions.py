"""The changes of a job's state, each within a transaction: the new state, the event that records it
(store.jobs.events), and the webhook that announces it (store.webhooks).
"""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store import webhooks
from store.database import now
from store.errors import LostLease
from store.jobs.events import EventType, add_event
from store.jobs.kinds import JOB_KINDS
from store.jobs.progress import Progress
from store.jobs.record import Job, Status

NO_OWNER: Mapping[str, None] = {"owner": None, "lease_expires_at": None}
_WEBHOOK_EVENTS: dict[EventType, str] = {
    "completed": "completed",
    "error": "failed",
    "cancelled": "cancelled",
    "paused": "paused",
}


def carry_out_request(session: Session, job: Job) -> Status | None:
    """Cancel or pause a running job if that was requested; cancelling goes before pausing.

    Return the new status, None where nothing was requested.
    """
    if job.cancel_requested:
        cancel(session, Job.id == job.id, job.id)
        return "cancelled"
    if job.pause_requested:
        pause(session, job)
        return "paused"
    return None


def carry_out_orphans_requests(session: Session, orphaned: sa.ColumnElement[bool]) -> None:
    """Cancel or pause the jobs that lost their worker before it did so."""
    requested = sa.or_(Job.cancel_requested, Job.pause_requested)
    query = sa.select(Job).where(orphaned, requested).with_for_update(skip_locked=True)
    for job in session.scalars(query).all():
        record_event(session, job.id, "lost", step=job.checkpoint_step or 0)
        carry_out_request(session, job)


def pause(session: Session, job: Job) -> None:
    attempts = attempts_without_this(job) if job.status == "running" else job.attempts
    update(
        session,
        Job.id == job.id,
        status="paused",
        pause_requested=False,
        attempts=attempts,
        **NO_OWNER,
    )
    record_event(session, job.id, "paused", step=job.checkpoint_step or 0)


def cancel(session: Session, where: sa.ColumnElement[bool], job_id: str) -> bool:
    changed = update(session, where, status="cancelled", finished_at=now(), **NO_OWNER)
    if changed:
        record_event(session, job_id, "cancelled")
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
        **NO_OWNER,
    )
    if changed:
        record_event(session, job_id, "error", code=code, message=message)
    return bool(changed)


def succeed(session: Session, job_id: str, fence: int, progress: Progress) -> None:
    """Mark the job as succeeded; the caller records the event. Raises LostLease."""
    changed = update(
        session,
        held_under(job_id, fence),
        status="succeeded",
        progress=progress.to_dict(),
        finished_at=now(),
        **NO_OWNER,
    )
    if not changed:
        raise LostLease(job_id, fence)


def record_event(session: Session, job_id: str, event: EventType, **data: Any) -> None:
    """Write an event and, if the job has a webhook for such events, put its message in the outbox.

    Call it after the change, in the same transaction.
    """
    add_event(session, job_id, event, **data)
    if event not in _WEBHOOK_EVENTS:
        return
    query = sa.select(Job).where(Job.id == job_id).execution_options(populate_existing=True)
    job = session.scalars(query).one()
    if job.webhook_url and job.webhook_secret:
        webhooks.enqueue(
            session,
            job_id=job_id,
            url=job.webhook_url,
            secret=job.webhook_secret,
            event=f"{job.kind}_job.{_WEBHOOK_EVENTS[event]}",
            payload=_summary(job),
        )


def _summary(job: Job) -> dict[str, object]:
    """Return a webhook's description of the job; the links in it lead to the rest."""
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


def attempts_without_this(job: Job) -> int:
    """Return the attempts without the current one, for one that was ended by a request."""
    return max(0, job.attempts - 1)


# Rows ---------------------------------------------------------------------------------------------


def claimable() -> sa.ColumnElement[bool]:
    """Select the jobs that any worker may have: queued, or running under an expired lease."""
    lost = sa.and_(Job.status == "running", Job.lease_expires_at < now())
    return sa.or_(Job.status == "queued", lost)


def lock_job(session: Session, where: sa.ColumnElement[bool]) -> Job | None:
    """Return the first such job, which no other transaction changes before this one ends."""
    return session.scalars(sa.select(Job).where(where).with_for_update()).first()


def held_under(job_id: str, fence: int) -> sa.ColumnElement[bool]:
    """Select the job if it still runs under this fence."""
    return sa.and_(Job.id == job_id, Job.fence == fence, Job.status == "running")


def update(session: Session, where: sa.ColumnElement[bool], **values: Any) -> int:
    """Change the jobs, raise their version, and return how many there were."""
    statement = (
        sa.update(Job).where(where).values(updated_at=now(), version=Job.version + 1, **values)
    )
    return count_rows(session, statement)


def count_rows(session: Session, statement: sa.Update) -> int:
    """Execute an update and return how many rows it changed."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    return int(result.rowcount)  # type: ignore[attr-defined]
