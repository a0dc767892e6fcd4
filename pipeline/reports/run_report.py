"""report.html: what came out, as pictures and charts. One file that opens anywhere, with no network.

A run of any size gives a page of bounded size: the charts and counts cover every row, the pictures and the table of
rejected images a sample. Rows are streamed twice, once to count and once to sample; only the sample is held.

Labels and paths are strangers' text. They enter the page through Jinja's escaping alone, as text and in attributes,
never in the script, and the page's Content-Security-Policy allows no other script than ours, by its hash. Each text is
shortened where it is put into the page, so that no template can forget to.
"""

import base64
import collections
import colorsys
import hashlib
import heapq
import importlib.resources
import io
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from camboxes.pipeline.reports import remarks
from camboxes.pipeline.sampling import number_of
from camboxes.pipeline.untrusted_text import shortened
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.boxes.second_look import is_whole
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.contents.image_files import read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.images.decoding import ACCEPTED, decode_at_least
from camboxes.transforms.records import NO_BOX, OK, PERSON, REJECTED, SKIPPED, score_of, source_of

if TYPE_CHECKING:
    from camboxes.pipeline.reports.evaluation_report import Section

_PICTURES = 120  # at most
_ROWS = 200  # of a table, at most
_THUMBNAIL = 360  # long side, in pixels
_THUMBNAIL_BYTES = 36_000  # at most; a photograph takes half of it
_HEAT_MAP = 72  # long side, in pixels; the browser interpolates the rest
_BINS = 20  # of a histogram

_STATUS_NAMES = {OK: "with boxes", NO_BOX: "without a box", SKIPPED: "skipped", REJECTED: "rejected"}
_COLUMNS = ["path", "width", "height", "status", "reason", "labels", "boxes"]  # all but the large ones
HEAT_COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO)[:, 0, ::-1]


class _Stratum(NamedTuple):
    """Images that are alike to somebody who looks: of one status, and of one label or one code of rejection."""

    status: str
    name: str


def write(output: str, evaluation: "Section | None" = None, folder: str | None = None) -> int:
    """Writes report.html of a finished run from its shards, its summary and the photographs themselves.

    Args:
      output: the run's folder.
      evaluation: how its boxes compare with true ones; None where that is not known.
      folder: where report.html goes; None for the run's folder.

    Returns:
      How many of the photographs that it should show are gone, or are not those that the run saw.
    """
    run = PlannedRun.load(output)
    assert run is not None, f"{output} holds a planned run"
    summary = storage.read_json(storage.join(output, "summary.json"))
    charts = _Charts()
    sizes: collections.Counter[_Stratum] = collections.Counter()
    for row in run.rows(_COLUMNS):
        sizes[_stratum(row, summary)] += 1
        charts.add(row)
    rejected = {stratum: size for stratum, size in sizes.items() if stratum.status == REJECTED}
    others = {stratum: size for stratum, size in sizes.items() if stratum.status != REJECTED}
    sample = _sample(run, summary, {**_dealt(others, _PICTURES), **_dealt(rejected, _ROWS)})
    cards = [_card(run, row) for row in sample if row["status"] != REJECTED]
    page = _template().render(
        summary=summary,
        status_names=_STATUS_NAMES,
        charts=charts,
        labels=sorted({(label["label"], label["category_id"]) for row in sample for label in row["labels"]}),
        categories=sorted(summary["categories"].items(), key=lambda item: (-item[1]["images"], item[0]))[:_ROWS],
        cards=cards,
        rejected=[row for row in sample if row["status"] == REJECTED],
        remarks=[
            *remarks.of_input(run.passed_over, [category.name for category in run.categories], run.splits),
            *remarks.of_rejected(summary["rejected"], "the input's root"),
        ],
        evaluation=evaluation,
        photographs=_photographs(run, evaluation) if evaluation else {},
        beside_results=folder in (None, output),
    )
    storage.write_bytes(storage.join(folder or output, "report.html"), page.encode())
    return sum(card["photograph"] is None for card in cards)


def _template() -> jinja2.Template:
    files = importlib.resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shortened,
        loader=jinja2.FunctionLoader(lambda name: files.joinpath(name).read_text("utf-8")),
    )
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template("report.html.jinja")


def _shortened(value: Any) -> Any:
    """What a template puts into the page for a value: strangers' text shortened, our own markup as it is."""
    return shortened(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _photographs(run: PlannedRun, evaluation: "Section") -> dict[str, Markup | None]:
    """Of each example of an evaluation the photograph, by path."""
    paths = {example.path for example in (*evaluation.best, *evaluation.worst)}
    rows = (row for row in run.rows(["path", "digest"]) if row["path"] in paths)
    return dict.fromkeys(paths) | {row["path"]: _thumbnail(run, row) for row in rows}


class _Charts:
    """Histograms over all boxes of a run, of their scores and of their areas.

    Attributes:
      scores: how many boxes have a score in each of _BINS equal parts of [0, 1].
      areas: likewise, by the box's share of its image.
      calibrated: whether the scores are calibrated.
    """

    def __init__(self) -> None:
        self.scores = [0] * _BINS
        self.areas = [0] * _BINS
        self.calibrated = False

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts the boxes of a row."""
        for box in row["boxes"]:
            self.calibrated = self.calibrated or box["calibrated_score"] is not None
            self.scores[_bin(score_of(box))] += 1
            self.areas[_bin(_share(box, row))] += 1


def _bin(value: float) -> int:
    return min(int(value * _BINS), _BINS - 1)


def _share(box: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    return box["bbox"][2] * box["bbox"][3] / (row["width"] * row["height"])


def _stratum(row: Mapping[str, Any], summary: Mapping[str, Any]) -> _Stratum:
    """A rejected image goes by its reason, any other by its rarest label: the frequent ones are seen in any case."""
    if row["status"] == REJECTED:
        return _Stratum(REJECTED, _code(row))
    names = [label["label"] for label in row["labels"]]
    return _Stratum(
        row["status"], min(names, key=lambda name: (summary["categories"][name]["images"], name), default="")
    )


def _code(row: Mapping[str, Any]) -> str:
    return row["reason"].partition(":")[0]


def _dealt(sizes: Mapping[_Stratum, int], places: int) -> dict[_Stratum, int]:
    """Deals places out, one to each stratum in turn, until there are no more places or no more images.

    Where there are more strata than places, each status gives its largest ones.
    """
    by_status: dict[str, list[_Stratum]] = collections.defaultdict(list)
    for stratum in sorted(sizes, key=lambda stratum: (-sizes[stratum], stratum)):
        by_status[stratum.status].append(stratum)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_status.values()))
    dealt = dict.fromkeys(filter(None, turns), 0)
    while places and (hungry := [stratum for stratum in dealt if dealt[stratum] < sizes[stratum]]):
        for stratum in hungry[:places]:
            dealt[stratum] += 1
        places -= len(hungry[:places])
    return dealt


def _sample(run: PlannedRun, summary: Mapping[str, Any], places: Mapping[_Stratum, int]) -> list[dict[str, Any]]:
    """As many rows of each stratum as it has places, in the order of their paths.

    The rule of `pipeline.sampling` takes them, so the same run gives the same sample, and not a folder's first files.
    """
    kept: dict[_Stratum, list[tuple[int, dict[str, Any]]]] = {stratum: [] for stratum in places}
    for _, rows in run.tables():
        for position, row in enumerate(rows.select(_COLUMNS).to_pylist()):
            stratum = _stratum(row, summary)
            heap, rank = kept[stratum], -number_of(row["path"])
            if len(heap) < places[stratum]:
                heapq.heappush(heap, (rank, rows.slice(position, 1).to_pylist()[0]))
            elif heap and rank > heap[0][0]:
                heapq.heapreplace(heap, (rank, rows.slice(position, 1).to_pylist()[0]))
    found = (row for _, row in itertools.chain.from_iterable(kept.values()))
    return sorted(found, key=lambda row: row["path"])


def _card(run: PlannedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    boxes = [
        {
            **box,
            "score": score_of(box),
            "share": _share(box, row),
            "name": run.categories[box["category_id"] - 1].name,  # a person may have given it another than the image's
            "by_person": source_of(box) == PERSON,
            "colour": _colour(box["category_id"]),
        }
        for box in row["boxes"]
    ]
    best: dict[int, float] = {}
    for box in boxes:
        best[box["category_id"]] = max(box["score"], best.get(box["category_id"], 0.0))
    return {
        **row,
        "unit": max(row["width"], row["height"]) / 100,  # of strokes, so that they look alike on every thumbnail
        "photograph": _thumbnail(run, row),
        "heat_map": _heat_map(row),
        "labels": [
            {**label, "colour": _colour(label["category_id"]), "score": best.get(label["category_id"])}
            for label in row["labels"]
        ],
        "boxes": boxes,
        "score": max(best.values(), default=None),
    }


def _thumbnail(run: PlannedRun, row: Mapping[str, Any]) -> Markup | None:
    """None where the photograph is gone, or is not the one that the run saw: its boxes would be on another one."""
    try:
        image = _photograph(run, row)
    except Exception:  # it could be read when the job ran; a report without one picture is still a report
        return None
    for quality in (80, 60, 40, 20, 5):
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if file.tell() <= _THUMBNAIL_BYTES:
            break
    return _data_uri("jpeg", file.getvalue())


def _photograph(run: PlannedRun, row: Mapping[str, Any]) -> Image.Image:
    """A photograph upright, in RGB, its long side at most _THUMBNAIL."""
    data = seen(read_image(run.location(row["path"]), ACCEPTED), row["digest"])
    decoded = Image.fromarray(decode_at_least(data, _THUMBNAIL, limits=ACCEPTED).pixels)
    decoded.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return decoded


def _heat_map(row: Mapping[str, Any]) -> Markup | None:
    """The strongest of the image's min-max scaled maps, cell by cell, in colours that fade out where it is low."""
    shrink = _HEAT_MAP / max(row["width"], row["height"])
    size = (max(1, round(row["width"] * shrink)), max(1, round(row["height"] * shrink)))
    heat = np.zeros(size[::-1], np.float32)
    for stored in (stored for stored in row["maps"] if is_whole(stored, row)):
        cells = StoredMap.of(stored).cells.astype(np.float32)
        heat = np.maximum(heat, cv2.resize(cells, size, interpolation=cv2.INTER_LINEAR))
    if not heat.any():
        return None
    image = Image.fromarray(heat.astype(np.uint8), "P")
    image.putpalette(HEAT_COLOURS.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes(value * 3 // 4 for value in range(256)))
    return _data_uri("png", file.getvalue())


def _data_uri(kind: str, data: bytes) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(data).decode()}")


def _colour(category_id: int) -> str:
    """A bright colour; neighbours in the list of categories are far apart in hue (golden ratio)."""
    red, green, blue = colorsys.hsv_to_rgb(category_id * 0.61803398875 % 1, 0.7, 0.96)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"
