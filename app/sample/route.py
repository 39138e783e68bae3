"""POST /sample: new images from a model."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.http import problems
from app.http.accept import choose
from app.http.file_answers import content_of
from app.http.streams import EVENT_STREAM
from app.registry.card import model_card
from app.sample.answer import Collected, check_size, represent
from app.sample.events import event_stream
from app.sample.jobs_route import KIND, create_sample_job
from app.sample.jobs_schema import SampleJobAnswer
from app.sample.request import Resolved, resolve
from app.sample.schema import SampleAnswer, SampleBody, SampleUsed
from app.services import Services, ServicesDep
from app.settings import Settings
from host.tracing import span
from models.engine.orders import Order
from models.images.formats import BY_MEDIA_TYPE
from store.access.quotas import charge_images
from store.models import get_model

router = APIRouter(tags=["sample"])

OFFERED = (*BY_MEDIA_TYPE, "application/zip", "application/json", EVENT_STREAM)
CLIENT_CLOSED_REQUEST = 499  # nginx's; the client does not read it

Result = TypeVar("Result")


@router.post(
    "/sample",
    summary="New images from a model",
    response_class=Response,
    responses={
        200: {
            "description": "One image, a grid of several, a zip of files, JSON with base64, or "
            "events as it goes: queued, started, preview, completed, error.",
            "model": SampleAnswer,
            "content": content_of(*OFFERED),
        },
        202: {
            "description": "A job for the workers, where `Prefer: respond-async` asks for one or "
            "one answer cannot hold so many images. Poll `Location`.",
            "model": SampleJobAnswer,
        },
        **problems.declare(
            problems.NOT_FOUND,
            problems.NOT_ACCEPTABLE,
            problems.UNSUPPORTED,
            problems.INVALID,
            problems.DAMAGED,
            problems.UNAVAILABLE,
        ),
    },
)
async def sample(body: SampleBody, request: Request, services: ServicesDep) -> Response:
    """`curl --json '{"model": "digits-1"}' -H Accept:image/png .../sample -o new.png`

    The seed, the sampler and the model's digest are in the answer: the same again gives the same
    images. Each image carries all of it, for POST /sample/again. Nothing more is made for a caller
    that leaves.

    `Prefer: respond-async`, or more images than one answer may hold, make it a job for the workers;
    not with a deadline, a trajectory or events, which are for those who wait.
    """
    media_type = choose(request.headers.get("accept"), OFFERED)
    settings = services.settings
    record = await run_in_threadpool(get_model, services.database, body.model)
    watched = media_type == EVENT_STREAM
    as_job = not watched and _becomes_a_job(body, request, settings)
    bound = settings.max_images_per_job if as_job else settings.max_images_per_request
    card = await run_in_threadpool(model_card, services.artifacts, record)
    resolved = await services.threads.run(
        partial(resolve, body, record, card, settings, bound, watched)
    )
    order = resolved.order
    note_request(request, resolved)
    if not as_job:
        check_size(
            media_type, card.image_size, body.num_images, len(order.plan), bool(body.trajectory)
        )
    if as_job:
        await charge(services, body.num_images)
        job = await run_in_threadpool(create_sample_job, services, resolved)
        return _accepted(job, request, _headers(resolved.used, resolved.warnings))
    collected = Collected(
        resolved.used, order.plan.t, body.trajectory, resolved.warnings, resolved.recipe
    )
    return await respond(request, services, order, collected, media_type, represent)


def note_request(request: Request, resolved: Resolved) -> None:
    """Have the audit log say which images were asked for."""
    if request.state.caller is not None and resolved.recipe is not None:
        request.state.request_digest = resolved.recipe.get("request_digest")


async def respond(
    request: Request,
    services: Services,
    order: Order,
    collected: Collected,
    media_type: str,
    represent: Callable[[Collected, str], bytes],
) -> Response:
    """Have the engine make the images, and answer with the file that `represent` makes of them, or
    with events."""
    await charge(services, order.count or order.plan.num_images)
    if media_type == EVENT_STREAM:
        headers = {**_headers(collected.used, collected.warnings), "Cache-Control": "no-cache"}
        events = event_stream(services, order, collected, request.scope)
        return StreamingResponse(events, media_type=EVENT_STREAM, headers=headers)
    if await unless_disconnected(request, _collect(services, order, collected)) is None:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    with span("answer"):
        content = await services.threads.run(partial(represent, collected, media_type))
    headers = _headers(collected.used, collected.warnings + collected.differences)
    if collected.again is not None:
        headers["Diffusion-Exact"] = "0" if collected.differences else "1"
    return Response(content, media_type=media_type, headers=headers)


async def charge(services: Services, num_images: int) -> None:
    """Count the images against the caller's quota. Raises QuotaExceeded."""
    if services.database.caller is not None:
        await run_in_threadpool(charge_images, services.database, num_images)


def _becomes_a_job(body: SampleBody, request: Request, settings: Settings) -> bool:
    if body.trajectory or body.deadline_seconds is not None:
        return False
    return _prefers_a_job(request) or body.num_images > settings.max_images_per_request


def _prefers_a_job(request: Request) -> bool:
    """Look for `Prefer: respond-async` (RFC 7240, section 4.1)."""
    given = ",".join(request.headers.getlist("prefer")).split(",")
    return "respond-async" in (item.partition(";")[0].strip().lower() for item in given)


def _accepted(job: SampleJobAnswer, request: Request, headers: dict[str, str]) -> Response:
    headers |= {"Location": KIND.address(job.id), "Retry-After": "1", "Vary": "Accept, Prefer"}
    if _prefers_a_job(request):
        headers["Preference-Applied"] = "respond-async"
    return Response(job.model_dump_json(), 202, headers, "application/json")


async def _collect(services: Services, order: Order, collected: Collected) -> Collected:
    async for event in services.engine.events(order):
        collected.add(event)
    return collected


async def unless_disconnected(request: Request, work: Awaitable[Result]) -> Result | None:
    """Return the result, or None where the client disconnects; the work is then cancelled."""
    leaving = asyncio.ensure_future(_disconnected(request))
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait((leaving, working), return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        leaving.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _headers(used: SampleUsed, warnings: list[str]) -> dict[str, str]:
    headers: dict[str, object] = {
        "Diffusion-Seed": used.seed,
        "Diffusion-Sampler": used.sampler,
        "Diffusion-Num-Inference-Steps": used.num_inference_steps,
        "Diffusion-Guidance-Scale": used.guidance_scale,
        "Diffusion-Model-Digest": used.model_digest,
        "Diffusion-Precision": used.precision,
        "Vary": "Accept",
    }
    if warnings:
        headers["Diffusion-Warning"] = "; ".join(warnings)
    return {name: str(value) for name, value in headers.items()}
