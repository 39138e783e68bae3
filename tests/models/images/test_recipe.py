"""Recipes in the metadata of files: carried whole, and read from files of anybody's."""

import io
import json
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.images.files import encode_animation, encode_image
from models.images.recipe import KEYWORD, MAX_XMP, as_made, carried, of_image

PICTURE = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
RECIPE = {"format": 1, "text": "a 'b' \"c\" <d> & é \\ ]]> {x}", "request": {"seed": 2**63}}


@pytest.mark.parametrize("name", ["png", "webp", "jpeg"])
def test_each_format_carries_a_recipe_whole_and_has_the_same_pixels(name):
    file = encode_image(PICTURE, name, RECIPE)
    assert json.loads(carried(file)) == RECIPE
    assert file == encode_image(PICTURE, name, RECIPE)
    bare = encode_image(PICTURE, name)
    assert carried(bare) is None
    opened = [np.asarray(Image.open(io.BytesIO(data))) for data in (file, bare)]
    assert np.array_equal(*opened)


@pytest.mark.parametrize("name", ["png", "webp"])
def test_animations_carry_it_too(name):
    file = encode_animation([PICTURE, PICTURE[::-1]], name, RECIPE)
    assert json.loads(carried(file)) == RECIPE
    assert Image.open(io.BytesIO(file)).n_frames == 2


def test_what_a_jpeg_cannot_hold_is_left_out():
    long = {"labels": list(range(MAX_XMP // 4))}
    assert carried(encode_image(PICTURE, "jpeg", long)) is None
    assert json.loads(carried(encode_image(PICTURE, "png", long))) == long


def test_xmp_that_another_program_has_written_anew_is_read():
    """As an element, or in other quotes."""
    text = json.dumps(RECIPE)
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    quoted = escaped.replace('"', "&quot;")
    for property_ in (f"<d:recipe>{escaped}</d:recipe>", f'<rdf:Description d:recipe="{quoted}"/>'):
        packet = f"<x:xmpmeta><rdf:RDF>{property_}</rdf:RDF></x:xmpmeta>".encode()
        buffer = io.BytesIO()
        Image.fromarray(PICTURE).save(buffer, "WEBP", xmp=packet)
        assert json.loads(carried(buffer.getvalue())) == RECIPE


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def hostile() -> dict[str, bytes]:
    png = encode_image(PICTURE, "png")
    after_header = 8 + 25
    bomb = chunk(b"zTXt", KEYWORD.encode() + b"\0\0" + zlib.compress(b"{" * 2**28))
    text = PngInfo()
    text.add_text("other", "{}")
    other = io.BytesIO()
    Image.fromarray(PICTURE).save(other, "PNG", pnginfo=text)
    entities = b'<!DOCTYPE a [<!ENTITY b "bbbb">]><a>&b;</a>'
    xmp = io.BytesIO()
    Image.fromarray(PICTURE).save(xmp, "JPEG", xmp=entities)
    slow = io.BytesIO()  # for an expression that goes back
    Image.fromarray(PICTURE).save(slow, "WEBP", xmp=b"a" * 2**18 + b":recipe>{" * 2**16)
    gif = io.BytesIO()
    Image.fromarray(PICTURE[:, :, 0]).save(gif, "GIF")
    return {
        "nothing": b"",
        "no image": b"x" * 100,
        "half": png[:40],
        "bomb": png[:after_header] + bomb + png[after_header:],
        "other text": other.getvalue(),
        "entities": xmp.getvalue(),
        "slow": slow.getvalue(),
        "gif": gif.getvalue(),
    }


@pytest.mark.parametrize("name", hostile())
def test_files_without_one_give_none_at_once_and_unpack_nothing_large(name):
    file = hostile()[name]
    started = time.process_time()
    assert carried(file) is None
    assert time.process_time() - started < 1.0


def test_the_recipe_of_one_image_has_its_class_alone():
    request = {"num_images": 3, "class_label": [2, 0, 1], "trajectory": True, "precision": "auto"}
    whole = {"format": 1, "media_type": "image/webp", "request": request}
    one = of_image(as_made(whole, "float32", "a library", True), 1)
    assert one["request"] == {**request, "class_label": 0, "trajectory": False} | {
        "precision": "float32"
    }
    assert (one["image"], one["media_type"]) == (1, "image/png")
    assert (one["computed_by"], one["exact"]) == ("a library", True)
    odd = as_made(whole, "float32", "a\nlibrary®" + "x" * 300, True)["computed_by"]
    assert (odd[:10], len(odd)) == ("a?library?", 200)
    assert whole["request"] is request
