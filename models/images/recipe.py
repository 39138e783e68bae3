"""The recipe of an image in the metadata of its file: a text chunk of PNG, XMP in WebP and JPEG.

A recipe is JSON that app.sample.recipe defines; here it is carried. The same recipe gives the same
bytes.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping
from html import unescape
from typing import Any
from xml.sax.saxutils import quoteattr

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.images.formats import FormatName

Recipe = Mapping[str, Any]

KEYWORD = "diffusion-recipe"  # of the chunk
NAMESPACE = "urn:diffusion-service:recipe"
MAX_XMP = 65_000  # bytes; a JPEG holds no more, and a recipe for thousands of images is left out
MAX_TEXT = 2**20  # characters that are read
MAX_LINE = 200  # characters of what computed the images

_PACKET = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:diffusion="{namespace}" diffusion:recipe={recipe}/>'
    "</rdf:RDF></x:xmpmeta>"
)
# As an attribute, or as the element that other programs make of it. It takes time linear in the
# packet: no part of it runs over what another match could begin with.
_IN_PACKET = re.compile(rb""":recipe(?:="(\{[^"<]*)"|='(\{[^'<]*)'|>(\{[^<>]*)<)""")


def carrying(recipe: Recipe | None, file_format: FormatName) -> dict[str, Any]:
    """Return the options by which Pillow writes a recipe into a file; none without a recipe."""
    if recipe is None:
        return {}
    text = json.dumps(recipe, separators=(",", ":"))  # ASCII
    if file_format == "png":
        chunks = PngInfo()
        chunks.add_text(KEYWORD, text)
        return {"pnginfo": chunks}
    packet = _PACKET.format(namespace=NAMESPACE, recipe=quoteattr(text)).encode()
    return {"xmp": packet} if len(packet) <= MAX_XMP else {}


def carried(data: bytes) -> str | None:
    """Return the text of the recipe in an image file of anybody's, None where there is none, or the
    file is not a PNG, WebP or JPEG. Its pixels are not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about large images and odd metadata
            with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG")) as image:
                found = image.info.get(KEYWORD) or _of_packet(image.info.get("xmp"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    return str(found) if found else None


def _of_packet(packet: object) -> str | None:
    """Return the text of the property in a packet. It is looked for and not parsed: packets of
    anybody's may hold entities that grow without bounds."""
    if not isinstance(packet, bytes) or not (match := _IN_PACKET.search(packet[:MAX_TEXT])):
        return None
    text = next(group for group in match.groups() if group is not None)
    return unescape(text.decode("utf-8", "replace"))


def of_image(recipe: Recipe, image: int) -> Recipe:
    """Return the recipe of one image from that of all: its file is a PNG, and the class its own."""
    request = {**recipe["request"], "trajectory": False}
    if isinstance(labels := request.get("class_label"), list):
        request["class_label"] = labels[image]
    return {**recipe, "image": image, "media_type": "image/png", "request": request}


def as_made(recipe: Recipe, precision: str, computed_by: str, exact: bool) -> Recipe:
    """Return the recipe with what is known once the first image is begun."""
    request = {**recipe["request"], "precision": precision}
    computed_by = re.sub("[^ -~]", "?", computed_by)[:MAX_LINE]
    return {**recipe, "request": request, "computed_by": computed_by, "exact": exact}
