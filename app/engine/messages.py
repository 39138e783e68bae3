"""What the API and its processes say to each other: length-prefixed MessagePack, never pickle.

4 bytes   length of the header, big-endian
header    MessagePack map
8 bytes   length of the payload
payload   raw bytes

To the engine goes an `ImageOrder`, or {"stats": true}; back come the events of
models.engine.engine, one message each.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgpack
import numpy as np
from numpy.typing import NDArray

from models.engine.engine import Event, Made, NotMade, Seen, Started
from models.nets.precision import Precision
from models.sampling.plan import SampleRequest

MAX_HEADER = 2**22


@dataclass(frozen=True)
class ImageOrder:
    """`model`, `prefix` and `digest` say whose artefacts; `seconds` is how long there is time."""

    model: str
    prefix: str
    digest: str
    request: SampleRequest
    deterministic: bool = False
    precision: Precision = "float32"
    watched: bool = False
    seconds: float | None = None

    def to_header(self) -> dict[str, Any]:
        return {**vars(self), "request": self.request.to_dict()}

    @classmethod
    def from_header(cls, header: dict[str, Any]) -> "ImageOrder":
        return cls(**{**header, "request": SampleRequest.from_dict(header["request"])})


def event_message(event: Event) -> tuple[dict[str, Any], bytes]:
    match event:
        case Started():
            return {"event": "started"}, b""
        case Seen():
            header = {"event": "seen", "image": event.image, "row": event.row}
            return {
                **header,
                "shape": event.x_t.shape,
            }, event.x_t.tobytes() + event.x0_hat.tobytes()
        case Made():
            header = {"event": "made", "image": event.image, "last": event.last}
            return {**header, "shape": event.pixels.shape}, event.pixels.tobytes()
        case NotMade():
            return {**vars(event), "event": "not_made", "id": None}, b""


def event_of(header: dict[str, Any], payload: bytes) -> Event:
    match header.pop("event"):
        case "started":
            return Started(None)
        case "seen":
            x_t, x0_hat = _pixels(payload, [2, *header["shape"]])
            return Seen(None, header["image"], header["row"], x_t, x0_hat)
        case "made":
            pixels = _pixels(payload, header["shape"])
            return Made(None, header["image"], pixels, header["last"])
        case _:
            return NotMade(**header)


def packed(header: dict[str, Any], payload: bytes = b"") -> bytes:
    head: bytes = msgpack.packb(header)
    return b"".join((len(head).to_bytes(4, "big"), head, len(payload).to_bytes(8, "big"), payload))


def unpacked(message: bytes | bytearray) -> tuple[dict[str, Any], bytes] | None:
    """The header and payload of a message, None where its end is missing. Raises ConnectionError
    for what no message begins with."""
    head = 4 + _header_length(message[:4])
    start = head + 8
    if len(message) < start:
        return None
    end = start + int.from_bytes(message[head:start], "big")
    if len(message) < end:
        return None
    return msgpack.unpackb(message[4:head]), bytes(memoryview(message)[start:end])


def read(stream: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """As `receive`, of a stream that blocks. Raises EOFError where the other side has gone."""

    def exactly(size: int) -> bytes:
        found = stream.read(size)
        if len(found) < size:
            raise EOFError("the other side has gone")
        return found

    header: dict[str, Any] = msgpack.unpackb(exactly(_header_length(exactly(4))))
    return header, exactly(int.from_bytes(exactly(8), "big"))


async def send(writer: asyncio.StreamWriter, header: dict[str, Any], payload: bytes = b"") -> None:
    writer.write(packed(header, payload))
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """Raises IncompleteReadError where the other side has gone."""
    length = _header_length(await reader.readexactly(4))
    header: dict[str, Any] = msgpack.unpackb(await reader.readexactly(length))
    size = int.from_bytes(await reader.readexactly(8), "big")
    return header, await reader.readexactly(size)


def _header_length(field: bytes | bytearray) -> int:
    length = int.from_bytes(field, "big")
    if length > MAX_HEADER:
        raise ConnectionError(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    return length


def _pixels(payload: bytes, shape: list[int]) -> NDArray[np.uint8]:
    return np.frombuffer(payload, np.uint8).reshape(shape)
