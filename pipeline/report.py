"""report.html: what came out, as pictures. One file that opens anywhere, with no network and no script."""

import base64
import colorsys
import importlib.resources
import io
from collections.abc import Iterator
from typing import Any

import cv2
import jinja2
import numpy as np
from PIL import Image

from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.images import BadImageError, decode
from camboxes.transforms.plan import shard_file
from camboxes.transforms.records import REJECTED

_PICTURES = 120  # at most, evenly spaced over the run
_ROWS = 200  # of a table, at most
_THUMBNAIL = 360  # long side, in pixels
_HEAT_MAP = 72  # likewise; the browser interpolates the rest


def write(output: str) -> None:
    """Writes OUT/report.html of a finished run from its shards, its summary and the photographs themselves."""
    run = PlannedRun.load(output)
    assert run is not None, f"{output} holds a planned run"
    summary = storage.read_json(storage.join(output, "summary.json"))
    rejected, shown = [], []
    every = -(-run.images // _PICTURES)
    for row in _rows(run):
        if row["status"] == REJECTED:
            rejected.append({"path": row["path"], "reason": row["reason"]})
        elif (row["image_id"] - 1) % every == 0:
            shown.append(_card(run, row))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    template = environment.from_string(
        importlib.resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
    )
    page = template.render(
        summary=summary,
        categories=sorted(summary["categories"].items(), key=lambda item: (-item[1]["images"], item[0]))[:_ROWS],
        cards=shown,
        rejected=rejected[:_ROWS],
        fewest_rows=_ROWS,
    )
    storage.write_bytes(storage.join(output, "report.html"), page.encode())


def _rows(run: PlannedRun) -> Iterator[dict[str, Any]]:
    for key in run.shards:
        yield from storage.read_table(shard_file(run.output, key)).to_pylist()


def _card(run: PlannedRun, row: dict[str, Any]) -> dict[str, Any]:
    names = {label["category_id"]: label["label"] for label in row["labels"]}
    unit = max(row["width"], row["height"]) / 100  # of strokes and text, so that they look alike on every thumbnail
    return {
        "path": row["path"],
        "status": row["status"],
        "reason": row["reason"],
        "width": row["width"],
        "height": row["height"],
        "unit": unit,
        "photograph": _thumbnail(run, row),
        "heat_map": _heat_map(row),
        "labels": [
            {"name": label["label"], "probability": label["probability"], "colour": _colour(label["category_id"])}
            for label in row["labels"]
        ],
        "boxes": [
            {
                "bbox": box["bbox"],
                "score": box["score"],
                "name": names[box["category_id"]],
                "colour": _colour(box["category_id"]),
            }
            for box in row["boxes"]
        ],
    }


def _thumbnail(run: PlannedRun, row: dict[str, Any]) -> str | None:
    try:
        image = Image.fromarray(decode(storage.read_bytes(run.location(row["path"]) or "")))
    except (BadImageError, OSError):  # it was there when the job ran; a report without one picture is still a report
        return None
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82)
    return _data_uri("jpeg", file.getvalue())


def _heat_map(row: dict[str, Any]) -> str | None:
    """The strongest of the image's min-max scaled maps, cell by cell, in colours that fade out where it is low."""
    shrink = _HEAT_MAP / max(row["width"], row["height"])
    size = (max(1, round(row["width"] * shrink)), max(1, round(row["height"] * shrink)))
    heat = np.zeros(size[::-1], np.float32)
    for stored in row["maps"]:
        cells = np.frombuffer(stored["cells"], np.uint8).reshape(stored["height"], stored["width"])
        heat = np.maximum(heat, cv2.resize(cells.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
    if not heat.any():
        return None
    coloured = cv2.applyColorMap(heat.astype(np.uint8), cv2.COLORMAP_INFERNO)
    coloured = np.dstack([coloured, (heat * 0.75).astype(np.uint8)])
    return _data_uri("png", cv2.imencode(".png", coloured)[1].tobytes())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _colour(category_id: int) -> str:
    """A bright colour; neighbours in the list of categories are far apart in hue (golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb(category_id * 0.61803398875 % 1, 0.75, 1.0)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
