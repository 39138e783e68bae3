"""The answers to exceptions that nothing else caught."""

import asyncio

from sqlalchemy.exc import OperationalError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http.problems import log_database_error, stopping_problem, unexpected_problem
from app.logs import log


class Faults:
    """ASGI middleware that answers a fault of the service with a problem.

    Where an answer has begun, the exception is passed on. It lies inside the middleware that adds
    headers to every answer.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def note_begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, note_begin)
        except asyncio.CancelledError:  # the server stops and its grace period is over
            if begun:
                raise
            await stopping_problem(scope)(scope, receive, send)
        except Exception as error:
            if isinstance(error, OperationalError):
                log_database_error(error, scope)
            else:
                log.exception("request failed", method=scope["method"], path=scope["path"])
            if begun:
                raise
            await unexpected_problem(error, scope)(scope, receive, send)
