"""A few processes that answer one message at a time, shared by all requests.

Threads would be slower: on a small image the interpreter lock changes hands a hundred times a
request, and two threads get less done than one. And an image that crashes its decoder takes one of
these processes with it, not the service. One more process than cores keeps the cores busy: one
waits for its next message while the others work.
"""

import asyncio
import os
import signal
import socket
from time import perf_counter
from typing import cast

from app.http.errors import Busy
from app.logs import log
from app.processes.fork_server import ForkServer
from app.processes.turns import Turns
from app.processes.wire import Header, Message, packed, unpacked

BUFFER_BYTES = 2**20  # of the socket, or what the system allows


class Process:
    """A process that reads messages on a socket and writes one answer to each. The first is a
    greeting, which it answers with its process id. It ends when the socket closes."""

    def __init__(self, fork_server: ForkServer, greeting: Header) -> None:
        self._fork_server = fork_server
        self._greeting = greeting
        self._channel: _Channel | None = None
        self._greeted: asyncio.Future[Message]

    async def call(self, message: Message) -> Message:
        """Return the answer to a message; one message at a time. Raises OSError where the process
        is lost."""
        channel = await self.start()
        await asyncio.shield(self._greeted)
        return await channel.call(message)

    async def start(self) -> "_Channel":
        """Start the process without waiting until it is ready; `call` does so where it is not
        started."""
        if self._channel is not None:
            return self._channel
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        loop = asyncio.get_running_loop()
        _, self._channel = await loop.create_connection(_Channel, sock=ours)
        self._greeted = self._channel.call((self._greeting, b""))
        with theirs:
            self._fork_server.fork(theirs)
        return self._channel

    def end(self) -> None:
        """Kill the process at once, whatever it is doing."""
        if self._channel is None:
            return
        if not self._greeted.done():
            self._greeted.cancel()
        elif not self._channel.closed:
            header, _ = self._greeted.result()
            os.kill(header["pid"], signal.SIGKILL)
        self._channel.close()


class _Channel(asyncio.Protocol):
    """Our end of the socket. A stream's reader and writer would cost a small request as much as
    everything else here."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[Message] | None = None

    def call(self, message: Message) -> "asyncio.Future[Message]":
        self._answer = asyncio.get_running_loop().create_future()
        if self.closed:
            self.connection_lost(None)
        else:
            self._transport.write(packed(*message))
        return self._answer

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

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
    """Processes of one fork server. `call` waits for a free one, in turn with other callers; it
    raises Busy where `max_waiting` are waiting, and where the process is lost over the message or
    takes longer than `limit_seconds`."""

    def __init__(
        self,
        fork_server: ForkServer,
        greeting: Header,
        size: int,
        max_waiting: int,
        limit_seconds: float,
    ) -> None:
        self._fork_server = fork_server
        self._greeting = greeting
        self._turns = Turns(size, max_waiting)
        self._limit_seconds = limit_seconds
        self._seconds = 0.1  # of a message, a moving average
        self._processes = {Process(fork_server, greeting) for _ in range(size)}
        self._free = list(self._processes)  # the last used is warmest, and the last

    async def start(self) -> None:
        """Start all processes now; otherwise each starts when it is first needed."""
        for process in self._processes:
            await process.start()

    async def call(self, message: Message) -> Message:
        why = "requests of this kind are waiting already"
        async with self._turns.turn(why, self._seconds):
            return await self._call_a_free_one(message)

    def close(self) -> None:
        for process in self._processes:
            process.end()

    async def _call_a_free_one(self, message: Message) -> Message:
        process = self._free.pop()
        started = perf_counter()
        answered = False
        try:
            async with asyncio.timeout(self._limit_seconds):
                answer = await process.call(message)
            answered = True
        except OSError as error:  # a time-out is one
            log.error("process lost", process=self._fork_server.module, reason=type(error).__name__)
            raise Busy("the process at work on this was lost, or took too long", 1.0) from error
        finally:
            # The next caller would read the late answer of a process that did not answer in time.
            self._free.append(process if answered else self._replacement(process))
        self._seconds += 0.1 * (perf_counter() - started - self._seconds)
        return answer

    def _replacement(self, process: Process) -> Process:
        replacement = Process(self._fork_server, self._greeting)
        self._processes.remove(process)
        self._processes.add(replacement)
        process.end()
        return replacement
