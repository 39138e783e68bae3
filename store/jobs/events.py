"""The events of a job, numbered 1, 2, 3, ...

An event is written in the transaction of the change that it records. So no event is missing and
none is recorded twice, whichever process is killed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, JsonObject, Record, UtcTime, now

EventType = Literal[
    "queued",  # also when a paused job is resumed
    "started",
    "resumed",  # continues from a checkpoint, or from the beginning where there was none yet
    "preview",  # a grid of samples
    "evaluation",
    "checkpoint",
    "paused",
    "requeued",  # given back by its worker
    "lost",  # its worker did not renew the lease in time
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
    data: Mapped[JsonObject]
    at: Mapped[datetime] = mapped_column(UtcTime)


@dataclass(frozen=True)
class NewEvent:
    """An event that is to be written; `data` is shown to callers."""

    type: EventType
    data: Mapping[str, object] = field(default_factory=dict)


def add_event(session: Session, job_id: str, event: EventType, **data: Any) -> None:
    """Add the next event of a job.

    Call it after the job's row was written in this transaction: other writers of its events wait
    for that row, so that no number is given twice.
    """
    last = session.scalar(sa.select(sa.func.max(JobEvent.number)).where(JobEvent.job_id == job_id))
    session.add(JobEvent(job_id=job_id, number=(last or 0) + 1, type=event, data=data, at=now()))
    session.flush()


def events_after(
    database: Database, job_id: str, number: int, limit: int
) -> tuple[list[JobEvent], bool]:
    """Return the events after `number`, in order, and whether there are more."""
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
