"""The events of a job as callers see them."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from store.jobs.events import EventType, JobEvent


class JobEventAnswer(BaseModel):
    number: int = Field(description="1, 2, 3, ... of the job; the `id` in a stream")
    type: EventType
    at: datetime
    data: dict[str, Any] = Field(description="what belongs to it: a step, a score, a link, ...")

    @classmethod
    def of(cls, event: JobEvent) -> "JobEventAnswer":
        return cls(number=event.number, type=event.type, at=event.at, data=event.data)


class JobEvents(BaseModel):
    """In order; the last number is the next page's `after`."""

    items: list[JobEventAnswer]
    has_more: bool
