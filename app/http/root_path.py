"""The service below a path of a proxy's, such as /diffusion (DIFFUSION_ROOT_PATH).

Within the application every path is as if there were none: RootPath, the outermost middleware,
removes it before anything looks at the path, so that routes, the guard and limits agree on what is
asked for. A proxy may pass the path on or strip it. What leads back is given it again: `Location`
by RootPath, links in answers by `link`.
"""

from contextvars import ContextVar
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_root_path: ContextVar[str] = ContextVar("root_path", default="")


def link(path: str) -> str:
    """Return a path of the service as its callers have to ask for it."""
    return _root_path.get() + path


class RootPath:
    """ASGI middleware that serves the application below `root_path`, and also without it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["path"] == self.root_path:  # addresses in the console are relative to a folder
            query = scope["query_string"].decode("latin-1")
            there = f"{self.root_path}/{'?' if query else ''}{query}"
            await RedirectResponse(there, 308)(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith(f"{self.root_path}/"):
            path = path[len(self.root_path) :]
        token = _root_path.set(self.root_path)
        try:
            # raw_path is optional in ASGI, and would still have the prefix.
            inner = {name: value for name, value in scope.items() if name != "raw_path"}
            await self.app({**inner, "path": path}, receive, self._with_location(send))
        finally:
            _root_path.reset(token)

    def _with_location(self, send: Send) -> Send:
        async def send_with_location(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                if (location := headers.get("location")) is not None:  # always the service's own
                    parts = urlsplit(location)
                    headers["location"] = parts._replace(path=self.root_path + parts.path).geturl()
                    message = {**message, "headers": headers.raw}
            await send(message)

        return send_with_location
