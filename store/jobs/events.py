"""What happened to a job, numbered 1, 2, 3, ...

An event is written in the transaction of the change that it tells of, so that whatever is killed,
none is missing and none is told twice.
"""

from datetime import datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, Record, UtcTime, now

EventType = Literal[
    "queued",  # also when a paused job is to go on
    "started",
    "resumed",  # goes on from a checkpoint, or from the beginning where there was none yet
    "preview",  # a grid of samples
    "evaluation",
    "checkpoint",
    "paused",
    "requeued",  # given back by its worker
    "lost",  # nothing was heard of its worker for as long as its lease lasts
    "completed",
    "error",
    "cancelled",
]
EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)
LAST_EVENTS: tuple[EventType, ...] = ("completed", "error", "cancelled")


class JobEvent(Record):
    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    type: Mapped[EventType] = mapped_column(sa.String(16))
    data: Mapped[dict[str, Any]]
    at: Mapped[datetime] = mapped_column(UtcTime)


def tell(session: Session, job_id: str, event: EventType, **data: Any) -> None:
    """To be called after the job's row was written in this transaction: whoever else would tell of
    the job waits for that row, so that no number is given twice."""
    last = session.scalar(sa.select(sa.func.max(JobEvent.number)).where(JobEvent.job_id == job_id))
    session.add(JobEvent(job_id=job_id, number=(last or 0) + 1, type=event, data=data, at=now()))
    session.flush()


def events_after(
    database: Database, job_id: str, number: int, limit: int
) -> tuple[list[JobEvent], bool]:
    """Those that follow the event `number`, in order; and whether there are more."""
    query = (
        sa.select(JobEvent)
        .where(JobEvent.job_id == job_id, JobEvent.number > number)
        .order_by(JobEvent.number)
        .limit(limit + 1)
    )
    with database.session() as session:
        events = list(session.scalars(query))
    return events[:limit], len(events) > limit


def forget_events(session: Session, job_id: str) -> None:
    session.execute(sa.delete(JobEvent).where(JobEvent.job_id == job_id))
