"""Pictures in a terminal: by the protocol of kitty or iTerm2, or as blocks.

Blocks show two pixels per character in 24-bit colours. Other terminals show no pictures.
"""

import base64
import io
import os
from collections.abc import Mapping, Sequence
from typing import Literal

from PIL import Image
from rich.console import Console
from rich.text import Text

Protocol = Literal["kitty", "iterm", "blocks"]

GAP = 1  # pixels between images
SIDE = 64  # pixels; smaller images are enlarged to about this by kitty and iterm
KITTY_CHUNK = 4096


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """Return the protocol that the terminal supports, according to its environment variables."""
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "KITTY_WINDOW_ID" in environment or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if environment.get("COLORTERM") in ("truecolor", "24bit"):
        return "blocks"
    return None


def show_pictures(console: Console, files: Sequence[bytes]) -> None:
    """Show image files in rows of as many as fit; without a capable terminal, show nothing."""
    protocol = protocol_of(os.environ)
    if protocol is None or not console.is_terminal or not files:
        return
    images = [Image.open(io.BytesIO(file)).convert("RGB") for file in files]
    if protocol == "blocks":
        console.print(blocks(sheet(images, console.width)), end="")
        return
    scale = max(1, round(SIDE / max(images[0].size)))
    large = [
        image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
        for image in images
    ]
    buffer = io.BytesIO()
    sheet(large, 8 * console.width).save(buffer, "PNG")
    encode = kitty if protocol == "kitty" else iterm
    console.file.write(encode(buffer.getvalue()) + "\n")
    console.file.flush()


def sheet(images: Sequence[Image.Image], width: int) -> Image.Image:
    """Arrange images in rows of at most `width` pixels; a wider image is scaled down."""
    w, h = images[0].size
    if w > width:
        h, w = max(1, h * width // w), width
        images = [image.resize((w, h)) for image in images]
    columns = max(1, min(len(images), (width + GAP) // (w + GAP)))
    rows = -(-len(images) // columns)
    made = Image.new("RGB", (columns * (w + GAP) - GAP, rows * (h + GAP) - GAP))
    for i, image in enumerate(images):
        made.paste(image, (i % columns * (w + GAP), i // columns * (h + GAP)))
    return made


def blocks(image: Image.Image) -> Text:
    """Draw two pixels per character, as an upper half block.

    Its foreground is the upper pixel, its background the lower one.
    """
    text = Text()
    for y in range(0, image.height, 2):
        for x in range(image.width):
            upper = image.getpixel((x, y))
            lower = image.getpixel((x, y + 1)) if y + 1 < image.height else None
            text.append("▀", f"{_hex(upper)} on {_hex(lower)}" if lower else _hex(upper))
        text.append("\n")
    return text


def kitty(png: bytes) -> str:
    """Encode by https://sw.kovidgoyal.net/kitty/graphics-protocol.

    The data is sent in chunks; all but the last have m=1.
    """
    data = base64.b64encode(png).decode("ascii")
    parts = [data[i : i + KITTY_CHUNK] for i in range(0, len(data), KITTY_CHUNK)]
    control = ["a=T,f=100,"] + [""] * (len(parts) - 1)
    more = [1] * (len(parts) - 1) + [0]
    return "".join(
        f"\x1b_G{first}m={m};{part}\x1b\\"
        for first, m, part in zip(control, more, parts, strict=True)
    )


def iterm(png: bytes) -> str:
    """Encode by https://iterm2.com/documentation-images.html."""
    data = base64.b64encode(png).decode("ascii")
    return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\x07"


def _hex(pixel: object) -> str:
    assert isinstance(pixel, tuple)
    return "#{:02x}{:02x}{:02x}".format(*pixel)
