"""A table of images with its axes written on it, as one picture.

Images are enlarged by whole factors, so that each pixel stays a square, and centred in cells of one
size. Knows nothing of models; numbers and names come as text.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from models.arrays import UInt8

Lines = list[str]

CELL_SIDE = 112  # pixels that a small image is enlarged to, about
MIN_CELL_WIDTH = 96  # so that labels have room
MARGIN, GAP = 16, 6
PAPER, INK, PALE = (255, 255, 255), (27, 30, 40), (86, 93, 113)
MIN_TEXT, MAX_TEXT = 13, 24  # pixels
COLUMN_LINES, ROW_LINES, CAPTION_LINES = 3, 4, 6
_WORDS = re.compile(r"[^ _/-]*[ _/-]?")


@dataclass(frozen=True)
class LabelledGrid:
    """The layout of a table: `columns` and `rows` have the labels, `x` and `y` the names of both
    axes, and `caption` stands below. Without `y` there is one row. `image_sizes` has the (height,
    width) of each image that occurs."""

    x: str
    columns: Sequence[str]
    image_sizes: Sequence[tuple[int, int]]
    y: str = ""
    rows: Sequence[str] = ("",)
    caption: str = ""
    _fonts: dict[int, ImageFont.FreeTypeFont] = field(default_factory=dict, compare=False)

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) of the picture."""
        height = self._top + len(self.rows) * (self.cell_size[0] + GAP) - GAP + MARGIN
        if self._caption:
            height += len(self._caption) * self._line + 2 * GAP
        return height, self._width

    @cached_property
    def cell_size(self) -> tuple[int, int]:
        """The (height, width) of a cell."""
        factors = [self._factor(size) for size in self.image_sizes]
        sides = [(n * h, n * w) for n, (h, w) in zip(factors, self.image_sizes, strict=True)]
        heights, widths = zip(*sides, strict=True)
        return max(heights), max(*widths, MIN_CELL_WIDTH)

    def origin(self, row: int, column: int) -> tuple[int, int]:
        """Return the top and the left edge of a cell."""
        height, width = self.cell_size
        return self._top + row * (height + GAP), self._left + column * (width + GAP)

    def draw(self, images: Mapping[tuple[int, int], UInt8]) -> UInt8:
        """Return the picture (H, W, 3) of images (h, w, C), given by row and column."""
        height, width = self.size
        sheet = Image.new("RGB", (width, height), PAPER)
        self._write(ImageDraw.Draw(sheet))
        for (row, column), image in images.items():
            sheet.paste(*self._placed(image, row, column))
        return np.asarray(sheet)

    def _placed(self, image: UInt8, row: int, column: int) -> tuple[Image.Image, tuple[int, int]]:
        factor = self._factor(image.shape[:2])
        large = image.repeat(factor, axis=0).repeat(factor, axis=1)
        picture = Image.fromarray(large[:, :, 0] if large.shape[2] == 1 else large).convert("RGB")
        top, left = self.origin(row, column)
        height, width = self.cell_size
        return picture, (left + (width - picture.width) // 2, top + (height - picture.height) // 2)

    def _factor(self, size: Sequence[int]) -> int:
        """Return the whole factor by which an image of this (height, width) is enlarged."""
        side = max(CELL_SIDE, *(max(each) for each in self.image_sizes))
        return max(1, round(side / max(size)))

    def _write(self, pen: ImageDraw.ImageDraw) -> None:
        height, width = self.cell_size
        pen.text((self._left, MARGIN), f"{self.x} →", PALE, self._font)
        bottom = self._top - GAP
        for column, lines in enumerate(self._columns):
            middle = self.origin(0, column)[1] + width // 2
            self._stack(pen, lines, (middle, bottom - len(lines) * self._line), "ma")
        if self.y:
            corner = (self._left - 2 * GAP, bottom - self._line)
            pen.text(corner, f"{self.y} ↓", PALE, self._font, "ra")
        for row, lines in enumerate(self._rows):
            top = self.origin(row, 0)[0] + (height - len(lines) * self._line) // 2
            self._stack(pen, lines, (self._left - 2 * GAP, top), "ra")
        foot = self.size[0] - MARGIN - len(self._caption) * self._line
        self._stack(pen, self._caption, (MARGIN, foot), "la", PALE)

    def _stack(
        self,
        pen: ImageDraw.ImageDraw,
        lines: Lines,
        at: tuple[int, int],
        anchor: str,
        colour: tuple[int, int, int] = INK,
    ) -> None:
        for i, line in enumerate(lines):
            pen.text((at[0], at[1] + i * self._line), line, colour, self._font, anchor)

    @property
    def _font(self) -> ImageFont.FreeTypeFont:
        """A font of this layout alone: threads must not share one."""
        size = min(MAX_TEXT, max(MIN_TEXT, self.cell_size[1] // 12))
        if size not in self._fonts:
            self._fonts[size] = ImageFont.truetype(_font_file(), size)
        return self._fonts[size]

    @property
    def _line(self) -> int:
        ascent, descent = self._font.getmetrics()
        return ascent + descent

    @cached_property
    def _columns(self) -> list[Lines]:
        return [self._wrapped(label, self.cell_size[1], COLUMN_LINES) for label in self.columns]

    @cached_property
    def _rows(self) -> list[Lines]:
        width = 2 * self.cell_size[1]
        room = max(1, min(ROW_LINES, self.cell_size[0] // self._line))
        return [self._wrapped(label, width, room) for label in self.rows if label]

    @cached_property
    def _caption(self) -> Lines:
        if not self.caption:
            return []
        return self._wrapped(self.caption, self._width - 2 * MARGIN, CAPTION_LINES)

    @cached_property
    def _left(self) -> int:
        """Where the first column begins."""
        if not self.y:
            return MARGIN
        texts = [f"{self.y} ↓", *(line for lines in self._rows for line in lines)]
        return MARGIN + max(int(self._font.getlength(text)) + 1 for text in texts) + 2 * GAP

    @cached_property
    def _top(self) -> int:
        """Where the first row begins: below the name of the axis and the labels of columns."""
        return MARGIN + (1 + max(map(len, self._columns))) * self._line + 2 * GAP

    @cached_property
    def _width(self) -> int:
        cells = len(self.columns) * (self.cell_size[1] + GAP) - GAP
        name = int(self._font.getlength(f"{self.x} →")) + 1
        return self._left + max(cells, name) + MARGIN

    def _wrapped(self, text: str, width: int, most: int) -> Lines:
        """Break a text into lines of this width, after words where it can be; "…" stands for lines
        beyond `most`."""
        lines: Lines = []
        rest = " ".join(text.split())
        while rest and len(lines) < most:
            head = self._fitting(rest, width)
            lines.append(head.rstrip())
            rest = rest[len(head) :].lstrip()
        if rest:
            last = lines[-1]
            while last and self._font.getlength(f"{last}…") > width:
                last = last[:-1]
            lines[-1] = f"{last}…"
        return lines

    def _fitting(self, text: str, width: int) -> str:
        """Return the beginning of a text that fits into a line, one character at least."""
        head = ""
        for word in _WORDS.findall(text):
            if self._font.getlength((head + word).rstrip()) > width:
                break
            head += word
        if head:
            return head
        length = 1
        while length < len(text) and self._font.getlength(text[: length + 1]) <= width:
            length += 1
        return text[:length]


def _font_file() -> Path:
    """Return the file of a font that has Latin, Greek, Cyrillic and arrows: Pillow's own has no
    accents. It comes with matplotlib, which is imported only where it is needed."""
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
