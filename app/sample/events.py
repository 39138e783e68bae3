"""POST /sample as a stream of server-sent events.

    queued      at once
    started     with what is used, and how many steps there will be
    preview     after every step of every image: the clean image as predicted
    completed   with the answer that JSON would be
    error       with a problem (RFC 9457) in place of all that would have followed

Where the engine had to start again, `started` and the previews come anew. A caller that reads
slowly misses previews, never the end.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from itertools import count

from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.types import Scope

from app.http.errors import RequestError
from app.http.problems import problem_response, stopping_problem, unexpected_problem
from app.http.streams import Stopping, with_pauses
from app.logs import log
from app.sample.answer import Harvest, answer, base64_png
from app.sample.request import Sampling
from app.sample.schema import PreviewEvent, StartedEvent
from app.services import Services
from models.engine.engine import Event, Seen, Started


async def event_stream(
    services: Services, sampling: Sampling, scope: Scope
) -> AsyncIterator[bytes]:
    """Encoded events, with a comment where nothing else was to be said for a while."""
    numbers = count()

    def event(name: str, data: str) -> bytes:
        return format_sse_event(event=name, data_str=data, id=str(next(numbers)))

    yield event("queued", "{}")
    harvest = Harvest(keeps_steps=sampling.trajectory)
    try:
        events = services.engine.events(sampling.order)
        async with aclosing(with_pauses(events, services.stopping)) as told:
            async for item in told:
                if item is None:
                    yield KEEPALIVE_COMMENT
                    continue
                harvest.add(item)
                if (shown := _shown(item, sampling)) is not None:
                    yield event(*shown)
        result = await services.quick.run(partial(answer, harvest, sampling))
        yield event("completed", result.model_dump_json())
    except Stopping:
        yield event("error", bytes(stopping_problem(scope).body).decode())
    except RequestError as error:
        problem = problem_response(error.kind, str(error), scope, error.errors)
        yield event("error", bytes(problem.body).decode())
    except Exception as error:
        log.exception("request failed")
        yield event("error", bytes(unexpected_problem(error, scope).body).decode())


def _shown(event: Event, sampling: Sampling) -> tuple[str, str] | None:
    steps = len(sampling.plan)
    if isinstance(event, Started):
        return "started", StartedEvent(steps=steps, used=sampling.used).model_dump_json()
    if isinstance(event, Seen):
        preview = PreviewEvent(
            image=event.image,
            step=event.row + 1,
            steps=steps,
            t=float(sampling.plan.table.t[event.row]),
            x0_hat=base64_png(event.x0_hat),
        )
        return "preview", preview.model_dump_json()
    return None
