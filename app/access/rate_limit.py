"""Limits on requests in a minute, of each caller: the owner of a key, or without one the address.

They are counted in Valkey, so that several APIs count together, by the generic cell rate algorithm:
a caller may spend the requests of a minute at once, and gets them back one by one. One number per
caller is kept, the time at which it has all of them again, and the clock is Valkey's. Where Valkey
is away, requests go on uncounted.
"""

import asyncio
import time
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from throttled.asyncio import RateLimiterType, RateLimitState, RedisStore, Throttled, per_min
from throttled.exceptions import StoreUnavailableError

from app.access.scopes import is_free
from app.http import problems
from app.http.problems import problem_response
from app.logs import log
from app.processes.turns import CALLER
from store.access.owners import Caller, Quotas
from store.locations import for_redis_py

MINUTE = 60  # seconds
# POST to these costs more than an answer
COMPUTING = ("/noise", "/sample", "/sample/again", "/sample/grid")
WAIT_SECONDS = 1.0  # for Valkey, at most; less might pass while the API is busy
AWAY_SECONDS = 2.0  # until it is asked again
MAX_CONNECTIONS = 8
PREFIX_V6 = 64  # bits of an address that a caller cannot choose

HEADERS: dict[str, dict[str, object]] = {  # for OpenAPI
    "RateLimit-Policy": {
        "description": "The limit that counts this request, where there is one: `q` requests in "
        "`w` seconds (draft-ietf-httpapi-ratelimit-headers-10).",
        "schema": {"type": "string"},
        "example": '"requests";q=600;w=60',
    },
    "RateLimit": {
        "description": "What is left of it: `r` requests, and one more in `t` seconds.",
        "schema": {"type": "string"},
        "example": '"requests";r=599;t=1',
    },
}


@dataclass(frozen=True)
class Policy:
    """A limit by its name; `quota` is the field of Quotas that has the requests in a minute."""

    name: str
    quota: str

    def limit(self, quotas: Quotas) -> int:
        limit: int = getattr(quotas, self.quota)
        return limit


REQUESTS = Policy("requests", "rate_requests")
COMPUTE = Policy("compute", "rate_compute")


def policy_for(method: str, path: str) -> Policy:
    return COMPUTE if method == "POST" and path in COMPUTING else REQUESTS


def caller_id(caller: Caller | None, address: str | None) -> str:
    """Return who shares a limit: the owner of the key; without one the address, of which a host
    with IPv6 has many."""
    if caller is not None:
        return f"owner:{caller.owner}"
    try:
        ip = ip_address(address or "")
    except ValueError:
        return "address:"  # a unix socket
    if isinstance(ip, IPv6Address):
        return f"address:{int(ip) >> (ip.max_prefixlen - PREFIX_V6):x}"
    return f"address:{ip}"


class RateLimits:
    """The counts in Valkey."""

    def __init__(self, redis_url: str) -> None:
        options = {
            "CONNECTION_POOL_CLASS": "redis.asyncio.BlockingConnectionPool",
            "CONNECTION_POOL_KWARGS": {
                "max_connections": MAX_CONNECTIONS,
                "retry": Retry(NoBackoff(), 0),
            },
        }
        self._store = RedisStore(for_redis_py(redis_url), options)
        self._limiters: dict[int, Throttled] = {}  # by requests in a minute
        self._away_until = float("-inf")  # time.monotonic()

    async def count(self, policy: Policy, who: str, limit: int) -> RateLimitState | None:
        """Count a request of a caller who may make `limit` in a minute. `retry_after` of the result
        is above 0 where it is one too many. Returns None where Valkey is away."""
        if time.monotonic() < self._away_until:
            return None
        if limit not in self._limiters:
            self._limiters[limit] = Throttled(
                using=RateLimiterType.GCRA.value,
                quota=per_min(limit),
                store=self._store,
                key_prefix="diffusion",
            )
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return (await self._limiters[limit].limit(f"{policy.name}:{who}")).state
        except (TimeoutError, StoreUnavailableError) as error:
            if time.monotonic() >= self._away_until:
                log.warning("requests are not counted", reason=repr(error.__cause__ or error))
            self._away_until = time.monotonic() + AWAY_SECONDS
            return None

    async def close(self) -> None:
        # The library has no way to close its connections.
        client = cast(redis.asyncio.Redis, self._store._backend.get_client())
        await client.aclose()
        await client.connection_pool.disconnect()


class RateLimit:
    """ASGI middleware, behind the guard, that refuses what is too much and tells what is left. It
    also notes the caller for app.processes.turns."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        services = scope["app"].state.services
        caller: Caller | None = scope["state"]["caller"]
        client = scope.get("client")
        who = caller_id(caller, client[0] if client else None)
        CALLER.set(who)
        quotas = services.settings.quotas if caller is None else caller.quotas
        policy = policy_for(scope["method"], scope["path"])
        limit = 0 if caller is not None and caller.sees_all else policy.limit(quotas)
        if not limit or is_free(scope["path"]):
            await self.app(scope, receive, send)
            return
        state = await services.rate_limits.count(policy, who, limit)
        if state is None:
            services.metrics.uncounted()
            await self.app(scope, receive, send)
            return
        headers = _headers(policy, state)
        if state.retry_after > 0:
            headers["Retry-After"] = str(ceil(state.retry_after))
            detail = f"{limit} requests in a minute are allowed here; {ceil(state.retry_after)} s"
            answer = problem_response(
                problems.RATE_LIMITED, f"{detail} until the next one", scope, headers=headers
            )
            await answer(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _headers(policy: Policy, state: RateLimitState) -> dict[str, str]:
    interval = MINUTE / state.limit  # from one request that is given back to the next
    spent = state.limit - state.remaining
    wait = state.retry_after or state.reset_after - (spent - 1) * interval
    return {
        "RateLimit-Policy": f'"{policy.name}";q={state.limit};w={MINUTE}',
        "RateLimit": f'"{policy.name}";r={state.remaining};t={max(1, ceil(wait))}',
    }
