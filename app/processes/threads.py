"""Threads for the CPU work of requests: bounded in number and in how many may wait.

Pillow, zlib and torch release the interpreter lock, so that threads use the cores.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TypeVar

from app.http.errors import Busy

Result = TypeVar("Result")


class ThreadPool:
    """Threads under a name. `run` raises Busy, with the time that the backlog takes, where
    `max_waiting` are waiting."""

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._name = name
        self._threads = threads
        self._capacity = threads + max_waiting
        self._pending = 0
        self._seconds = 0.1  # of a piece of work, a moving average

    async def run(self, work: Callable[[], Result]) -> Result:
        if self._pending >= self._capacity:
            backlog = self._pending * self._seconds / self._threads
            raise Busy(f"{self._pending} requests for {self._name} are waiting already", backlog)
        self._pending += 1
        try:
            seconds, result = await asyncio.get_running_loop().run_in_executor(
                self._executor, _timed, work
            )
        finally:
            self._pending -= 1
        self._seconds += 0.1 * (seconds - self._seconds)
        return result

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = perf_counter()
    result = work()
    return perf_counter() - started, result
