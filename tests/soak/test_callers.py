"""200 callers that leave during /sample and event streams, 300 that wait, 50 that read one byte a
second: afterwards rows, file descriptors, threads and memory of each process are back where they
were."""

import asyncio
import json
import os
import random
import sqlite3
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.soak.conftest import (
    PATIENCE_SECONDS,
    add_digits_and_tiny,
    client_of,
    processes_of,
    resident_bytes,
    say,
)
from tests.up import Service

LEAVE, WAIT, SLOW = 200, 300, 50
SLOW_SECONDS = 20
SPARE = 8  # descriptors and threads of pools that may not have been full before
GROWTH = 60 * 2**20  # bytes that a process may keep: caches, arenas of the allocator
PROCESSES = {
    "API": "app.server",
    "engine": "app.engine.process",
    "noise": "app.noise.process",
    "workers": "worker.main",
    "Valkey": "valkey-server",
}
BODY = {"model": "tiny", "num_images": 2, "num_inference_steps": 200}


@dataclass(frozen=True)
class Use:
    """What the processes of one kind hold."""

    descriptors: int
    threads: int
    resident: int


def uses(service: Service) -> dict[str, Use]:
    found = {}
    for name, words in PROCESSES.items():
        pids = processes_of(service, words)
        found[name] = Use(
            sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
            sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
            sum(resident_bytes(pid) for pid in pids),
        )
    return found


def rows(data_dir: Path) -> dict[str, int]:
    """How many rows each table has."""
    (file,) = data_dir.glob("*.sqlite3")
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        tables = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {
            name: database.execute(f'select count(*) from "{name}"').fetchone()[0]
            for (name,) in tables
        }


def request_of(method: str, path: str, body: object = None, accept: str = "*/*") -> bytes:
    content = json.dumps(body).encode() if body is not None else b""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


async def leave(address: tuple[str, int], request: bytes, seconds: float) -> None:
    """Ask, read what comes for a while, and go."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    try:
        async with asyncio.timeout(seconds):
            while await reader.read(4096):
                pass
    except TimeoutError:
        pass
    writer.transport.abort()


async def read_slowly(address: tuple[str, int], request: bytes, seconds: float) -> None:
    """Ask, read a byte each second, and go."""
    reader, writer = await asyncio.open_connection(*address, limit=1)
    writer.write(request)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        await reader.read(1)
        await asyncio.sleep(1.0)
    writer.transport.abort()


async def wait(client: httpx.AsyncClient, number: int) -> int:
    body = {**BODY, "num_inference_steps": 20, "num_images": 1, "seed": number}
    return (await client.post("/sample", json=body)).status_code


async def crowd(address: str, job: str) -> Counter[int]:
    """All of them at once; returns the statuses of those who wait."""
    host, port = address.removeprefix("http://").split(":")
    moments = random.Random(1)
    where = (host, int(port))
    events = request_of("GET", f"{job}/events", accept="text/event-stream")
    stream = request_of("POST", "/sample", {**BODY, "num_images": 8}, "text/event-stream")
    images = request_of("POST", "/sample", {**BODY, "num_images": 8}, "application/zip")
    limits = httpx.Limits(max_connections=WAIT)
    async with httpx.AsyncClient(base_url=address, timeout=300, limits=limits) as client:
        leaving = [
            leave(where, (events, stream, images)[n % 3], moments.uniform(0.1, 5.0))
            for n in range(LEAVE)
        ]
        slow = [read_slowly(where, (events, stream)[n % 2], SLOW_SECONDS) for n in range(SLOW)]
        waiting = [wait(client, n) for n in range(WAIT)]
        answers = await asyncio.gather(*waiting, *leaving, *slow)
    return Counter(answers[:WAIT])


def settle(service: Service, client: httpx.Client, before: dict[str, Use]) -> dict[str, Use]:
    """Wait until descriptors and threads are back; return what is held then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        client.get("/healthz").raise_for_status()
        now = uses(service)
        grown = {
            name: (before[name], now[name])
            for name in before
            if now[name].descriptors > before[name].descriptors + SPARE
            or now[name].threads > before[name].threads + SPARE
        }
        if not grown:
            return now
        assert time.monotonic() < deadline, grown
        time.sleep(1.0)


def paused_training(client: httpx.Client) -> str:
    """Return the address of a job that does nothing, and whose stream of events stays open."""
    answer = client.post("/train-jobs", json={"dataset": "digits", "steps": 100_000})
    job: str = answer.raise_for_status().headers["Location"]
    client.post(f"{job}/pause").raise_for_status()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while client.get(job).json()["status"] != "paused":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return job


def test_everything_is_back_where_it_was(start_service, model_archive, tmp_path):
    service = start_service(DIFFUSION_MAX_WAITING="512")
    with client_of(service) as client:
        add_digits_and_tiny(client, model_archive())
        job = paused_training(client)
        # Once before it counts: pools of threads and caches are filled by the first crowd.
        asyncio.run(crowd(service.address(), job))
        before_rows = rows(tmp_path / "data")
        time.sleep(10.0)
        client.get("/healthz").raise_for_status()  # its connection is counted both times
        before = uses(service)
        begun = time.monotonic()
        statuses = asyncio.run(crowd(service.address(), job))
        seconds = time.monotonic() - begun
        after = settle(service, client, before)
        after_rows = rows(tmp_path / "data")
    grown = {
        n: (before_rows[n], after_rows[n]) for n in after_rows if after_rows[n] != before_rows[n]
    }
    memory = {name: after[name].resident - before[name].resident for name in after}
    say(
        "callers",
        **{f"of_{WAIT}_that_wait_answered": dict(statuses)},
        seconds=round(seconds),
        rows_more=grown or 0,
        **{
            f"{name}": f"descriptors {before[name].descriptors} to {after[name].descriptors} "
            f"threads {before[name].threads} to {after[name].threads} "
            f"MB {before[name].resident / 1e6:.0f} to {after[name].resident / 1e6:.0f}"
            for name in after
        },
    )
    assert set(statuses) == {200}
    assert not grown
    assert max(memory.values()) < GROWTH, memory
