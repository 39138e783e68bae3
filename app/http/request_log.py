"""One log line per request, and the request id.

The id is the caller's `X-Request-ID` if that is a plain word, else a random one. Every line logged
while the request is handled carries it, and so does the answer.
"""

import re
import secrets
from time import perf_counter

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import log
from app.metrics import Metrics

_PLAIN_WORD = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# Monitoring polls these every few seconds: they are logged at debug level, and have no traces.
QUIET_PATHS = ("/healthz", "/readyz", "/metrics")


class RequestLog:
    """ASGI middleware that logs and counts requests. It is the outermost one."""

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
    record = log.debug if scope["path"] in QUIET_PATHS else log.info
    record(
        "request",
        method=scope["method"],
        path=scope["path"],
        status=status or "disconnected",
        milliseconds=round(1000 * seconds, 1),
    )
