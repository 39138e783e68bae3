"""POST /sample as a stream of server-sent events.

    queued      at once
    started     with what is used, and how many steps there will be
    preview     after every step of every image: the clean image as predicted
    completed   with the answer that JSON would be
    error       with a problem (RFC 9457) in place of the events that would have followed

Where the engine had to start again, `started` and the previews come anew. A caller that reads
slowly misses previews, never the end.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from itertools import count

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from app.http.errors import RequestError
from app.http.handlers import damage_problem
from app.http.problems import problem_response, stopping_problem, unexpected_problem
from app.http.streams import Stopping, with_pauses
from app.logs import log
from app.sample.answer import Collected, answer, base64_png
from app.sample.schema import PreviewEvent, StartedEvent
from app.services import Services
from host.tracing import span
from models.engine.orders import Event, Order, Preview, Started
from store.errors import ArtifactDamaged


async def event_stream(
    services: Services, order: Order, collected: Collected, scope: Scope
) -> AsyncIterator[bytes]:
    """Yield encoded events, and a comment where there has been none for a while."""
    numbers = count()

    def event(name: str, data: str) -> bytes:
        return format_sse_event(event=name, data_str=data, id=str(next(numbers)))

    yield event("queued", "{}")
    try:
        events = services.engine.events(order)
        async with aclosing(with_pauses(events, services.drained)) as items:
            async for item in items:
                if item is None:
                    yield KEEPALIVE_COMMENT
                    continue
                collected.add(item)
                if (encoded := _encoded(item, collected)) is not None:
                    yield event(*encoded)
        with span("answer"):
            result = await services.threads.run(partial(answer, collected))
        yield event("completed", result.model_dump_json())
    except Exception as error:
        yield event("error", await problem_of(error, services, scope))


async def problem_of(error: Exception, services: Services, scope: Scope) -> str:
    """Return the problem, in JSON, of an error that ends a stream."""
    if isinstance(error, Stopping):
        problem = stopping_problem(scope)
    elif isinstance(error, RequestError):
        problem = problem_response(error.kind, str(error), scope, error.errors)
    elif isinstance(error, ArtifactDamaged):
        problem = await run_in_threadpool(damage_problem, services.database, error, scope)
    else:
        log.error("request failed", exc_info=error)
        problem = unexpected_problem(error, scope)
    return bytes(problem.body).decode()


def _encoded(event: Event, collected: Collected) -> tuple[str, str] | None:
    """Return the name and the data of an event; None for one that the stream does not have."""
    steps = len(collected.t)
    if isinstance(event, Started):
        return "started", StartedEvent(steps=steps, used=collected.used).model_dump_json()
    if isinstance(event, Preview):
        preview = PreviewEvent(
            image=event.image,
            step=event.row + 1,
            steps=steps,
            t=collected.t[event.row],
            x0_hat=base64_png(event.x0_hat),
        )
        return "preview", preview.model_dump_json()
    return None
