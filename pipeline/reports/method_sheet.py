"""One photograph, several methods: a picture with a row for each class and a column for each method."""

import contextlib
import functools
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from camboxes.transforms.boxes.from_map import Drawn
    from camboxes.transforms.boxes.stored_maps import StoredMap

# In pixels, for a screen of twice the usual density.
TILE = (360, 540)  # at most, width and height
MARGIN, GAP = 64, 28
HEADING, _CAPTION, _REASON, _SCALE = 92, 50, 88, 110  # heights above a row's tiles, below them, and below the last row
_LARGE, _SMALL = 30, 22  # text

_TEXT, _MUTED = "#1d1d1b", "#73736e"
LINE, _CASING = "#7df9ff", "#10202a"  # of boxes: a colour that the palette lacks, and what sets it off anywhere
_STRONGEST = 0.8  # share of the palette in an overlay where the map is highest

# Tried in turn where Pillow's own font, which has little but ASCII, lacks a character of a name.
_OTHER_FONTS = ("DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "Arial Unicode.ttf", "arial.ttf", "msyh.ttc")


class Column(NamedTuple):
    """A method, and how long one pass of it took."""

    method: str
    milliseconds: float


class Row(NamedTuple):
    """A class of the network, how probable it is, and for each column its map and what was drawn from it."""

    class_index: int
    name: str
    probability: float
    maps: "Sequence[tuple[StoredMap, Drawn]]"


def figure(
    photograph: "np.ndarray", columns: Sequence[Column], rows: Sequence[Row], notes: Sequence[str]
) -> "Image.Image":
    """Lays the photograph, uint8 [height, width, 3], RGB, and its overlays out.

    Below stand the notes, a line each, and a scale of the palette.
    """
    from PIL import Image, ImageDraw

    height, width, _ = photograph.shape
    shrink = min(TILE[0] / width, TILE[1] / height)
    tile = Image.fromarray(photograph).resize(
        (max(1, round(width * shrink)), max(1, round(height * shrink))), Image.Resampling.LANCZOS
    )
    lefts = [MARGIN + number * (TILE[0] + GAP) for number in range(len(columns) + 1)]
    heights = [HEADING + tile.height + (_REASON if any(d.reason for _, d in row.maps) else _CAPTION) for row in rows]
    page = Image.new("RGB", (lefts[-1] + TILE[0] + MARGIN, MARGIN // 2 + sum(heights) + _SCALE + MARGIN), "white")
    draw = ImageDraw.Draw(page)
    for left, column in zip(lefts[1:], columns, strict=True):
        _heading(draw, (left, MARGIN // 2), column.method, f"{column.milliseconds:.0f} ms")
    top = MARGIN // 2
    for row, row_height in zip(rows, heights, strict=True):
        _heading(draw, (lefts[0], top), row.name, f"probability {row.probability:.2f}", f"class {row.class_index}")
        page.paste(tile, (lefts[0], top + HEADING))
        for left, (stored, drawn) in zip(lefts[1:], row.maps, strict=True):
            page.paste(overlay(tile, stored, drawn, shrink), (left, top + HEADING))
            caption = f"box from {drawn.level:.2f}"
            if drawn.reason:
                caption = textwrap.fill(f"no box: {drawn.reason.partition(': ')[2]}", 32)
            draw.text((left, top + HEADING + tile.height + 10), caption, _MUTED, _fonts(_SMALL)[0])
        top += row_height
    _scale(page, draw, (lefts[-1], top + 44))
    for number, note in enumerate(notes):
        _text(draw, (lefts[0], top + 44 + 34 * number), note, width=max(TILE[0], lefts[-1] - lefts[0] - GAP))
    return page


def overlay(tile: "Image.Image", stored: "StoredMap", drawn: "Drawn", shrink: float) -> "Image.Image":
    """The photograph under a map, which colours it as strongly as it is high, and the box; bare where there is none.

    `shrink` is the tile's size over that of the photograph that the box was drawn on.
    """
    from PIL import Image, ImageDraw

    from camboxes.pipeline.reports.pictures import HEAT_COLOURS

    if not drawn.boxes:
        return tile
    heat = Image.fromarray(stored.cells).resize(tile.size, Image.Resampling.BILINEAR)
    colours = heat.copy()
    colours.putpalette(HEAT_COLOURS.tobytes())
    strength = heat.point([round(_STRONGEST * value) for value in range(256)])
    picture = Image.composite(colours.convert("RGB"), tile, strength)
    draw = ImageDraw.Draw(picture)
    for box in drawn.boxes:
        x, y, width, height = (side * shrink for side in box.bbox)
        left, top, right, bottom = round(x), round(y), round(x + width) - 1, round(y + height) - 1
        right, bottom = max(right, left + 8), max(bottom, top + 8)  # such that a speck can be seen
        draw.rectangle((left, top, right, bottom), outline=_CASING, width=5)
        draw.rectangle((left + 1, top + 1, right - 1, bottom - 1), outline=LINE, width=3)
    return picture


def _scale(page: "Image.Image", draw: "ImageDraw.ImageDraw", corner: tuple[int, int]) -> None:
    """A thin bar of the palette, with its ends named below."""
    from PIL import Image

    from camboxes.pipeline.reports.pictures import HEAT_COLOURS

    (left, top), width, height = corner, TILE[0], 10
    bar = Image.linear_gradient("L").rotate(90).resize((width, height))
    bar.putpalette(HEAT_COLOURS.tobytes())
    page.paste(bar.convert("RGB"), corner)
    small = _fonts(_SMALL)[0]
    draw.text((left, top + height + 14), "0", _MUTED, small, anchor="lt")
    draw.text((left + width, top + height + 14), "1", _MUTED, small, anchor="rt")


def _heading(draw: "ImageDraw.ImageDraw", corner: tuple[int, int], name: str, more: str, instead: str = "") -> None:
    left, top = corner
    _text(draw, (left, top + 44), name, width=TILE[0], size=_LARGE, colour=_TEXT, instead=instead)
    _text(draw, (left, top + 74), more, width=TILE[0])


def _text(
    draw: "ImageDraw.ImageDraw",
    start: tuple[int, int],
    text: str,
    *,
    width: int,
    size: int = _SMALL,
    colour: str = _MUTED,
    instead: str = "",
) -> None:
    """Writes a line, shortened to a width in pixels, from the left end of its baseline.

    A text that no font at hand has all characters of is written as `instead`, rather than in empty squares.
    """
    fonts = _fonts(size)
    text = on_one_line(text, width)
    font = next((font for font in fonts if _has(font, text)), None)
    if font is None:
        text, font = instead, fonts[0]
    if font.getlength(text) > width:
        while font.getlength(text + "…") > width:
            text = text[:-1]
        text = text.rstrip() + "…"
    draw.text(start, text, colour, font, anchor="ls")


@functools.cache
def _fonts(size: int) -> "list[ImageFont.FreeTypeFont]":
    """The fonts at hand, Pillow's own first."""
    from PIL import ImageFont

    own = ImageFont.load_default(size)
    assert isinstance(own, ImageFont.FreeTypeFont), "Pillow's wheels come with FreeType"
    found = [own]
    for name in _OTHER_FONTS:
        with contextlib.suppress(OSError):
            found.append(ImageFont.truetype(name, size))
    return found


def _has(font: "ImageFont.FreeTypeFont", text: str) -> bool:
    """Whether each character has a shape of its own, not the one that stands for those which a font lacks."""
    lacking = bytes(font.getmask("\uffff"))  # no character, in any font
    return all(bytes(font.getmask(character)) != lacking for character in text)
