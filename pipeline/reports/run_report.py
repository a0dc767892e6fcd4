"""Writes report.html: what a run found, as pictures and charts. One file that opens anywhere, without a network.

The page's size is bounded for a run of any size: charts and counts cover every row, pictures and the table of rejected
images cover a sample. Rows are streamed twice, once to count and once to sample. Only the sample is held.

Labels and paths are untrusted text. They enter the page only through Jinja's escaping, as text or in attributes, never
in the script. The page's Content-Security-Policy allows our script only, by its hash. Every text is shortened as it
enters the page, so that no template can forget to.
"""

import base64
import collections
import functools
import hashlib
import importlib.resources
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from camboxes.models.counts import counted
from camboxes.pipeline.reports import remarks
from camboxes.pipeline.reports.pictures import colour, heat_map, thumbnail
from camboxes.pipeline.reports.report_sample import COLUMNS, ROWS, Stratum, sample_rows, stratum_of, worst_of_label
from camboxes.pipeline.reports.settings_in_words import exactly, maps_in_words, rule_in_words
from camboxes.pipeline.untrusted_text import shortened
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.records import NO_BOX, OK, PERSON, REJECTED, SKIPPED, score_of, source_of
from camboxes.transforms.sources.background import BACKGROUND

if TYPE_CHECKING:
    from camboxes.pipeline.reports.evaluation_report import Section

Row = Mapping[str, Any]

_BINS = 20  # of a histogram
_STATUS_NAMES = {OK: "with boxes", NO_BOX: "without a box", SKIPPED: "skipped", REJECTED: "rejected"}


def write(output: str, evaluation: "Section | None" = None, folder: str | None = None) -> int:
    """Writes report.html of the finished run in `output`, from its shards, its summary and the photographs.

    It goes to `folder`, or else beside the run. `evaluation` says how boxes compare with true ones, if that is known.

    Returns:
      The number of photographs that should be shown and are gone, or are not those that the run saw.
    """
    run = PlannedRun.load(output)
    assert run is not None, f"{output} holds a planned run"
    summary = storage.read_json(storage.join(output, "summary.json"))
    images = {name: counts["images"] for name, counts in summary["categories"].items()}
    charts = _Charts()
    sizes: collections.Counter[Stratum] = collections.Counter()
    for row in run.rows(COLUMNS):
        sizes[stratum_of(row, images)] += 1
        charts.add(row)
    sample = sample_rows(run, sizes, images)
    frequent = sorted(summary["categories"].items(), key=lambda item: (-item[1]["images"], item[0]))[:ROWS]
    return _write_page(
        run,
        summary,
        sample,
        storage.join(folder or output, "report.html"),
        charts=charts if summary["annotations"] else None,
        categories=[(name, counts) for name, counts in frequent if counts["images"] > 1],
        single=[name for name, counts in frequent if counts["images"] <= 1],
        rejected=[row for row in sample if row["status"] == REJECTED],
        remarks=[
            *remarks.of_input(run.passed_over, [category.name for category in run.categories], run.splits, run.assumed),
            *remarks.of_background(summary.get("skipped", {}).get(BACKGROUND, 0), run.background),
            *remarks.of_rejected(summary["rejected"], "the input's root"),
        ],
        evaluation=evaluation,
        photographs=_photographs(run, evaluation) if evaluation else {},
        beside_results=folder in (None, output),
    )


def write_of_label(run: PlannedRun, label: str, pictures: int, path: str) -> int:
    """Writes a page of a label's images, the worst first. See `worst_of_label`, and `write` for what is returned."""
    summary = storage.read_json(storage.join(run.output, "summary.json"))
    counts = summary["categories"][label]
    return _write_page(
        run,
        summary | {"warnings": []},
        worst_of_label(run, label, pictures),
        path,
        label={"name": label, "images": counts["images"], "boxes": counts["boxes"]},
    )


def _write_page(run: PlannedRun, summary: Mapping[str, Any], rows: Sequence[Row], path: str, **shown: Any) -> int:
    """Writes a page that shows rows, but for the rejected ones, and what else is given to the template."""
    cards = [_card(run, row) for row in rows if row["status"] != REJECTED]
    nothing = dict.fromkeys(("charts", "evaluation", "label")) | {"beside_results": True}
    lists: dict[str, Any] = {name: [] for name in ("categories", "single", "rejected", "remarks")}
    page = _template().render(
        **{**nothing, **lists, **shown},
        summary=summary,
        maps=maps_in_words(summary["settings"]),
        boxes=rule_in_words(summary["settings"]["rule"]),
        exactly=exactly(summary["settings"]),
        counted=counted,
        status_names=_STATUS_NAMES,
        labels=sorted({(label["label"], label["category_id"]) for row in rows for label in row["labels"]}),
        cards=cards,
    )
    storage.write_bytes(path, page.encode())
    return sum(card["photograph"] is None for card in cards)


@functools.cache
def _template() -> jinja2.Template:
    files = importlib.resources.files(__package__)
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        # Shortens untrusted text as it enters the page; our own markup stays as it is.
        finalize=lambda text: shortened(text) if isinstance(text, str) and not isinstance(text, Markup) else text,
        loader=jinja2.FunctionLoader(lambda name: files.joinpath(name).read_text("utf-8")),
    )
    environment.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return environment.get_template("report.html.jinja")


def _photographs(run: PlannedRun, evaluation: "Section") -> dict[str, Markup | None]:
    """The photograph of each example of an evaluation, by path."""
    paths = {example.path for example in (*evaluation.best, *evaluation.worst)}
    rows = (row for row in run.rows(["path", "digest"]) if row["path"] in paths)
    return dict.fromkeys(paths) | {row["path"]: thumbnail(run, row) for row in rows}


class _Charts:
    """Histograms of the scores and of the shares of the image over all boxes of a run, in _BINS parts of [0, 1]."""

    def __init__(self) -> None:
        self.scores, self.areas = [0] * _BINS, [0] * _BINS
        self.calibrated = False  # whether the scores are

    def add(self, row: Mapping[str, Any]) -> None:
        """Counts the boxes of a row."""
        for box in row["boxes"]:
            self.calibrated = self.calibrated or box["calibrated_score"] is not None
            for counts, value in ((self.scores, score_of(box)), (self.areas, _share(box, row))):
                counts[min(int(value * _BINS), _BINS - 1)] += 1


def _share(box: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """The box's share of its image's area."""
    return box["bbox"][2] * box["bbox"][3] / (row["width"] * row["height"])


def _card(run: PlannedRun, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of an image."""
    boxes = [
        {
            **box,
            "score": score_of(box),
            "share": _share(box, row),
            "name": run.categories[box["category_id"] - 1].name,  # a reviewer may have chosen another than the image's
            "by_person": source_of(box) == PERSON,
            "colour": colour(box["category_id"]),
        }
        for box in row["boxes"]
    ]
    best: dict[int, float] = {}
    for box in boxes:
        best[box["category_id"]] = max(box["score"], best.get(box["category_id"], 0.0))
    return {
        **row,
        "unit": max(row["width"], row["height"]) / 100,  # of strokes, so that they look alike on every thumbnail
        "photograph": thumbnail(run, row),
        "heat_map": heat_map(row),
        "labels": [
            {**label, "colour": colour(label["category_id"]), "score": best.get(label["category_id"])}
            for label in row["labels"]
        ],
        "boxes": boxes,
        "score": max(best.values(), default=None),
    }
