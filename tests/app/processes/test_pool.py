"""Real processes that answer, die, hang and are replaced."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.http.errors import Busy
from app.processes.fork_server import ForkServer
from app.processes.pool import ProcessPool
from app.settings import Settings
from host.environment import to_environment


@asynccontextmanager
async def a_pool(limit_seconds: float = 60.0, max_waiting: int = 8) -> AsyncIterator[ProcessPool]:
    greeting = to_environment(Settings(log_level="error"))
    server = ForkServer("app.noise.process")
    pool = ProcessPool(server, greeting, 1, max_waiting, limit_seconds)
    try:
        yield pool
    finally:
        pool.close()
        server.close()


def noising(image: bytes, **form: Any) -> tuple[dict[str, Any], bytes]:
    fields = {
        "t": [1],
        "schedule": "linear",
        "num_train_timesteps": 1000,
        "rescale_zero_terminal_snr": False,
        "method": "closed_form",
        "seed": 1,
        "image_size": None,
    }
    return {"form": {**fields, **form}, "media_type": "image/png", "request_id": "test"}, image


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 120))


async def the_process_of(pool: ProcessPool) -> int:
    (process,) = pool._processes
    await process.start()
    header, _ = await process._greeted
    return int(header["pid"])


def test_one_process_answers_many_who_ask_at_once(picture) -> None:
    async def scenario() -> None:
        async with a_pool() as pool:
            asked = [pool.call(noising(picture(), t=[t])) for t in (1, 500, 1000)]
            answers = await asyncio.gather(*asked)
            again = await pool.call(noising(picture(), t=[500]))
            assert [header["status"] for header, _ in answers] == [200] * 3
            assert answers[1][1] == again[1]

    run(scenario)


def test_a_process_that_is_lost_costs_one_request(picture) -> None:
    async def scenario() -> None:
        async with a_pool() as pool:
            assert (await pool.call(noising(picture())))[0]["status"] == 200
            os.kill(await the_process_of(pool), signal.SIGKILL)
            with pytest.raises(Busy):
                await pool.call(noising(picture()))
            assert (await pool.call(noising(picture())))[0]["status"] == 200

    run(scenario)


def test_a_process_that_hangs_is_given_up(picture) -> None:
    async def scenario() -> None:
        async with a_pool(limit_seconds=60) as pool:
            await pool.call(noising(picture()))
            stopped = await the_process_of(pool)
            os.kill(stopped, signal.SIGSTOP)
            pool._limit_seconds = 0.2
            with pytest.raises(Busy, match="too long"):
                await pool.call(noising(picture()))
            pool._limit_seconds = 60
            assert (await pool.call(noising(picture())))[0]["status"] == 200
            assert await the_process_of(pool) != stopped

    run(scenario)


def test_a_lost_fork_server_is_replaced(picture) -> None:
    async def scenario() -> None:
        async with a_pool() as pool:
            await pool.call(noising(picture()))
            server = pool._fork_server._popen
            assert server is not None
            server.kill()
            server.wait()
            assert (await pool.call(noising(picture())))[0][
                "status"
            ] == 200  # it has forked already
            os.kill(await the_process_of(pool), signal.SIGKILL)
            with pytest.raises(Busy):
                await pool.call(noising(picture()))
            assert (await pool.call(noising(picture())))[0]["status"] == 200

    run(scenario)


def test_who_gives_up_waiting_leaves_no_answer_to_the_next(picture) -> None:
    async def scenario() -> None:
        async with a_pool() as pool:
            await pool.call(noising(picture()))
            long_walk = noising(picture(200, 200), t=[500], method="step_by_step")
            walk = asyncio.create_task(pool.call(long_walk))
            await asyncio.sleep(0.2)
            walk.cancel()
            with pytest.raises(asyncio.CancelledError):
                await walk
            header, image = await pool.call(noising(picture(), t=[0]))
            assert header["status"] == 200
            assert len(image) < 10_000

    run(scenario)


def test_more_than_may_wait_are_refused(picture) -> None:
    async def scenario() -> None:
        async with a_pool(max_waiting=1) as pool:
            asked = [asyncio.create_task(pool.call(noising(picture()))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(Busy) as refusal:
                await pool.call(noising(picture()))
            assert int(refusal.value.headers["Retry-After"]) >= 1
            for header, _ in await asyncio.gather(*asked):
                assert header["status"] == 200

    run(scenario)
