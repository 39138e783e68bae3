"""Structured logs, and one line per request.

Each request has an id, the caller's `X-Request-ID` where it is a plain word, which is in every line
logged on the way and in the answer.
"""

import asyncio
import logging
import re
import secrets
import sys
from time import perf_counter
from typing import TextIO

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import stopping_problem, unexpected_problem
from app.metrics import Metrics

log = structlog.stdlib.get_logger("app")

_PLAIN_WORD = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Asked every few seconds by whatever watches the service.
_QUIET = ("/healthz", "/readyz", "/metrics")


def configure_logs(level: str = "info", format: str = "auto", stream: TextIO = sys.stderr) -> None:  # noqa: A002
    """Sends structlog's and the standard library's records to `stream`, as JSON lines or, on a
    terminal, for eyes."""
    readable = format == "console" or (format == "auto" and stream.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=stream.isatty())]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)


class RequestLog:
    """ASGI middleware, which also counts. The outermost, so that it also answers for what nobody
    else caught."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, send_with_id)
            except asyncio.CancelledError:  # the server leaves and has waited long enough
                if status:
                    raise
                await stopping_problem(scope)(scope, receive, send_with_id)
            except Exception as error:
                log.exception("request failed", method=scope["method"], path=scope["path"])
                if status:
                    raise
                await unexpected_problem(error, scope)(scope, receive, send_with_id)
            finally:
                seconds = perf_counter() - started
                self.metrics.answered(scope, status, seconds)
                _log_request(scope, status, seconds)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _PLAIN_WORD.fullmatch(value):
            return str(value, "ascii")
    return secrets.token_hex(8)


def _log_request(scope: Scope, status: int, seconds: float) -> None:
    record = log.debug if scope["path"] in _QUIET else log.info
    record(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status or "disconnected",
        milliseconds=round(1000 * seconds, 1),
    )
