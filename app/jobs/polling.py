"""Polling a job: `?wait=`, ETag and Retry-After."""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from app.http.conditional import conditional, matches
from app.jobs.waiting import waiting_reason
from app.services import Services
from store.database import Database
from store.jobs import requests
from store.jobs.kinds import Kind
from store.jobs.record import Job

LONGEST_WAIT = 60
POLL_SECONDS = 0.25

Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="seconds to wait for a change")]


async def poll(
    services: Services,
    request: Request,
    kind: Kind,
    job_id: str,
    wait: float,
    describe: Callable[[Job], BaseModel],
) -> Response:
    """Answer with the job. `wait` waits for a change from the version in If-None-Match, and without
    that header for the job's end. Raises JobNotFound."""
    known = request.headers.get("if-none-match")
    deadline = monotonic() + wait
    while True:
        job = await run_in_threadpool(requests.get_job, services.database, job_id, kind)
        etag = await run_in_threadpool(_etag, services.database, job)
        waiting = matches(known, etag) if known else not job.done
        if not waiting or monotonic() >= deadline or services.stopping.is_set():
            break
        await asyncio.sleep(POLL_SECONDS)
    headers = {} if job.done else {"Retry-After": "1"}
    answer = await run_in_threadpool(describe, job)  # it may ask the database for more
    content = answer.model_dump_json().encode()
    return conditional(request, content, "application/json", headers, etag=etag)


def _etag(database: Database, job: Job) -> str:
    waits = "-waits" if waiting_reason(database, job) else ""  # not part of the record
    return f'"{job.id}-{job.version}{waits}"'
