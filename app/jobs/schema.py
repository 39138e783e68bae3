"""A job of any kind and its events, as callers see them."""

import re
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from app.http.body import JsonBody
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


MAX_TAGS, MAX_TAG, MAX_NOTES = 20, 40, 2000
_COMMA_OR_CONTROL = re.compile(r"[,\x00-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _checked_tag(text: str) -> str:
    text = text.strip()
    if not text:
        raise PydanticCustomError("tag", "a tag must not be of spaces alone")
    if _COMMA_OR_CONTROL.search(text):
        raise PydanticCustomError("tag", "a tag must not have commas or control characters")
    return text


def _checked_notes(text: str) -> str:
    if _CONTROL.search(text):
        raise PydanticCustomError("notes", "notes must not have control characters")
    return text


def _without_repeats(tags: list[str]) -> list[str]:
    return list(dict.fromkeys(tags))


Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG), AfterValidator(_checked_tag)]


class JobNotes(JsonBody):
    """What is left out stays."""

    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_without_repeats)] = (
        Field(
            default=[],
            description="instead of those that it has; without commas, and spaces around them do "
            "not count",
            examples=[["baseline", "wide"]],
        )
    )
    notes: Annotated[str, Field(max_length=MAX_NOTES), AfterValidator(_checked_notes)] = Field(
        default="", description="in place of the notes that it has"
    )


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
