"""Idempotency-Key on requests that make something (store.access.idempotency).

A repeat within a day gets the first answer again, with `Idempotency-Replayed: true`.
"""

import asyncio
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.http import problems
from app.http.errors import InvalidInput
from app.http.problems import problem_response
from app.logs import log
from store.access.idempotency import Claim, begin, forget, keep_answer
from store.access.owners import Caller
from store.database import Database
from store.errors import AlreadyMade, AlreadyRunning, OtherRequest
from store.nodes import node_id

HEADER = "Idempotency-Key"
MAKERS = ("datasets", "evaluations", "keys", "sample", "train-jobs")  # first parts of paths
SECRET = ("keys",)  # whose answers are not kept
MAX_KEY = 255
MAX_BODY = 2**20  # of a request
MAX_ANSWER = 2**18
PARAMETER = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY, "pattern": "^[ -~]+$"},
    "description": "Any word of the caller's: the same request with the same word is done once, "
    "and answered as the first time for 24 hours.",
}
LEFT_OUT = ("content-length", "date", "x-request-id")


class Idempotency:
    """ASGI middleware, behind the guard. Images and streams are not kept: a repeat makes them anew,
    from the same seed where the request has one."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._running: set[Claim] = set()
        self._beginning = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = _key(scope)
        if key is None:
            await self.app(scope, receive, send)
            return
        try:
            claim, body = await _claim(scope, receive, key)
        except InvalidInput as error:
            await problem_response(problems.INVALID, str(error), scope, error.errors)(
                scope, receive, send
            )
            return
        database: Database = scope["app"].state.services.database
        try:
            async with self._beginning:  # between looking at what runs and adding to it
                first = await run_in_threadpool(
                    begin, database, claim, node_id("api"), claim in self._running
                )
                if first is None:
                    self._running.add(claim)
        except (AlreadyRunning, AlreadyMade, OtherRequest) as error:
            await _refusal(error, scope)(scope, receive, send)
            return
        if first is not None:
            assert first.status is not None
            answer = Response(first.body, first.status)
            answer.raw_headers += [(n.encode(), v.encode()) for n, v in first.headers or ()]
            answer.headers["Idempotency-Replayed"] = "true"
            await answer(scope, receive, send)
            return
        try:
            await self._work(scope, body, receive, send, database, claim)
        finally:
            self._running.discard(claim)

    async def _work(
        self,
        scope: Scope,
        body: bytes,
        receive: Receive,
        send: Send,
        database: Database,
        claim: Claim,
    ) -> None:
        scope["state"]["claim"] = claim
        kept = _Answer(scope["path"].split("/")[1] not in SECRET)
        given = False

        async def receive_again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        settled = False

        async def settle() -> None:
            """Keep the answer, or leave the key free."""
            nonlocal settled
            settled = True
            if kept.is_whole:
                await run_in_threadpool(
                    keep_answer, database, claim, kept.status, kept.headers, bytes(kept.body)
                )
            else:
                await run_in_threadpool(forget, database, claim)
                self._running.discard(claim)

        async def settle_and_send(message: Message) -> None:
            if kept.add(message):  # before the caller has all of it and may repeat the request
                await settle()
            await send(message)

        try:
            await self.app(scope, receive_again, settle_and_send)
        finally:
            if not settled:
                with suppress(SQLAlchemyError):
                    await settle()


class _Answer:
    """An answer as it is sent, as far as it may be kept."""

    def __init__(self, may_be_kept: bool) -> None:
        self.status, self.headers, self.body = 0, list[tuple[str, str]](), bytearray()
        self.is_whole = False
        self._fits = may_be_kept

    def add(self, message: Message) -> bool:
        """Add a message; return whether it is the last."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            fields = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
            self.headers = [(n, v) for n, v in fields if n.lower() not in LEFT_OUT]
            kind = next((v for n, v in fields if n.lower() == "content-type"), "")
            self._fits = self._fits and self.status < 300 and kind == "application/json"
            return False
        if message["type"] != "http.response.body":
            return False
        if self._fits:
            self.body += message.get("body", b"")
            self._fits = len(self.body) <= MAX_ANSWER
        is_last = not message.get("more_body", False)
        self.is_whole = self._fits and is_last
        return is_last


def is_maker(path: str) -> bool:
    """Return whether POST to this path may make something that lasts."""
    return path.removeprefix("/").split("/")[0] in MAKERS


def _key(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    if not is_maker(scope["path"]):
        return None
    return Headers(scope=scope).get(HEADER)


async def _claim(scope: Scope, receive: Receive, key: str) -> tuple[Claim, bytes]:
    """Read the request; return its claim and its body. Raises InvalidInput."""
    if not 0 < len(key) <= MAX_KEY or not key.isprintable() or not key.isascii():
        raise InvalidInput.parameter(
            HEADER, f"{HEADER} must have 1..{MAX_KEY} printable ASCII characters", "header"
        )
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > MAX_BODY:
            raise InvalidInput.parameter(
                HEADER,
                f"{HEADER} goes with bodies of at most {MAX_BODY} bytes; PUT needs none",
                "header",
            )
        if not message.get("more_body", False):
            break
    caller: Caller | None = scope["state"]["caller"]
    parts = (scope["path"].encode(), scope["query_string"], bytes(body))
    return Claim.of(caller.owner if caller else None, key, *parts), bytes(body)


def _refusal(error: Exception, scope: Scope) -> Response:
    if isinstance(error, OtherRequest):
        refusal = InvalidInput.parameter(HEADER, str(error), "header")
        return problem_response(problems.INVALID, str(error), scope, refusal.errors)
    log.info("an idempotent request is not repeated", reason=str(error))
    headers = {"Location": error.made} if isinstance(error, AlreadyMade) else {"Retry-After": "1"}
    return problem_response(problems.CONFLICT, str(error), scope, headers=headers)
