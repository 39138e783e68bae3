"""A closed loop over keep-alive connections, light enough to share the cores it measures."""

import asyncio
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop


def requests_per_second(
    url: str, body: bytes, content_type: str, clients: int, seconds: float
) -> float:
    """Of `clients` connections that each send the next POST when the last is answered. Raises
    RuntimeError at the first answer that is not a 200."""
    return uvloop.run(_measure(url, body, content_type, clients, seconds))


async def _measure(url: str, body: bytes, content_type: str, clients: int, seconds: float) -> float:
    address = urlsplit(url)
    head = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\nAccept: image/png\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    end = time.perf_counter() + seconds
    request = head.encode() + body
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
        self._expected = 0  # bytes of the answer on its way; 0 until its head is read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
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
