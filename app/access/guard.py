"""The guard in front of every route: is this host ours, may this page change something, whose key
is this, and what is it for?

Without any key the service answers everybody who can reach it, which `app.server` allows on
loopback only. From the first key on, each request needs one: as `Authorization: Bearer`, or in the
cookie with which the console signs in (app.access.session_route).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http.cookies import CookieError, SimpleCookie
from types import MappingProxyType

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.access.origins import is_foreign, is_own_host
from app.access.scopes import READING, is_open, scopes_for
from app.http import problems
from app.http.errors import RequestError
from app.http.problems import problem_response
from app.settings import Settings
from store.access.keys import Key, any_key, find_key
from store.access.owners import Caller
from store.access.quotas import owners_quotas
from store.database import Database

COOKIE = "diffusion_key"
TRUSTED_SECONDS = 1.0  # a key that was revoked may be taken for so much longer
MAX_KNOWN = 1000  # keys


class Unauthorized(RequestError):
    kind = problems.UNAUTHORIZED
    headers: Mapping[str, str] = MappingProxyType({"WWW-Authenticate": "Bearer"})


class Forbidden(RequestError):
    kind = problems.FORBIDDEN


class Misdirected(RequestError):
    kind = problems.MISDIRECTED


@dataclass(frozen=True)
class _Known:
    key: Key
    caller: Caller
    until: float  # time.monotonic()


class Guard:
    """ASGI middleware that refuses what is not allowed, and notes the caller in the request's
    state."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self._known: dict[str, _Known] = {}
        self._needed, self._looked_at = False, float("-inf")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["caller"] = await self._caller(scope)
        except RequestError as refusal:
            answer = problem_response(
                refusal.kind, str(refusal), scope, refusal.errors, refusal.headers
            )
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _caller(self, scope: Scope) -> Caller | None:
        """Return the caller, None where no key is needed. Raises RequestError."""
        method, path, headers = scope["method"], scope["path"], Headers(scope=scope)
        host = headers.get("host", "localhost")
        if not is_own_host(host, self.settings.trusted_hosts):
            raise Misdirected(
                f"{host[:80]!r} is not a name of this service; DIFFUSION_TRUSTED_HOSTS lists more"
            )
        if method not in READING and is_foreign(
            headers.get("origin"),
            headers.get("sec-fetch-site"),
            host,
            self.settings.cors_origins,
        ):
            raise Forbidden(
                "a web page of another origin may not change anything here; "
                "DIFFUSION_CORS_ORIGINS lists those that may"
            )
        if is_open(path):
            return None
        database: Database = scope["app"].state.services.database
        text = key_in(headers)
        if text is None:
            if self.settings.open or not await self._is_key_needed(database):
                return None
            raise Unauthorized("a key is needed: Authorization: Bearer KEY")
        known = await self._look_up(database, text)
        key = known.key
        wanted = scopes_for(method, path)
        if "admin" not in key.scopes and not any(scope in key.scopes for scope in wanted):
            needed = " or ".join(repr(scope) for scope in (*wanted, "admin"))
            raise Forbidden(f"this key is for {', '.join(key.scopes)}; this needs {needed}")
        return known.caller

    async def _look_up(self, database: Database, text: str) -> _Known:
        known = self._known.get(text)
        if known is not None and known.until > time.monotonic():
            return known
        self._known.pop(text, None)
        found = await run_in_threadpool(self._find, database, text)
        if found is None:
            raise Unauthorized("the key is not known, or it was revoked")
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[text] = found
        return found

    def _find(self, database: Database, text: str) -> _Known | None:
        key = find_key(database, text)
        if key is None:
            return None
        caller = caller_with(key, self.settings)
        caller = replace(caller, quotas=owners_quotas(database, caller))
        return _Known(key, caller, time.monotonic() + TRUSTED_SECONDS)

    async def _is_key_needed(self, database: Database) -> bool:
        if not self._needed and time.monotonic() > self._looked_at + TRUSTED_SECONDS:
            self._needed = await run_in_threadpool(any_key, database)
            self._looked_at = time.monotonic()
        return self._needed


def caller_with(key: Key, settings: Settings) -> Caller:
    return Caller(key.owner, "admin" in key.scopes, settings.quotas, key.id)


def key_in(headers: Headers) -> str | None:
    """Return the key that a request carries."""
    kind, _, text = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer" and text:
        return text.strip()
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return cookie.value if cookie is not None else None
