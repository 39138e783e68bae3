"""A few processes that answer one message at a time, shared by all requests.

Threads do not do: on a small image the interpreter lock changes hands a hundred times a request,
and two threads get less done than one. And an image that brings its decoder down takes one of these
processes with it, not the service. One more of them than cores keeps the cores busy: one waits for
its next message while the others work.
"""

import asyncio
import socket
import subprocess
import sys
from time import perf_counter
from typing import Any, cast

from app.engine_wire import packed, unpacked
from app.errors import Busy
from app.logs import log

BUFFER_BYTES = 2**20  # of the socket, or what the system allows

Message = tuple[dict[str, Any], bytes]  # a header and a payload


class Process:
    """`python -m module`, which reads messages on the socket that is its standard input and writes
    one answer to each, after a greeting that has none. It ends when the socket closes."""

    def __init__(self, module: str, greeting: dict[str, Any]) -> None:
        self._module = module
        self._greeting = greeting
        self._popen: subprocess.Popen[bytes] | None = None
        self._channel: _Channel

    async def ask(self, message: Message) -> Message:
        """Raises OSError where the process is lost. Not to be asked again before it answered."""
        await self.start()
        return await self._channel.ask(message)

    async def start(self) -> None:
        """Does not wait until it is ready; `ask` calls it where nobody has."""
        if self._popen is not None:
            return
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", self._module], stdin=theirs.fileno(), start_new_session=True
            )
        loop = asyncio.get_running_loop()
        _, self._channel = await loop.create_connection(_Channel, sock=ours)
        self._channel.tell((self._greeting, b""))

    async def end(self) -> None:
        if self._popen is None:
            return
        self._popen.kill()
        self._popen.wait()
        self._channel.close()


class _Channel(asyncio.Protocol):
    """Our end of the socket. A stream's reader and writer would cost a small request as much as all
    else that is done for it here."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[Message] | None = None

    def tell(self, message: Message) -> None:
        self._transport.write(packed(*message))

    def ask(self, message: Message) -> "asyncio.Future[Message]":
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            self.connection_lost(None)
        else:
            self.tell(message)
        return self._answer

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._received += data
        message = unpacked(self._received)
        if message is None:
            return
        self._received.clear()
        if self._answer and not self._answer.done():
            self._answer.set_result(message)

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the process has gone"))


class ProcessPool:
    """`ask` waits for a process that is free. Raises Busy, with how long the backlog takes, where
    `max_waiting` are waiting; and where the process is lost over the message or takes longer than
    `limit_seconds`."""

    def __init__(
        self,
        module: str,
        greeting: dict[str, Any],
        size: int,
        max_waiting: int,
        limit_seconds: float,
    ) -> None:
        self._module = module
        self._greeting = greeting
        self._size = size
        self._capacity = size + max_waiting
        self._limit_seconds = limit_seconds
        self._pending = 0
        self._seconds = 0.1  # a moving average of what one message takes
        self._processes = {Process(module, greeting) for _ in range(size)}
        self._free: asyncio.LifoQueue[Process] = asyncio.LifoQueue()  # the last used is warmest
        for process in self._processes:
            self._free.put_nowait(process)

    async def start(self) -> None:
        """Without it each process starts when it is first needed."""
        for process in self._processes:
            await process.start()

    async def ask(self, message: Message) -> Message:
        if self._pending >= self._capacity:
            backlog = self._pending * self._seconds / self._size
            raise Busy(f"{self._pending} requests of this kind are waiting already", backlog)
        self._pending += 1
        try:
            return await self._ask_a_free_one(message)
        finally:
            self._pending -= 1

    async def close(self) -> None:
        for process in self._processes:
            await process.end()

    async def _ask_a_free_one(self, message: Message) -> Message:
        process = await self._free.get()
        started = perf_counter()
        answered = False
        try:
            async with asyncio.timeout(self._limit_seconds):
                answer = await process.ask(message)
            answered = True
        except OSError as error:  # a time-out is one
            log.error("process lost", process=self._module, reason=type(error).__name__)
            raise Busy("the process at work on this was lost, or took too long", 1.0) from error
        finally:
            # Of one that did not answer, the next to ask would read what it says at last.
            self._free.put_nowait(process if answered else await self._replacement(process))
        self._seconds += 0.1 * (perf_counter() - started - self._seconds)
        return answer

    async def _replacement(self, process: Process) -> Process:
        replacement = Process(self._module, self._greeting)
        self._processes.remove(process)
        self._processes.add(replacement)
        await process.end()
        return replacement
