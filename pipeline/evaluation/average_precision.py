"""Computes COCO's AP and AR with a weight for each image, so that a bootstrap needs one evaluation only.

pycocotools matches boxes once. Precision and recall are then accumulated from weighted counts. With weights of 1 they
are what pycocotools gives; an image of weight 2 counts as two images, and an image of weight 0 does not count.
"""

import contextlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

MOST = 100  # boxes of a category that count on an image: COCO's maxDets

_RECALLS = np.linspace(0, 1, 101)  # COCO's recThrs
_CELLS = 2**21  # of one array while accumulating: 16 MiB


class Boxes(NamedTuple):
    """True or drawn boxes."""

    image: np.ndarray  # int64 [boxes], indices from 0
    category: np.ndarray  # likewise
    bbox: np.ndarray  # float64 [boxes, 4], x, y, width, height in pixels
    score: np.ndarray  # float64 [boxes]; 0 for true boxes
    crowd: np.ndarray  # bool [boxes]; False for drawn boxes

    def some(self, which: np.ndarray) -> "Boxes":
        """Selects boxes by indices or by a mask."""
        return Boxes(*(column[which] for column in self))


class Matches(NamedTuple):
    """A category's drawn boxes by descending score, as pycocotools matches them at IoU 0.50, 0.55, ... 0.95."""

    category: int
    image: np.ndarray  # int64 [boxes], the image of each
    hit: np.ndarray  # bool [10, boxes], whether a box matches a true box
    miss: np.ndarray  # bool [10, boxes], whether it matches nothing; a match with a crowd is neither
    true_image: np.ndarray  # int64 [true boxes], the images of the true boxes, without crowds


class Precision(NamedTuple):
    """Figures in percent for each row of weights; NaN if no image with a true box has a weight."""

    ap: np.ndarray  # float64 [rows], a mean over the categories that have a true box on an image with a weight
    ap50: np.ndarray  # likewise
    ar: np.ndarray  # likewise
    ap50_of: np.ndarray  # float64 [rows, categories], in the order of the matches


def match_boxes(true: Boxes, drawn: Boxes) -> list[Matches]:
    """Matches drawn boxes with true ones: one `Matches` for each category that has a true box, sorted by index."""
    from pycocotools.cocoeval import COCOeval

    found = []
    images_of: defaultdict[int, set[int]] = defaultdict(set)  # by category
    for boxes in (true, drawn):
        for image, category in zip(boxes.image.tolist(), boxes.category.tolist(), strict=True):
            images_of[category].add(image)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = COCOeval(_coco(true), _coco(drawn), "bbox")
        evaluation.params.maxDets = [MOST]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        for category in np.unique(true.category).tolist():
            # One category at a time, on its own images: pycocotools visits every pair of an image and a category.
            evaluation.params.catIds = [category + 1]
            evaluation.params.imgIds = [image + 1 for image in sorted(images_of[category])]
            evaluation.evaluate()
            matches = _sorted_matches(category, [each for each in evaluation.evalImgs if each is not None])
            if len(matches.true_image):
                found.append(matches)
    return found


def precision(matches: Sequence[Matches], weights: np.ndarray) -> Precision:
    """Computes COCO's figures for each row of image weights, [rows, images].

    Weights of 1 give what COCOeval.accumulate gives for all areas and MOST boxes.
    """
    of_categories = [_of_category(each, weights) for each in matches]
    ap, recall = (np.stack(figures, axis=1) for figures in zip(*of_categories, strict=True))
    with np.errstate(invalid="ignore"):  # a row without any true box
        defined = (~np.isnan(recall[:, :, 0])).sum(axis=1)
        mean_ap, mean_recall = (np.nansum(figures, axis=1) / defined[:, None] for figures in (ap, recall))
    return Precision(100 * mean_ap.mean(axis=1), 100 * mean_ap[:, 0], 100 * mean_recall.mean(axis=1), 100 * ap[:, :, 0])


def _of_category(matches: Matches, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and the highest recall of one category for each row of weights and IoU: [rows, 10] each."""
    rows = max(1, _CELLS // max(1, len(matches.image)))
    chunks = [_accumulated(matches, weights[start : start + rows]) for start in range(0, len(weights), rows)]
    ap, recall = (np.concatenate(of_chunks) for of_chunks in zip(*chunks, strict=True))
    return ap, recall


def _accumulated(matches: Matches, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true = weights[:, matches.true_image].sum(axis=1)
    ap, recall = np.zeros((2, len(weights), len(matches.hit)))
    of_box = weights[:, matches.image]
    all_boxes = np.cumsum(of_box, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # no image with a true box has a weight
        for level, (hit, miss) in enumerate(zip(matches.hit, matches.miss, strict=True)):
            places = np.flatnonzero(hit)
            if not len(places):
                continue
            # Between two hits precision falls and recall stays, so only hits matter.
            hits = np.cumsum(of_box[:, places], axis=1)
            counted = hit | miss
            boxes = all_boxes if counted.all() else np.cumsum(of_box * counted, axis=1)
            at = hits / (boxes[:, places] + np.spacing(1))
            at = np.maximum.accumulate(at[:, ::-1], axis=1)[:, ::-1]
            # A recall level takes the precision of the first box that reaches it; a box may be the first for several.
            reached = _recalls_reached(hits / np.where(true > 0, true, 1)[:, None])
            ap[:, level] = (at * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)
            recall[:, level] = hits[:, -1]
        recall /= true[:, None]
    return np.where(true[:, None] > 0, ap, np.nan), recall


def _recalls_reached(recall: np.ndarray) -> np.ndarray:
    """How many of _RECALLS each recall reaches: intp, same shape. Three times as fast as a binary search."""
    nearest = np.rint(recall * (len(_RECALLS) - 1)).astype(np.intp)
    return nearest + (_RECALLS[nearest] <= recall)


def _sorted_matches(category: int, of_images: Sequence[Mapping[str, Any]]) -> Matches:
    """Joins the evaluated images as COCOeval.accumulate does: by descending score, equal scores in order of images."""
    scores = np.concatenate([each["dtScores"] for each in of_images])
    order = np.argsort(-scores, kind="mergesort")
    image = np.repeat([each["image_id"] - 1 for each in of_images], [len(each["dtScores"]) for each in of_images])
    matched, ignored = (
        np.concatenate([each[name] for each in of_images], axis=1)[:, order].astype(bool)
        for name in ("dtMatches", "dtIgnore")
    )
    true = [int((np.asarray(each["gtIgnore"]) == 0).sum()) for each in of_images]
    return Matches(
        category,
        image[order].astype(np.int64),
        matched & ~ignored,
        ~matched & ~ignored,
        np.repeat([each["image_id"] - 1 for each in of_images], true).astype(np.int64),
    )


def _coco(boxes: Boxes) -> Any:
    """Converts boxes for pycocotools. Ids count from 1: pycocotools takes a match with id 0 for no match."""
    from pycocotools.coco import COCO

    annotations = [
        {
            "id": number,
            "image_id": image + 1,
            "category_id": category + 1,
            "bbox": bbox,
            "area": bbox[2] * bbox[3],
            "score": score,
            "iscrowd": int(crowd),
        }
        for number, (image, category, bbox, score, crowd) in enumerate(
            zip(*(column.tolist() for column in boxes), strict=True), start=1
        )
    ]
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image + 1} for image in sorted(set(boxes.image.tolist()))],
        "categories": [{"id": category + 1} for category in sorted(set(boxes.category.tolist()))],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco
