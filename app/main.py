"""The HTTP application, assembled by create_app(settings)."""

import asyncio
import importlib
import signal
import threading
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from importlib.metadata import version
from types import FrameType, ModuleType
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.middleware.cors import CORSMiddleware

from app.access import audit_route as audit
from app.access import keys_route as keys
from app.access import session_route as session
from app.access.audit import Audit
from app.access.guard import Guard
from app.access.rate_limit import RateLimit
from app.catalogue import samplers_route as samplers
from app.catalogue import schedules_route as schedules
from app.datasets import images_route as dataset_images
from app.datasets import report_route as dataset_report
from app.datasets import route as datasets
from app.datasets import versions_route as dataset_versions
from app.http.body_limit import BodyLimit
from app.http.faults import Faults
from app.http.handlers import install_error_handlers
from app.http.head import Head
from app.http.idempotency import Idempotency
from app.http.openapi import openapi_document
from app.http.request_log import QUIET_PATHS, RequestLog
from app.http.root_path import RootPath
from app.metrics import Metrics
from app.noise import route as noise
from app.pictures import route as pictures
from app.queue import route as queue
from app.registry import route as models
from app.registry.example import add_example
from app.sample import again_route as sample_again
from app.sample import grid_route as sample_grid
from app.sample import route as sample
from app.service import console, docs, health
from app.service import metrics_route as metrics
from app.service.docs_pages import STATIC
from app.services import Services
from app.settings import Settings
from app.trash import route as trash
from host.environment import InvalidSetting
from store.jobs.kinds import JOB_KINDS
from store.nodes import heartbeat, leave
from worker.reaper import Reaper
from worker.sweeper import Sweeper

TITLE = "Diffusion service"
DESCRIPTION = """\
Train diffusion models on your own images and serve new ones.

Errors are `application/problem+json` (RFC 9457); every answer has an `X-Request-ID`. `Accept`
chooses between the formats of an answer.
"""
ROUTES: tuple[ModuleType, ...] = (  # without those of jobs, which are in JOB_KINDS
    noise,
    schedules,
    datasets,
    dataset_versions,
    dataset_report,
    dataset_images,
    models,
    sample,
    sample_again,
    sample_grid,
    samplers,
    pictures,
    queue,
    trash,
    session,
    keys,
    audit,
    health,
    metrics,
    docs,
    console,
)
LAST_WORDS_SECONDS = 0.5  # before the server cuts off what it still answers
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
TAGS = [
    {"name": "noise", "description": "The forward process on your image."},
    {"name": "schedules", "description": "Noise schedules as numbers and as plots."},
    {"name": "datasets", "description": "Archives of images for training."},
    {"name": "training", "description": "Jobs that train models."},
    {"name": "models", "description": "Models that were trained here or uploaded."},
    {"name": "sample", "description": "New images from a model."},
    {"name": "pictures", "description": "A gallery of what was sampled and kept."},
    {"name": "trash", "description": "What was deleted, for a while."},
    {"name": "keys", "description": "Who may call the service, and for what."},
    {"name": "service", "description": "Health, metrics and the kinds of errors."},
]


def create_app(settings: Settings) -> FastAPI:
    counters = Metrics()
    app = FastAPI(
        title=TITLE,
        description=DESCRIPTION,
        version=version("diffusion-service"),
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=partial(_lifespan, settings, counters),
        generate_unique_id_function=lambda route: route.name,  # operation ids
        # A span for each request where host.tracing is on, and no exporters but its own.
        telemetry={
            "auto_configure": False,
            "operation_spans": False,
            "exclude": partial(_is_quiet, settings.root_path),
        },
    )
    job_routes = (importlib.import_module(kind.routes) for kind in JOB_KINDS.values())
    for module in (*ROUTES, *job_routes):
        app.include_router(module.router)
    app.mount("/static", docs.CachedFiles(directory=STATIC), name="static")
    install_error_handlers(app)
    _check_root_path(app, settings.root_path)
    _add_middleware(app, settings, counters)
    app.openapi = partial(openapi_document, app, settings.root_path)  # type: ignore[method-assign]
    return app


def _is_quiet(root_path: str, scope: MutableMapping[str, Any]) -> bool:
    return scope["path"].removeprefix(root_path) in QUIET_PATHS


def _check_root_path(app: FastAPI, root_path: str) -> None:
    """Raise InvalidSetting where an address could be meant with this path or without it."""
    first = root_path.split("/")[1] if root_path else None
    own = {getattr(route, "path", "/").split("/")[1] for route in iter_route_contexts(app.routes)}
    if first in own:
        raise InvalidSetting(
            f"DIFFUSION_ROOT_PATH is {root_path!r}; it must not begin with an address of the "
            f"service, and /{first} is one"
        )


def _add_middleware(app: FastAPI, settings: Settings, counters: Metrics) -> None:
    """Add the middleware, from the innermost to the outermost: problems of every origin, those of
    BodyLimit and Faults included, get the headers of CORS, and preflights are logged, too."""
    app.add_middleware(Head)
    app.add_middleware(
        BodyLimit,
        limit=settings.max_upload_bytes,
        exceptions={
            "/datasets/[^/]+(/images)?": settings.max_dataset_bytes,
            "/models/[^/]+": settings.max_model_bytes,
        },
    )
    app.add_middleware(Audit)
    app.add_middleware(Idempotency)
    app.add_middleware(RateLimit)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Faults)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=METHODS,
            allow_headers=["*"],
            expose_headers=["*"],
        )
    app.add_middleware(RequestLog, metrics=counters)
    if settings.root_path:
        app.add_middleware(RootPath, root_path=settings.root_path)


@asynccontextmanager
async def _lifespan(settings: Settings, counters: Metrics, app: FastAPI) -> AsyncIterator[None]:
    app.state.services = services = Services.start(settings, counters)
    restore = _on_sigterm(partial(_drain, services))
    await asyncio.to_thread(heartbeat, services.database, "api")  # refuses a second host on SQLite
    await asyncio.to_thread(add_example, services)
    reaper = Reaper(services.database, services.queue, "api")
    reaper.start()
    sweeper = Sweeper(services.database, services.artifacts, settings.keeping)
    sweeper.start()
    services.engine.start()
    await services.noise_pool.start()
    try:
        yield
    finally:
        restore()
        reaper.stop()
        sweeper.stop()
        with suppress(sa.exc.SQLAlchemyError):
            await asyncio.to_thread(leave, services.database, "api")
        await services.close()


def _drain(services: Services) -> None:
    """Let streams that wait for news end at once, and those of an answer before they are cut."""
    services.stopping.set()
    seconds = services.settings.drain_seconds - LAST_WORDS_SECONDS
    asyncio.get_running_loop().call_later(seconds, services.drained.set)


def _on_sigterm(react: Callable[[], None]) -> Callable[[], None]:
    """Call `react` in the event loop on SIGTERM and SIGINT, before the server's own handlers.

    The server waits for open streams before the lifespan ends, so they must be told earlier.
    Return the function that restores the previous handlers.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    loop = asyncio.get_running_loop()
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(react)
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number in previous:
        signal.signal(number, handle)

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    return restore
