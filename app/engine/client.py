"""The API's side of the engine: start it, keep it running, order images from it."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import monotonic

from app.http.errors import Busy, InvalidInput
from app.metrics import Metrics
from app.processes.child import Child
from app.processes.turns import CALLER
from app.processes.wire import Header, receive, send
from app.service.health_schema import ComponentDown
from app.settings import Settings
from host.environment import to_environment
from models.engine.orders import Event, Failed, Made, Order, event_of
from models.nets.precision import Precision
from store.errors import ArtifactDamaged

START_SECONDS = 60.0  # loading torch from a cold disk takes long
POLL_SECONDS = 0.1
ATTEMPTS = 3
PRECISIONS_SECONDS = 2.0  # they are measured once


class EngineFailed(Exception):
    """The engine could not answer; its log says why."""


class EngineClient:
    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        self._environment = to_environment(settings.locations)
        self._folder: Path | None = None  # its own: several services may share data
        self._child = Child("engine", self._start)
        self._watching: asyncio.Task[None] | None = None
        self._capacity = 2 * settings.max_waiting  # orders lost by an engine that starts again
        self._pending = 0
        self._precisions: dict[str, Precision] | None = None

    def start(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="diffusion-"))
        self._child.watch()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching:
            self._watching.cancel()
        await asyncio.to_thread(self._child.stop, 5.0)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def events(self, order: Order) -> AsyncGenerator[Event, None]:
        """Yield Started, then Preview and Made. Where the engine is lost on the way the order is
        sent again, and they begin anew.

        Raises InvalidInput, Busy where too many wait, the deadline cannot be met or the engine does
        not come back, ArtifactDamaged and EngineFailed.
        """
        if self._pending >= self._capacity:
            raise Busy(f"{self._pending} requests for images are waiting already", 5.0)
        self._pending += 1
        order = replace(order, caller=CALLER.get())
        started = monotonic()
        try:
            for _ in range(ATTEMPTS):
                try:
                    async for event in self._send(order):
                        yield event
                    steps = order.plan.num_inference_steps
                    self._metrics.sampled(order.model, steps, monotonic() - started)
                    return
                except (ConnectionError, asyncio.IncompleteReadError):
                    await asyncio.sleep(POLL_SECONDS)  # a dying engine may still accept
            raise Busy("the sampling engine is restarting", 5.0)
        finally:
            self._pending -= 1

    @property
    def _socket(self) -> Path:
        """Raises ConnectionError before `start`."""
        if self._folder is None:
            raise ConnectionError("the engine is not started")
        return self._folder / "socket"

    async def state(self) -> str:
        """Return a line for /readyz. Raises ConnectionError where the engine does not listen, and
        ComponentDown where it can compute no network."""
        now = await self.statistics()
        if now["fault"]:
            raise ComponentDown(now["fault"])
        return f"{now['waiting']} requests; networks by {now['runtime']}"

    async def precisions(self) -> dict[str, Precision] | None:
        """Return what each choice of precision comes to on its device; None while it starts, and
        where it can compute no network."""
        if self._precisions is None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(PRECISIONS_SECONDS):
                    self._precisions = dict(await self._ask("precisions")) or None
        return self._precisions

    async def statistics(self) -> Header:
        """Return the counts of its steps; raises ConnectionError where the engine does not
        listen."""
        return await self._ask("stats")

    async def _ask(self, question: str) -> Header:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            await send(writer, {question: True})
            header, _ = await receive(reader)
        except asyncio.IncompleteReadError:
            raise ConnectionError("the engine ended") from None
        finally:
            writer.close()
        return header

    async def check(self, folder: Path, prefix: str, digest: str) -> None:
        """Have the engine call the network of a model's folder once, so that an error in it is
        found now. It will be stored under this prefix. Raises InvalidInput where it cannot be
        called."""
        reader, writer = await self._connect()
        try:
            await send(writer, {"check": str(folder), "prefix": prefix, "digest": digest})
            header, _ = await receive(reader)
        except (ConnectionError, asyncio.IncompleteReadError):
            header = {"error": "the network cannot be run: the engine ended"}
        finally:
            writer.close()
        if header["error"]:
            raise InvalidInput.pointer("", header["error"])

    async def _send(self, order: Order) -> AsyncGenerator[Event, None]:
        reader, writer = await self._connect()
        try:
            await send(writer, order.to_header())
            while True:
                event = event_of(*await receive(reader))
                if isinstance(event, Failed):
                    raise _error(event)
                yield event
                if isinstance(event, Made) and event.last:
                    return
        finally:
            writer.close()  # also when the client disconnected: the engine then stops

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        deadline = monotonic() + START_SECONDS
        while True:
            try:
                return await asyncio.open_unix_connection(self._socket)
            except OSError:
                if monotonic() > deadline:
                    raise Busy("the sampling engine does not start", 30.0) from None
                await asyncio.sleep(POLL_SECONDS)

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "app.engine.process", str(self._socket)],
            env={**os.environ, **self._environment},
            stdin=subprocess.PIPE,  # its end tells the engine that the API has ended
            start_new_session=True,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._child.watch()


def _error(event: Failed) -> Exception:
    if event.reason == "invalid":
        return InvalidInput.pointer("", event.message)
    if event.reason == "busy":
        return Busy(event.message, event.retry_after)
    if event.reason == "damaged":
        return ArtifactDamaged(event.artifact, event.message)
    return EngineFailed(event.message)
