"""Draws the boxes of a judged run again at every threshold, from its stored maps. Much slower than judging."""

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation.judging import Judged, judged_rows
from camboxes.pipeline.reporter import LOG, Reporter
from camboxes.transforms import BoxRule, PlannedRun
from camboxes.transforms.boxes.from_map import WorkingMap, best_iou
from camboxes.transforms.boxes.second_look import merge
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.boxes_from_maps import working_map
from camboxes.transforms.wsol import metrics

THRESHOLDS = np.arange(2, 92, 2) / 100
OTSU_SHARES = np.arange(30, 151, 5) / 100
LITERATURE_STEP = 0.001  # between thresholds of the literature's rule
MOST_REDRAWN = 1000  # images; a share of that many has a standard error of at most 1.6 points

_Placed = tuple[Sequence[int], WorkingMap]  # the rectangle of the image that a map covers, and the map


@dataclasses.dataclass(frozen=True, eq=False)
class Redrawn(Judged):
    """A judged run, and the IoU of each pair's box at other thresholds."""

    thresholds: np.ndarray  # float64 [thresholds]
    otsu_shares: np.ndarray  # float64 [shares], thresholds as shares of the Otsu level
    iou_at: np.ndarray  # float32 [pairs, thresholds], IoU of the own box that the run's rule draws at each threshold
    iou_at_otsu: np.ndarray  # float32 [pairs, shares], likewise at each share of the Otsu level
    literature: metrics.BoxCounts  # by the rule of `transforms.wsol`, from the stored maps, over the pairs


def redraw(run: PlannedRun, judged: Judged, reporter: Reporter = LOG) -> Redrawn:
    """Draws the boxes of every judged pair of a run at each threshold.

    Raises:
      CallError: a judged pair has no stored map.
    """
    rule = dataclasses.replace(BoxRule(**judged.settings["rule"]), thresholds={})
    thresholds = [*THRESHOLDS.tolist(), *(f"{share}*otsu" for share in OTSU_SHARES)]
    rules = [dataclasses.replace(rule, threshold=threshold) for threshold in thresholds]
    pairs_of: dict[str, list[int]] = collections.defaultdict(list)
    for pair, image in enumerate(judged.image.tolist()):
        pairs_of[judged.paths[image]].append(pair)

    iou_at = np.empty((len(judged.image), len(rules)), np.float32)
    literature = metrics.BoxCounts.none(LITERATURE_STEP)
    shards = judged_rows(run, judged.matching, ["path", "width", "height", "labels", "maps"])
    with reporter.progress(len(judged.paths), "image", f"drawing at {len(rules)} thresholds") as advance:
        for row in itertools.chain.from_iterable(shard.to_pylist() for shard in shards):
            labels = {label["label"]: label for label in row["labels"]}
            for pair in pairs_of.get(row["path"], ()):
                name = judged.categories[judged.category[pair]]
                label, true = labels[name], judged.matching.truths[row["path"]].boxes[name]
                maps, size = _maps(row, label), (row["width"], row["height"])
                iou_at[pair] = _iou_at_thresholds(maps, size, label["probability"], true, rules)
                literature += _literature_counts(row, maps[0][1].stored, true)
            advance(1)
    return Redrawn(
        **vars(judged),
        thresholds=THRESHOLDS,
        otsu_shares=OTSU_SHARES,
        iou_at=iou_at[:, : len(THRESHOLDS)],
        iou_at_otsu=iou_at[:, len(THRESHOLDS) :],
        literature=literature,
    )


def _maps(row: Mapping[str, Any], label: Mapping[str, Any]) -> list[_Placed]:
    """The stored maps of a row's label, that of the whole image first."""
    entries = [stored for stored in row["maps"] if stored["category_id"] == label["category_id"]]
    if not entries:
        raise CallError(
            f"the run has no map of {label['label']!r} on {row['path']!r} to draw its boxes from at other "
            "thresholds; judge the run that camboxes label or rebox wrote, with its maps"
        )
    return [(stored["rectangle"], working_map(stored)) for stored in entries]


def _iou_at_thresholds(
    maps: Sequence[_Placed], size: tuple[int, int], probability: float, true: np.ndarray, rules: Sequence[BoxRule]
) -> np.ndarray:
    """IoU of the box that each rule draws: float64 [rules]. The rules differ in their thresholds alone.

    Of several boxes the one of highest score counts, as for the own box of `Judged`.
    """
    if len(maps) == 1 and rules[0].boxes in ("largest", "peak"):
        found = maps[0][1].outlines(rules)
    else:
        found = []
        for rule in rules:
            seen = merge([(rectangle, working.draw(rule)) for rectangle, working in maps], *size)
            own = max(seen, key=lambda box: round(probability * box.share, 6), default=None)  # of equals, the first
            found.append(None if own is None else own.bbox)
    ious = np.zeros(len(found))
    drawn = [number for number, bbox in enumerate(found) if bbox is not None]
    if drawn:
        ious[drawn] = best_iou(np.array([found[number] for number in drawn]), true)
    return ious


def _literature_counts(row: Mapping[str, Any], stored: StoredMap, true: np.ndarray) -> metrics.BoxCounts:
    """A pair's points on the literature's curves, from its map as it is stored."""
    values = stored.raw_min + stored.cells / 255 * (stored.raw_max - stored.raw_min)
    corners = np.concatenate([true[:, :2], true[:, :2] + true[:, 2:]], axis=1)
    scaled = metrics.scale_boxes(corners.tolist(), row["width"], row["height"])
    return metrics.BoxCounts.of(row["path"], metrics.scale_map(values), scaled, LITERATURE_STEP)
