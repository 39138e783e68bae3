"""Single images of a part: the bytes of one file, its picture, and a thumbnail.

A member of a zip or of a plain tar is read where it lies, so that one image of a large archive, or
of one on another host, costs one short read. `unpack` lays the files of any other archive out in
the same way.
"""

import struct
import zipfile
import zlib
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from models.arrays import UInt8
from models.fields import Invalid
from models.images.files import encode_image, resize_image
from models.images.formats import Reading
from models.images.index import Index, sha256_of
from models.images.readers import ArchiveLimits, Place, read_entries
from models.images.reading import format_of, read_pictures

THUMBNAIL_SIDE = 64  # pixels, at most
Read = Callable[[int, int], bytes]  # from a start to an end, fewer at the end of the file

_LOCAL_HEADER = struct.Struct("<4s4xH16xHH")  # APPNOTE.TXT of the zip format, 4.3.7
_USUAL_FIELDS = 2**10  # bytes of a member's name and extra fields that are read with it
_DAMAGED = "the archive is truncated or damaged"
_MEDIA_TYPES = {  # by Pillow's name of the format
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "MPO": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
}
_OTHER = "application/octet-stream"
MEDIA_TYPES = tuple(dict.fromkeys((*_MEDIA_TYPES.values(), _OTHER)))  # of image files


def read_at(place: Place, read: Read, max_bytes: int) -> bytes:
    """Return the file at a place of an archive, of which `read` gives bytes.

    Raises Invalid if it is damaged or larger than `max_bytes`.
    """
    if not place.packed:
        return read(place.offset, place.offset + place.length)
    size = _LOCAL_HEADER.size + _USUAL_FIELDS + place.length
    content = read(place.offset, place.offset + size)
    try:
        magic, method, name, extra = _LOCAL_HEADER.unpack_from(content)
        begin = _LOCAL_HEADER.size + name + extra
        if begin + place.length > size:
            content = read(place.offset, place.offset + begin + place.length)
        packed = content[begin : begin + place.length]
        if magic != b"PK\3\4" or len(packed) < place.length:
            raise Invalid.because(_DAMAGED)
        if method == zipfile.ZIP_STORED:
            return packed
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max_bytes + 1)
    except (struct.error, zlib.error):
        raise Invalid.because(_DAMAGED) from None
    if len(data) > max_bytes:
        raise Invalid.because(f"the file is larger than {max_bytes} bytes")
    return data


def unpack(archive: Path, index: Index, target: Path, limits: ArchiveLimits) -> list[Place]:
    """Write the files of an index one after the other to `target`, and return their places."""
    wanted = list(zip(index.names, index.sha256, strict=True))
    found: dict[tuple[str, str], Place] = dict.fromkeys(wanted, Place(0, 0, False))
    with target.open("wb") as flat:
        for entry in read_entries(archive, limits, only=set(index.names)):
            key = (entry.name, sha256_of(entry.data or b""))
            if entry.data is not None and key in found:
                found[key] = Place(flat.tell(), len(entry.data), False)
                flat.write(entry.data)
    return [found[key] for key in wanted]


def decode_frame(data: bytes, frame: int, reading: Reading, max_pixels: int) -> UInt8:
    """Return one picture of a file, (H, W, C), as its dataset is read. Raises Invalid."""
    found = next(islice(read_pictures(data, max_pixels, reading.frames), frame, None), None)
    if found is None:
        raise Invalid.because(f"the image has no frame {frame}")
    return found.to_uint8(reading)


def thumbnail(image: UInt8, side: int = THUMBNAIL_SIDE) -> bytes:
    """Return a PNG of at most `side` pixels a side; small images have their pixels enlarged by a
    whole number."""
    height, width = image.shape[:2]
    largest = max(height, width)
    if largest > side:
        size = [max(1, round(each * side / largest)) for each in (height, width)]
        return encode_image(resize_image(image, (size[0], size[1]), "stretch"), "png")
    scale = side // largest
    return encode_image(image.repeat(scale, axis=0).repeat(scale, axis=1), "png")


def media_type_of(data: bytes) -> str:
    """Return the media type of an image file by its content. Raises Invalid."""
    return _MEDIA_TYPES.get(format_of(data), _OTHER)
