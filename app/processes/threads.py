"""Threads for the CPU work of requests: bounded in number and in how many may wait.

Pillow, zlib and torch release the interpreter lock, so that threads use the cores.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import TypeVar

from app.processes.turns import Turns

Result = TypeVar("Result")


class ThreadPool:
    """Threads under a name. `run` waits for a free one, in turn with other callers; it raises Busy
    where `max_waiting` are waiting."""

    def __init__(self, name: str, threads: int, max_waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._name = name
        self._turns = Turns(threads, max_waiting)
        self._seconds = 0.1  # of a piece of work, a moving average

    async def run(self, work: Callable[[], Result]) -> Result:
        why = f"requests for {self._name} are waiting already"
        async with self._turns.turn(why, self._seconds):
            seconds, result = await asyncio.get_running_loop().run_in_executor(
                self._executor, _timed, work
            )
        self._seconds += 0.1 * (seconds - self._seconds)
        return result

    def close(self) -> None:
        self._executor.shutdown(wait=True, cancel_futures=True)


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    started = perf_counter()
    result = work()
    return perf_counter() - started, result
