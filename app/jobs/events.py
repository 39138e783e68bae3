"""The events of a job as a stream of server-sent events.

The id of each is its number (store.jobs.events): a client that reconnects with the last id that it
saw misses no event and gets none twice. In between, `progress` says how far the job is now, without
an id. The stream ends after the job's last event, and when the service stops; a client that
reconnects then continues where it was.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from app.http.streams import Stopping, with_pauses
from app.jobs.schema import JobEventAnswer
from app.logs import log
from app.services import Services
from store.errors import JobNotFound
from store.jobs import requests
from store.jobs.events import LAST_EVENTS, events_after

POLL_SECONDS = 0.5
AT_ONCE = 100  # events read with one query


async def event_stream(services: Services, job_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield encoded events after the number `after`, and a comment as a keep-alive where there was
    nothing else for a while."""
    try:
        news = _news(services, job_id, after)
        async with aclosing(with_pauses(news, services.stopping)) as items:
            async for item in items:
                yield KEEPALIVE_COMMENT if item is None else item
    except (Stopping, JobNotFound):  # deleted meanwhile
        return
    except Exception:
        log.exception("a stream of events broke off")


async def _news(services: Services, job_id: str, after: int) -> AsyncGenerator[bytes, None]:
    """Poll the job; since every change of the record is a new version, that is one small query."""
    known, shown = -1, None
    while True:
        version = await run_in_threadpool(requests.version_of, services.database, job_id)
        if version != known:
            known = version
            job = await run_in_threadpool(requests.get_job, services.database, job_id)
            more = True
            while more:
                events, more = await run_in_threadpool(
                    events_after, services.database, job_id, after, AT_ONCE
                )
                for event in events:
                    after = event.number
                    data = JobEventAnswer.of(event).model_dump_json()
                    yield format_sse_event(event=event.type, data_str=data, id=str(after))
                    if event.type in LAST_EVENTS:
                        return
            if job.done:
                return
            if job.progress and job.progress != shown:
                shown = job.progress
                yield format_sse_event(event="progress", data_str=json.dumps(shown))
        await asyncio.sleep(POLL_SECONDS)
