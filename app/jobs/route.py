"""The routes that every kind of job has: list, poll, follow, cancel, pause, resume, delete.

A kind's own module makes the router, describes its jobs, and adds the routes that only this kind
has: to create a job, and to read its files.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Depends, Header, Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.accept import choose
from app.http.file_answers import JSON, content_of
from app.http.paging import After, Limit, OnlyStatus, Page
from app.http.streams import EVENT_STREAM
from app.jobs.events import event_stream
from app.jobs.polling import Wait, poll
from app.jobs.schema import JobEventAnswer, JobEvents, JobNotes
from app.services import Services, ServicesDep
from app.trash.route import discard
from store.jobs import requests
from store.jobs.events import events_after
from store.jobs.kinds import JobKind
from store.jobs.record import Job
from worker.queue import submit

LAST_NUMBER = 2**31 - 1

EventNumber = Annotated[
    int, Query(ge=0, le=LAST_NUMBER, description="the number of the last one seen")
]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, le=LAST_NUMBER)]

Answer = TypeVar("Answer", bound=BaseModel)


def _any_tag() -> str | None:
    return None


def _only_tag(
    tag: Annotated[str | None, Query(max_length=100, description="only jobs with this tag")] = None,
) -> str | None:
    return tag


@dataclass(frozen=True)
class JobTexts:
    """How /docs describes the routes of a kind: a summary each, and details where there are any."""

    list: str = "List the jobs, newest first"
    poll: str = "Poll a job"
    cancel: str = "Cancel a job that is not done"
    cancel_details: str | None = None
    pause_details: str | None = None
    resume_details: str | None = None
    delete: str = "Delete a job that is done, with its files"
    delete_details: str | None = None


@dataclass(frozen=True)
class JobRoutes(Generic[Answer]):
    """The routes of one kind.

    `describe` turns a job's record into its answer, of the type `answer`; `texts` document them.
    """

    kind: JobKind
    answer: type[Answer]
    describe: Callable[[Services, Job], Answer]
    texts: JobTexts = JobTexts()

    def add_to(self, router: APIRouter) -> None:
        """Add them in the order in which they are documented."""
        self._add_list(router)
        self._add_poll(router)
        if self.kind.has_notes:
            self._add_annotate(router)
        self._add_cancel(router)
        if self.kind.can_pause:
            self._add_pause(router)
            self._add_resume(router)
        self._add_delete(router)
        self._add_events(router)

    def _add_list(self, router: APIRouter) -> None:
        @router.get(
            "",
            name=f"list_{self._noun}s",
            summary=self.texts.list,
            response_model=Page.__class_getitem__(self.answer),
        )
        def list_jobs(
            services: ServicesDep,
            limit: Limit = 20,
            after: After = None,
            status: OnlyStatus = None,
            tag: Annotated[str | None, Depends(_only_tag if self.kind.has_notes else _any_tag)] = (
                None
            ),
        ) -> Page[Answer]:
            found, has_more = requests.list_jobs(
                services.database, self.kind.name, limit=limit, after=after, status=status, tag=tag
            )
            return Page(items=[self.describe(services, job) for job in found], has_more=has_more)

    def _add_poll(self, router: APIRouter) -> None:
        @router.get(
            "/{job_id}",
            name=f"get_{self._noun}",
            summary=self.texts.poll,
            response_model=self.answer,
            responses={
                304: {"description": "Nothing has changed since the version in If-None-Match."},
                **problems.declare(problems.NOT_FOUND),
            },
        )
        async def get_job(
            job_id: str, request: Request, services: ServicesDep, wait: Wait = 0
        ) -> Response:
            """With If-None-Match, `wait` waits for a change from that version; without, for the
            job's end."""
            describe = partial(self.describe, services)
            return await poll(services, request, self.kind.name, job_id, wait, describe)

    def _add_annotate(self, router: APIRouter) -> None:
        @router.patch(
            "/{job_id}",
            name=f"annotate_{self._noun}",
            summary="Change the tags and the notes of a job",
            response_model=self.answer,
            responses=problems.declare(problems.NOT_FOUND, problems.UNSUPPORTED, problems.INVALID),
        )
        def annotate_job(job_id: str, body: JobNotes, services: ServicesDep) -> Answer:
            """They say nothing to the job, which may wait, run or be done."""
            changes = body.model_dump(exclude_unset=True)
            job = requests.annotate(services.database, job_id, self.kind.name, **changes)
            return self.describe(services, job)

    def _add_cancel(self, router: APIRouter) -> None:
        @router.post(
            "/{job_id}/cancel",
            **self._change("cancel", self.texts.cancel, self.texts.cancel_details),
        )
        def cancel_job(job_id: str, services: ServicesDep) -> Answer:
            job = requests.request_cancel(services.database, job_id, self.kind.name)
            return self.describe(services, job)

    def _add_pause(self, router: APIRouter) -> None:
        @router.post(
            "/{job_id}/pause",
            **self._change("pause", "Pause a job", self.texts.pause_details),
        )
        def pause_job(job_id: str, services: ServicesDep) -> Answer:
            job = requests.request_pause(services.database, job_id, self.kind.name)
            return self.describe(services, job)

    def _add_resume(self, router: APIRouter) -> None:
        @router.post(
            "/{job_id}/resume",
            **self._change("resume", "Let a paused job go on", self.texts.resume_details),
        )
        def resume_job(job_id: str, services: ServicesDep) -> Answer:
            job = requests.resume(services.database, job_id, self.kind.name)
            submit(services.queue, job.id, self.kind.name)
            return self.describe(services, job)

    def _add_delete(self, router: APIRouter) -> None:
        @router.delete(
            "/{job_id}",
            name=f"delete_{self._noun}",
            summary=self.texts.delete,
            description=self.texts.delete_details,
            status_code=204,
            responses=problems.declare(problems.NOT_FOUND, problems.CONFLICT),
        )
        def delete_job(job_id: str, services: ServicesDep) -> None:
            discard(services, requests.delete_job(services.database, job_id, self.kind.name))

    def _add_events(self, router: APIRouter) -> None:
        @router.get(
            "/{job_id}/events",
            name=f"get_{self._noun}_events",
            summary="What happened to a job, as it happens",
            response_model=JobEvents,
            responses={
                200: {"content": content_of(JSON, EVENT_STREAM)},
                204: {"description": "Nothing follows, and nothing will: the job is done."},
                **problems.declare(problems.NOT_FOUND, problems.NOT_ACCEPTABLE),
            },
        )
        async def get_events(
            job_id: str,
            request: Request,
            services: ServicesDep,
            after: EventNumber = 0,
            last_event_id: LastEventId = None,
            limit: Annotated[
                int, Query(ge=1, le=1000, description="how many at most, as JSON")
            ] = 1000,
        ) -> Response:
            """Follow a stream (`text/event-stream`) that ends with the job, or with `Accept:
            application/json` get the list so far. Events are numbered; `Last-Event-ID`, or `after`,
            is the last one seen. A stream also has `progress` in between, without a number: how far
            the job is as of now."""
            media_type = choose(request.headers.get("accept"), (EVENT_STREAM, JSON))
            job = await run_in_threadpool(
                requests.get_job, services.database, job_id, self.kind.name
            )
            after = after if last_event_id is None else last_event_id
            if media_type == JSON:
                return await _event_list(services, job, after, limit)
            return await _event_stream(services, job, after)

    @property
    def _noun(self) -> str:
        """The name of one job in operation ids: "train_job" where the collection is train-jobs."""
        return self.kind.collection.replace("-", "_").removesuffix("s")

    def _change(self, action: str, summary: str, details: str | None) -> dict[str, Any]:
        """Return how a route is declared that changes a job's state and answers with the job."""
        return {
            "name": f"{action}_{self._noun}",
            "summary": summary,
            "description": details,
            "status_code": 202,
            "response_model": self.answer,
            "responses": problems.declare(problems.NOT_FOUND, problems.CONFLICT),
        }


_EVENT_HEADERS = {"Cache-Control": "no-cache", "Vary": "Accept"}


async def _event_list(services: Services, job: Job, after: int, limit: int) -> Response:
    events, more = await run_in_threadpool(events_after, services.database, job.id, after, limit)
    answer = JobEvents(items=[JobEventAnswer.of(event) for event in events], has_more=more)
    return Response(answer.model_dump_json(), headers=_EVENT_HEADERS, media_type=JSON)


async def _event_stream(services: Services, job: Job, after: int) -> Response:
    events, _ = await run_in_threadpool(events_after, services.database, job.id, after, 1)
    if job.done and not events:
        return Response(status_code=204, headers=_EVENT_HEADERS)  # a browser will not come back
    stream = event_stream(services, job.id, after)
    return StreamingResponse(stream, media_type=EVENT_STREAM, headers=_EVENT_HEADERS)
