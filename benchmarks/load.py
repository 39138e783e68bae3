"""Load for a server on the same machine, light enough to share the cores it measures.

In the closed loop, clients with keep-alive connections wait for their answers. In the open loop,
requests are sent at given times, each on a new connection.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import SplitResult, urlsplit

import httptools
import uvloop

# Open loop ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """A request and its due time, in seconds from the start."""

    at: float
    body: bytes


@dataclass(frozen=True)
class Hit:
    """An answer: its status (0 for a broken connection), its body, and its latency, which is the
    seconds from the due time to the last byte."""

    status: int
    body: bytes
    seconds: float


def replay(url: str, shots: Sequence[Shot], content_type: str, more: str = "") -> list[Hit]:
    """POST each shot when it is due, without waiting for earlier answers; return answers in order.
    `more` are lines of the head.

    Latency counts from the due time, so that a late sender hides nothing.
    """
    return uvloop.run(_replay(url, shots, content_type, more))


async def _replay(url: str, shots: Sequence[Shot], content_type: str, more: str) -> list[Hit]:
    start = time.perf_counter() + 0.05
    async with asyncio.TaskGroup() as group:
        hits = [group.create_task(_shoot(url, start, shot, content_type, more)) for shot in shots]
    return [hit.result() for hit in hits]


async def _shoot(url: str, start: float, shot: Shot, content_type: str, more: str) -> Hit:
    due = start + shot.at
    await asyncio.sleep(due - time.perf_counter())
    address = urlsplit(url)
    more = f"Connection: close\r\n{more}"
    request = _head(address, content_type, len(shot.body), more) + shot.body
    try:
        _, shooter = await asyncio.get_running_loop().create_connection(
            lambda: _Shooter(request), str(address.hostname), int(address.port or 80)
        )
        status, body = await shooter.answer
    except ConnectionError:
        status, body = 0, b""
    return Hit(status, body, time.perf_counter() - due)


class _Shooter(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.answer: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._request = request
        self._body = bytearray()
        self._parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, piece: bytes) -> None:
        self._body += piece

    def on_message_complete(self) -> None:
        self.answer.set_result((self._parser.get_status_code(), bytes(self._body)))
        self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(error or ConnectionResetError("closed before the answer"))


@dataclass(frozen=True)
class Wave:
    """What each of `clients` POSTs again as soon as it is answered."""

    url: str
    body: bytes
    content_type: str
    clients: int


def flood(waves: Sequence[Wave], more: str = "") -> None:
    """POST all waves, each request on a new connection, until the process ends, whatever the
    answers are."""
    uvloop.run(_flood(waves, more))


async def _flood(waves: Sequence[Wave], more: str) -> None:
    async def client(wave: Wave) -> None:
        while True:
            shot = Shot(0.0, wave.body)
            await _shoot(wave.url, time.perf_counter(), shot, wave.content_type, more)

    await asyncio.gather(*(client(wave) for wave in waves for _ in range(wave.clients)))


# Closed loop --------------------------------------------------------------------------------------


def requests_per_second(
    url: str, body: bytes, content_type: str, clients: int, seconds: float
) -> float:
    """Measure the rate of `clients` connections that each POST again as soon as they are answered.

    Raises RuntimeError at the first answer other than 200.
    """
    return uvloop.run(_measure(url, body, content_type, clients, seconds))


async def _measure(url: str, body: bytes, content_type: str, clients: int, seconds: float) -> float:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    end = time.perf_counter() + seconds
    request = _head(address, content_type, len(body)) + body
    started = time.perf_counter()
    connections = []
    for _ in range(clients):
        _, connection = await loop.create_connection(
            lambda: _Client(request, end), str(address.hostname), int(address.port or 80)
        )
        connections.append(connection)
    await asyncio.gather(*(connection.done for connection in connections))
    return sum(connection.answered for connection in connections) / (time.perf_counter() - started)


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, end: float) -> None:
        self.answered = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._end = end
        self._received = bytearray()
        self._expected = 0  # bytes of the current answer; 0 until its head is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._expected:
            head, blank, _ = self._received.partition(b"\r\n\r\n")
            if not blank:
                return
            if not head.startswith(b"HTTP/1.1 200"):
                self._finish(RuntimeError(bytes(self._received).decode(errors="replace")))
                return
            length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
            self._expected = len(head) + 4 + int(length)
        if len(self._received) < self._expected:
            return
        self.answered += 1
        self._received.clear()
        self._expected = 0
        if time.perf_counter() < self._end:
            self._transport.write(self._request)
        else:
            self._finish(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or RuntimeError("the server closed the connection"))

    def _finish(self, error: Exception | None) -> None:
        if self.done.done():
            return
        if error:
            self.done.set_exception(error)
        else:
            self.done.set_result(None)
        self._transport.close()


def _head(address: SplitResult, content_type: str, length: int, more: str = "") -> bytes:
    return (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: image/png\r\n{more}"
        f"Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    ).encode()
