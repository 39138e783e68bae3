"""The messages between the API and its processes: length-prefixed MessagePack, never pickle.

4 bytes   length of the header, big-endian
header    MessagePack map
8 bytes   length of the payload
payload   raw bytes

To the engine goes an order, {"order": ..., "traceparent": ...}, and back come events, one message
each (models.engine.orders); or a question, {"stats": true}, {"precisions": true} or {"check": ...},
and back comes its answer.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, BinaryIO

import msgpack

MAX_HEADER = 2**22

Header = Mapping[str, Any]
Message = tuple[Header, bytes]  # a header and a payload


def packed(header: Header, payload: bytes = b"") -> bytes:
    head: bytes = msgpack.packb(header)
    return b"".join((len(head).to_bytes(4, "big"), head, len(payload).to_bytes(8, "big"), payload))


def unpacked(message: bytes | bytearray) -> Message | None:
    """Return the header and payload of a message, None where its end is missing. Raises
    ConnectionError for an invalid header length."""
    head = 4 + _header_length(message[:4])
    start = head + 8
    if len(message) < start:
        return None
    end = start + int.from_bytes(message[head:start], "big")
    if len(message) < end:
        return None
    return msgpack.unpackb(message[4:head]), bytes(memoryview(message)[start:end])


def read(stream: BinaryIO) -> Message:
    """Read a message from a blocking stream. Raises EOFError where the other side has closed."""

    def exactly(size: int) -> bytes:
        found = stream.read(size)
        if len(found) < size:
            raise EOFError("the other side has gone")
        return found

    header: Header = msgpack.unpackb(exactly(_header_length(exactly(4))))
    return header, exactly(int.from_bytes(exactly(8), "big"))


async def send(writer: asyncio.StreamWriter, header: Header, payload: bytes = b"") -> None:
    writer.write(packed(header, payload))
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> Message:
    """Read a message. Raises IncompleteReadError where the other side has closed."""
    length = _header_length(await reader.readexactly(4))
    header: Header = msgpack.unpackb(await reader.readexactly(length))
    size = int.from_bytes(await reader.readexactly(8), "big")
    return header, await reader.readexactly(size)


def _header_length(field: bytes | bytearray) -> int:
    length = int.from_bytes(field, "big")
    if length > MAX_HEADER:
        raise ConnectionError(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    return length
