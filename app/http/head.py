"""HEAD (RFC 9110, section 9.3.2): the status and the headers of GET, without the body."""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MARK = "diffusion.head"


class Head:
    """ASGI middleware that hands HEAD to the application as GET, and drops the body.

    The answer ends with its headers: a stream is cancelled as if the client had disconnected.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # A copy: the server must still see HEAD, or it would wait for the body.
        get = {**scope, "method": "GET", _MARK: True}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope["route"] = get.get("route")  # for the metrics
                await send(message)
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        await self.app(get, receive, send_head)


def is_head(request: Request) -> bool:
    """Return whether only headers are asked for, so that a route can spare itself the content."""
    return bool(request.scope.get(_MARK, False))
