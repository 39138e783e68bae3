"""The limit on the size of request bodies.

Content-Length is checked before a byte is read; a body without it is counted as it arrives. The
framework's own limit is not used: it answers in plain text, past the exception handlers.
"""

import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import problems
from app.http.errors import TooLarge
from app.http.problems import problem_response


class BodyLimit:
    """ASGI middleware that allows `limit` bytes; `exceptions` has other limits by the path, a
    regular expression."""

    def __init__(self, app: ASGIApp, limit: int, exceptions: Mapping[str, int]) -> None:
        self.app = app
        self.limit = limit
        self.exceptions = exceptions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        limit = self._limit_of(scope["path"])
        length = _content_length(scope)
        if length is not None and length > limit:
            detail = f"the body has {length} bytes; at most {limit} are allowed"
            await problem_response(problems.TOO_LARGE, detail, scope)(scope, receive, send)
            return
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise TooLarge(f"the body has more than {limit} bytes, which is the limit")
            return message

        # The server cuts a body at its Content-Length, so only bodies without one are counted.
        await self.app(scope, receive_within_limit if length is None else receive, send)

    def _limit_of(self, path: str) -> int:
        for pattern, limit in self.exceptions.items():
            if re.fullmatch(pattern, path):
                return limit
        return self.limit


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return None
