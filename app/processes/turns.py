"""Turns among callers: who asks for much waits for itself, and does not hold up the others.

The places of a pool are shared evenly by the callers of the last seconds: where there are two, each
may take half of them, rounded down, which leaves a place and time of the cores to the other. Those
who wait are admitted in turn, one of each caller.
"""

from asyncio import CancelledError, Future, get_running_loop
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from time import monotonic

from app.http.errors import Busy

CALLER: ContextVar[str] = ContextVar("caller", default="")  # of the request at hand
REMEMBERED_SECONDS = 10.0  # a caller counts as one for so long after its last request


class Turns:
    """`places` at once, and `max_waiting` who wait. Where all of these are taken, callers that have
    less than their share of them may still wait."""

    def __init__(self, places: int, max_waiting: int) -> None:
        self._places = places
        self._capacity = places + max_waiting
        self._waiting: dict[str, deque[Future[None]]] = {}  # the next caller first
        self._running: Counter[str] = Counter()
        self._pending: Counter[str] = Counter()
        self._seen: dict[str, float] = {}  # monotonic()

    def __len__(self) -> int:
        return self._pending.total()

    @asynccontextmanager
    async def turn(self, message: str, seconds_each: float) -> AsyncIterator[None]:
        """Wait for a place, and hold it. Raises Busy with this message after their number, and the
        time that the backlog takes, where too many wait."""
        caller = CALLER.get()
        self._note(caller)
        pending = len(self)
        if pending >= self._capacity and (
            self._pending[caller] * len(self._seen) >= self._capacity
        ):
            raise Busy(f"{pending} {message}", pending * seconds_each / self._places)
        self._pending[caller] += 1
        try:
            await self._enter(caller)
            try:
                yield
            finally:
                self._leave(caller)
        finally:
            _decrease(self._pending, caller)

    def _note(self, caller: str) -> None:
        now = monotonic()
        self._seen[caller] = now
        for other in [c for c, at in self._seen.items() if at < now - REMEMBERED_SECONDS]:
            if not self._pending[other]:
                del self._seen[other]

    async def _enter(self, caller: str) -> None:
        place: Future[None] = get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        self._admit()
        try:
            await place
        except CancelledError:
            if place.cancelled():
                self._forget(caller, place)
            else:
                self._leave(caller)
            raise

    def _leave(self, caller: str) -> None:
        _decrease(self._running, caller)
        self._admit()

    def _admit(self) -> None:
        share = max(1, self._places // max(1, len(self._seen)))
        while self._running.total() < self._places:
            caller = next((c for c in self._waiting if self._running[c] < share), None)
            if caller is None:
                return
            queue = self._waiting.pop(caller)
            place = queue.popleft()
            if queue:
                self._waiting[caller] = queue  # behind the others
            self._running[caller] += 1
            place.set_result(None)

    def _forget(self, caller: str, place: "Future[None]") -> None:
        queue = self._waiting[caller]
        queue.remove(place)
        if not queue:
            del self._waiting[caller]


def _decrease(counts: Counter[str], caller: str) -> None:
    counts[caller] -= 1
    if not counts[caller]:
        del counts[caller]
