"""Draws the heat maps of several methods over one photograph, side by side in one figure.

A row for each class: the photograph, then what each method sees of the class in it. The maps are those that camboxes
label would store (but for the last bits, which depend on its batches), and the outlined boxes those that it would draw
from them, of the largest component. Milliseconds are one pass of that method alone, for all rows, on one core.
"""

import argparse
import contextlib
import dataclasses
import functools
import io
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from camboxes.models.networks.class_names import shown
from camboxes.models.spec import Factor
from camboxes.pipeline.commands.label import add_map_arguments, map_spec
from camboxes.pipeline.options.network import (
    add_class_arguments,
    add_model_arguments,
    assumed,
    model_spec,
    with_classes,
)
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from camboxes.models import Classifier, Localization, Localizer
    from camboxes.transforms.boxes.from_map import Drawn
    from camboxes.transforms.boxes.stored_maps import StoredMap

_CAM = Factor("cam", None)
_METHODS = "cam,gradcam++,layercam@16,cam*layercam@16,eigencam"

# In pixels, for a screen of twice the usual density.
TILE = (360, 540)  # at most, width and height
MARGIN, GAP = 64, 28
HEADING, _REASON, _SCALE = 92, 88, 110  # heights above a row's tiles, below them, and below the last row
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("image", metavar="IMAGE", help="a photograph")
    parser.add_argument(
        "--labels", metavar="LABEL,…", help="classes to explain, by name (default: the network's first two)"
    )
    parser.add_argument(
        "--output",
        default="grid.png",
        metavar="FILE",
        help="the figure, in any format that Pillow writes (default: %(default)s)",
    )
    add_class_arguments(add_model_arguments(parser))
    add_map_arguments(parser, "[WEIGHT*]METHOD[@LAYER]+…,…", _METHODS)
    parser.set_defaults(method=_METHODS)
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.25,
        metavar="T",
        help="smallest foreground value of the min-max scaled map, 0 to 1 (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the network failed.
    """
    from camboxes.pipeline.errors import blaming_the_call, refuse_unknown
    from camboxes.transforms import storage
    from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map
    from camboxes.transforms.boxes.stored_maps import quantize

    refuse_unknown(beam_arguments, "see camboxes explain --help")
    with blaming_the_call():
        rule = BoxRule(arguments.threshold)
        methods = [map_spec(arguments, text.strip()) for text in arguments.method.split(",")]
        _check_output(arguments.output, arguments.image)
        photograph = _read(arguments.image)  # before torch is loaded: a wrong path is told at once

        from camboxes.models import Localizer, load_classifier
        from camboxes.models.execution.process import use_one_core

        spec = with_classes(model_spec(arguments, arguments.scales), arguments)
        classifier = load_classifier(dataclasses.replace(spec, batch_size=1))
        for note in assumed(arguments, classifier):
            print(note)
        if classifier.inexact_because and arguments.method == _METHODS:
            print(f"cam is left out: it is not exact for {classifier.spec.name}")
            methods = [maps for maps in methods if not any(_CAM in term.factors for term in maps.terms)]
        localizers = [Localizer(classifier, maps) for maps in methods]
        classes = None if arguments.labels is None else _classes(classifier, arguments.labels)
    if classes is None:
        classes = _first_classes(classifier, localizers[0], photograph)
    with ThreadPoolExecutor(1, initializer=use_one_core) as core:  # as each of label's passes has
        passes = list(core.map(functools.partial(_timed, photograph=photograph, classes=classes), localizers))
    columns = [Column(maps.method, milliseconds) for maps, (_, milliseconds) in zip(methods, passes, strict=True)]
    rows = []
    for number, index in enumerate(classes):
        stored = [quantize(localization.maps[number]) for localization, _ in passes]
        drawn = [boxes_from_map(of_method, photograph.shape[1], photograph.shape[0], rule) for of_method in stored]
        name, probability = shown(classifier.class_names, index), float(passes[0][0].probabilities[index])
        rows.append(Row(index, name, probability, list(zip(stored, drawn, strict=True))))
    scales = " and ".join(map(str, localizers[0].scales)) + (", flipped too," if arguments.flip else "")
    notes = (classifier.spec.name, f"at {scales} on {classifier.spec.device}")
    picture = figure(photograph, columns, rows, arguments.threshold, notes)
    storage.write_bytes(arguments.output, _encoded(picture, arguments.output))
    for row in rows:
        print(f"{on_one_line(row.name)}  {row.probability:.2f}")
    print(f"wrote {arguments.output}")


def _check_output(output: str, image: str) -> None:
    """Refuses a file that could not be written when the work is done, or that is the photograph itself."""
    from PIL import Image

    from camboxes.pipeline.jobs import running
    from camboxes.transforms import storage

    running.check_output(output, image)
    folder = Path(output).parent
    if storage.is_local(output) and not folder.is_dir():
        raise ValueError(f"--output {output!r}: there is no folder {str(folder)!r}; make it, or choose another")
    try:
        _encoded(Image.new("RGB", (1, 1)), output)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"--output {output!r} ends in {Path(output).suffix!r}, which Pillow cannot write; expected .png, .jpg, "
            ".webp or the like"
        ) from None


def _encoded(picture: "Image.Image", output: str) -> bytes:
    """A picture in the format that the ending of a file's name asks for."""
    from PIL import Image

    file = io.BytesIO()
    picture.save(file, Image.registered_extensions()[Path(output).suffix.lower()])
    return file.getvalue()


def _read(path: str) -> "np.ndarray":
    from camboxes.transforms import storage
    from camboxes.transforms.images.decoding import BadImageError, check_not_blank, decode

    try:
        photograph = decode(storage.read_bytes(path))
        check_not_blank(photograph)
        return photograph
    except FileNotFoundError:
        raise ValueError(f"image {path!r}: there is no file at this path") from None
    except BadImageError as error:
        raise ValueError(f"image {path!r} cannot be used: {error}") from error


def _first_classes(classifier: "Classifier", localizer: "Localizer", photograph: "np.ndarray") -> list[int]:
    """The two classes that the network finds most probable."""
    logits = classifier.infer(localizer.resize(photograph)[0][None]).logits[0]
    return logits.argsort(descending=True, stable=True)[:2].tolist()


def _classes(classifier: "Classifier", labels: str) -> list[int]:
    """The classes that the labels stand for, in their order."""
    from camboxes.transforms.planning.label_matching import LabelMatcher

    matcher = LabelMatcher(classifier.class_names)
    return list(dict.fromkeys(index for label in labels.split(",") for index in matcher.match(label)))


def _timed(localizer: "Localizer", photograph: "np.ndarray", classes: Sequence[int]) -> "tuple[Localization, float]":
    """The classes' maps, and the milliseconds of the pass; the first one, which sets things up, does not count."""
    pixels, candidates = localizer.resize(photograph), [[index] for index in classes]
    localizer.localize([pixels], [candidates])
    start = time.perf_counter()
    [localization] = localizer.localize([pixels], [candidates])
    return localization, 1000 * (time.perf_counter() - start)


def figure(
    photograph: "np.ndarray", columns: Sequence[Column], rows: Sequence[Row], threshold: float, notes: Sequence[str]
) -> "Image.Image":
    """Lays the photograph and its overlays out, with a scale of the palette below.

    Args:
      photograph: uint8 [height, width, 3], RGB.
      columns: the methods, from left to right.
      rows: the classes, from top to bottom.
      threshold: what the boxes were drawn at; marked on the scale.
      notes: lines to stand below the photographs.
    """
    from PIL import Image, ImageDraw

    height, width, _ = photograph.shape
    shrink = min(TILE[0] / width, TILE[1] / height)
    tile = Image.fromarray(photograph).resize(
        (max(1, round(width * shrink)), max(1, round(height * shrink))), Image.Resampling.LANCZOS
    )
    lefts = [MARGIN + number * (TILE[0] + GAP) for number in range(len(columns) + 1)]
    heights = [HEADING + tile.height + (_REASON if any(d.reason for _, d in row.maps) else GAP) for row in rows]
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
            if drawn.reason:
                reason = textwrap.fill(f"no box: {drawn.reason.partition(': ')[2]}", 32)
                draw.text((left, top + HEADING + tile.height + 10), reason, _MUTED, _fonts(_SMALL)[0])
        top += row_height
    _scale(page, draw, (lefts[-1], top + 44), threshold)
    for number, note in enumerate(notes):
        _text(draw, (lefts[0], top + 44 + 34 * number), note, width=TILE[0])
    return page


def overlay(tile: "Image.Image", stored: "StoredMap", drawn: "Drawn", shrink: float) -> "Image.Image":
    """The photograph under a map, which colours it as strongly as it is high, and the box; bare where there is none.

    Args:
      tile: the photograph as it is shown.
      stored: the map.
      drawn: what `boxes_from_map` made of it.
      shrink: pixels of the tile per pixel of the photograph that the box was drawn on.
    """
    from PIL import Image, ImageDraw

    from camboxes.pipeline.reports.run_report import HEAT_COLOURS

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


def _scale(page: "Image.Image", draw: "ImageDraw.ImageDraw", corner: tuple[int, int], threshold: float) -> None:
    """A thin bar of the palette: its ends named below, where boxes begin above."""
    from PIL import Image

    from camboxes.pipeline.reports.run_report import HEAT_COLOURS

    (left, top), width, height = corner, TILE[0], 10
    bar = Image.linear_gradient("L").rotate(90).resize((width, height))
    bar.putpalette(HEAT_COLOURS.tobytes())
    page.paste(bar.convert("RGB"), corner)
    small = _fonts(_SMALL)[0]
    draw.text((left, top + height + 14), "0", _MUTED, small, anchor="lt")
    draw.text((left + width, top + height + 14), "1", _MUTED, small, anchor="rt")
    mark, label = left + round(threshold * (width - 2)), f"box from {threshold:g}"
    draw.rectangle((mark, top - 8, mark + 1, top + height - 1), _TEXT)
    half = small.getlength(label) / 2
    at = min(max(mark, left + half), left + width - half)
    draw.text((at, top - 16), label, _MUTED, small, anchor="ms")


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
