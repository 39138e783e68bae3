"""A job of any kind and its events, as callers see them."""

from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, Field

from app.http.root_path import link
from app.jobs.waiting import waiting_reason
from client.answers import JobState
from store.database import Database
from store.jobs.events import EventType, JobEvent
from store.jobs.record import Job

State = TypeVar("State", bound=JobState)


def described(kind: type[State], database: Database, job: Job, /, **derived: Any) -> State:
    """Return the answer about a job: its fields are those of the record, except for `derived`."""
    error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
    waiting = waiting_reason(database, job)
    derived = {"owner": job.made_by, "error": error, "waiting": waiting, **derived}
    plain = {name: getattr(job, name) for name in kind.model_fields if name not in derived}
    return kind.model_validate({**plain, **derived})


class JobEventAnswer(BaseModel):
    number: int = Field(description="1, 2, 3, ... of the job; the `id` in a stream")
    type: EventType
    at: datetime
    data: dict[str, Any] = Field(description="what belongs to it: a step, a score, a link, ...")

    @classmethod
    def of(cls, event: JobEvent) -> "JobEventAnswer":
        data = event.data
        if "href" in data:
            data = {**data, "href": link(data["href"])}
        return cls(number=event.number, type=event.type, at=event.at, data=data)


class JobEvents(BaseModel):
    """In order; the last number is the next page's `after`."""

    items: list[JobEventAnswer]
    has_more: bool
