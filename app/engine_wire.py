"""What the API and the engine say to each other: length-prefixed MessagePack, never pickle.

4 bytes   length of the header, big-endian
header    MessagePack map
8 bytes   length of the payload
payload   raw bytes
"""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import msgpack

MAX_HEADER = 2**20


@dataclass(frozen=True)
class SampleRequest:
    """`prefix` and `digest` say which model's artefacts; the rest as in models.generate."""

    prefix: str
    digest: str
    num_images: int
    seed: int
    sampler: str
    num_inference_steps: int
    labels: list[int] | None
    guidance_scale: float
    eta: float

    def to_header(self) -> dict[str, Any]:
        return asdict(self)


async def send(writer: asyncio.StreamWriter, header: dict[str, Any], payload: bytes = b"") -> None:
    packed = msgpack.packb(header)
    writer.write(len(packed).to_bytes(4, "big") + packed + len(payload).to_bytes(8, "big"))
    writer.write(payload)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> tuple[dict[str, Any], bytes]:
    """Raises IncompleteReadError where the other side has gone."""
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > MAX_HEADER:
        raise ConnectionError(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    header: dict[str, Any] = msgpack.unpackb(await reader.readexactly(length))
    size = int.from_bytes(await reader.readexactly(8), "big")
    return header, await reader.readexactly(size)
