"""Reads a file for TensorBoard with nothing of what wrote it: TFRecords with their checksums, and
as much of protocol buffers as an Event of scalars and images needs."""

import struct
from collections import defaultdict
from collections.abc import Iterator
from typing import Any


def read_events(
    content: bytes,
) -> tuple[dict[str, list[tuple[int, float]]], dict[str, list[tuple[int, bytes]]]]:
    """Scalars and PNGs by tag: (step, value) in the file's order."""
    scalars: dict[str, list[tuple[int, float]]] = defaultdict(list)
    images: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    records = list(_records(content))
    assert _first(records[0], 3) == b"brain.Event:2"
    for record in records[1:]:
        step = _first(record, 2, 0)
        for value in _all(_first(record, 5), 1):
            tag = _first(value, 1).decode()
            if (image := _first(value, 4)) is not None:
                images[tag].append((step, _first(image, 4)))
            else:
                scalars[tag].append((step, struct.unpack("<f", _first(value, 2))[0]))
    return scalars, images


def _records(content: bytes) -> Iterator[bytes]:
    place = 0
    while place < len(content):
        (size,) = struct.unpack_from("<Q", content, place)
        data = content[place + 12 : place + 12 + size]
        assert struct.unpack_from("<I", content, place + 8)[0] == _masked(content[place:][:8])
        assert struct.unpack_from("<I", content, place + 12 + size)[0] == _masked(data)
        yield data
        place += 16 + size


def _masked(data: bytes) -> int:
    crc = _crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _crc32c(data: bytes) -> int:
    """Castagnoli's polynomial, reflected, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _all(message: bytes, field: int) -> list[Any]:
    return [value for number, value in _fields(message) if number == field]


def _first(message: bytes, field: int, default: Any = None) -> Any:
    return next(iter(_all(message, field)), default)


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        if key & 7 == 0:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, place = _varint(message, place)
        else:
            size = {1: 8, 5: 4}[key & 7]
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not byte & 0x80:
            return value, place
