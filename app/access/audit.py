"""The writer of the audit log (store.access.audit): an entry for each change and each download.

It is written before the caller has the answer: what was answered is in the log.
"""

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.scopes import READING, is_open
from store.access.audit import AuditEntry, add_entry
from store.access.owners import Caller

DOWNLOADS = (
    "/models/{name}/download",
    "/datasets/{name}/images/{image}/file",
    "/sample-jobs/{job_id}/archive",
    "/sample-jobs/{job_id}/images/{index}",
    "/pictures/{picture_id}/file",
)
# They change nothing that lasts. Images of a caller with a key are noted: they are somebody's work.
FLEETING = ("/noise", "/train-jobs/plan", "/audit/search", "/pictures/recipe")
IMAGES = ("/sample", "/sample/again", "/sample/grid")


class Audit:
    """ASGI middleware, behind the guard."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def note_and_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                caller: Caller | None = scope["state"]["caller"]
                route = getattr(scope.get("route"), "path", None)
                if route is not None and _is_noted(scope["method"], route, caller):
                    entry = _entry(scope, route, message, caller)
                    await run_in_threadpool(add_entry, scope["app"].state.services.database, entry)
            await send(message)

        await self.app(scope, receive, note_and_send)


def _is_noted(method: str, route: str, caller: Caller | None) -> bool:
    if method in READING:
        return method == "GET" and route in DOWNLOADS
    if route in IMAGES:
        return caller is not None
    return route not in FLEETING and not is_open(route)


def _entry(scope: Scope, route: str, message: Message, caller: Caller | None) -> AuditEntry:
    client = scope.get("client")
    made = Headers(raw=message["headers"]).get("location")
    return AuditEntry(
        owner=caller.owner if caller else None,
        key_id=caller.key_id if caller else None,
        action=f"{scope['method']} {route}",
        path=scope["path"],
        made=made[:255] if made else None,
        request_digest=scope["state"].get("request_digest"),
        status=message["status"],
        address=client[0] if client else None,
        request_id=scope["state"]["request_id"],
    )
