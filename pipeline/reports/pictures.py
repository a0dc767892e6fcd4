"""Draws the report's pictures: a photograph's thumbnail and its heat map, as data URIs."""

import base64
import colorsys
import io
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from PIL import Image

from camboxes.transforms import PlannedRun
from camboxes.transforms.boxes.second_look import is_whole
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.images.decoding import ACCEPTED, decode_at_least

HEAT_COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)[:, 0, ::-1]

_THUMBNAIL = 480  # long side, in pixels: a click enlarges it
_THUMBNAIL_BYTES = 44_000  # at most; a photograph takes half of it
_HEAT_MAP = 72  # long side, in pixels; the browser interpolates

Row = Mapping[str, Any]


def thumbnail(run: PlannedRun, row: Row) -> Markup | None:
    """The photograph of a row, upright; None if it is gone or its file is not the one that the run saw."""
    try:
        data = seen(read_image(run.location(row["path"]), ACCEPTED), row["digest"])
        image = Image.fromarray(decode_at_least(data, _THUMBNAIL, limits=ACCEPTED).pixels)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    except Exception:  # it was readable when the job ran; a report without one picture is still a report
        return None
    for quality in (80, 60, 40, 20, 5):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= _THUMBNAIL_BYTES:
            break
    return _data_uri("jpeg", file.getvalue())


def heat_map(row: Row) -> Markup | None:
    """The cell-wise maximum of a row's whole-image maps, transparent where it is low; None if it is 0 everywhere."""
    shrink = _HEAT_MAP / max(row["width"], row["height"])
    size = (max(1, round(row["width"] * shrink)), max(1, round(row["height"] * shrink)))
    heat = np.zeros(size[::-1], np.float32)
    for stored in row["maps"]:
        if is_whole(stored, row):
            cells = StoredMap.of(stored).cells.astype(np.float32)
            heat = np.maximum(heat, cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR))
    if not heat.any():
        return None
    image = Image.fromarray(heat.astype(np.uint8), "P")
    image.putpalette(HEAT_COLOURS.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(value * 3 // 4 for value in range(256)))
    return _data_uri("png", file.getvalue())


def colour(category_id: int) -> str:
    """A bright colour; neighbouring categories are far apart in hue (golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb(category_id * 0.61803398875 % 1, 0.7, 0.96)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _data_uri(kind: str, data: bytes) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")
