"""The API's side of the engine: starts it, keeps it running, asks it for images."""

import asyncio
import os
import subprocess
import sys
from contextlib import suppress
from time import monotonic

import numpy as np
from numpy.typing import NDArray

from app.engine_wire import SampleRequest, receive, send
from app.errors import Busy, InvalidInput
from app.settings import Settings
from app.supervision import Child
from store.locations import socket_path

START_SECONDS = 60.0  # loading torch from a cold disk takes long
POLL_SECONDS = 0.1


class EngineFailed(Exception):
    """The engine could not answer; its log says why."""


class EngineClient:
    def __init__(self, settings: Settings) -> None:
        locations = settings.locations
        self._socket = socket_path(locations.data_dir, "engine")
        self._environment = locations.to_environment()
        self._child = Child("engine", self._start)
        self._watching: asyncio.Task[None] | None = None
        self._capacity = settings.max_waiting
        self._pending = 0
        self._seconds = 1.0  # a moving average of what a request takes

    def start(self) -> None:
        self._child.watch()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        if self._watching:
            self._watching.cancel()
        await asyncio.to_thread(self._child.stop, 5.0)
        self._socket.unlink(missing_ok=True)

    async def sample(self, request: SampleRequest) -> NDArray[np.uint8]:
        """uint8 (N, H, W, C). Asks twice where the engine is lost on the way.

        Raises InvalidInput, Busy where too many wait or the engine does not come back, and
        EngineFailed.
        """
        if self._pending >= self._capacity:
            raise Busy(
                f"{self._pending} requests for images are waiting already",
                self._pending * self._seconds,
            )
        self._pending += 1
        started = monotonic()
        try:
            for _ in range(2):
                with suppress(ConnectionError, asyncio.IncompleteReadError):
                    return await self._ask(request)
            raise Busy("the sampling engine is restarting", 5.0)
        finally:
            self._pending -= 1
            self._seconds += 0.1 * (monotonic() - started - self._seconds)

    async def state(self) -> str:
        """A line for /readyz; raises ConnectionError where the engine does not listen."""
        _, writer = await asyncio.open_unix_connection(self._socket)
        writer.close()
        return f"{self._pending} requests"

    async def _ask(self, request: SampleRequest) -> NDArray[np.uint8]:
        reader, writer = await self._connect()
        try:
            await send(writer, request.to_header())
            header, payload = await receive(reader)
        finally:
            writer.close()  # also when the caller has left: the engine then stops
        if "error" in header:
            raise InvalidInput.pointer("", header["error"])
        if "shape" not in header:
            raise EngineFailed
        return np.frombuffer(payload, np.uint8).reshape(header["shape"])

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
            [sys.executable, "-m", "app.engine_process", str(self._socket)],
            env={**os.environ, **self._environment},
            stdin=subprocess.PIPE,  # its end tells the engine that the API is gone
            start_new_session=True,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._child.watch()
