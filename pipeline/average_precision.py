"""COCO's AP and AR with a weight for each image, so that a bootstrap costs no second evaluation.

Boxes are matched once, as pycocotools matches them, but those of all images and categories together. Its precision
and recall are then accumulated with weighted counts: at weight 1 that is its own value, and an image of weight 2 counts
like two images, one of weight 0 not at all.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from camboxes.transforms.boxes import intersection, iou

MOST = 100  # boxes of a category on an image that count, COCO's maxDets

_IOUS = np.linspace(0.5, 0.95, 10)  # COCO's iouThrs
_RECALLS = np.linspace(0, 1, 101)  # COCO's recThrs
_CELLS = 2**21  # of one array while accumulating: 16 MiB


class Boxes(NamedTuple):
    """Boxes, true or drawn; indices of images and categories are from 0.

    Attributes:
      image, category: int64 [boxes].
      bbox: float64 [boxes, 4], x, y, width, height.
      score: float64 [boxes]; 0 of true boxes.
      crowd: bool [boxes]; False of drawn boxes.
    """

    image: np.ndarray
    category: np.ndarray
    bbox: np.ndarray
    score: np.ndarray
    crowd: np.ndarray


class Matches(NamedTuple):
    """A category's drawn boxes by descending score, matched at IoU 0.50, 0.55, ... 0.95.

    Attributes:
      category: its index.
      image: int64 [boxes].
      hit, miss: bool [10, boxes], whether a box found a true one, or none; neither where it found a crowd.
      true_image: int64 [true boxes], the images of the true boxes without crowds.
    """

    category: int
    image: np.ndarray
    hit: np.ndarray
    miss: np.ndarray
    true_image: np.ndarray


class Precision(NamedTuple):
    """Figures in percent, for each row of weights; NaN where no image with a true box has a weight.

    Attributes:
      ap, ap50, ar: float64 [rows], means over the categories that have a true box there.
      ap50_of: float64 [rows, categories], in the order of the matches.
    """

    ap: np.ndarray
    ap50: np.ndarray
    ar: np.ndarray
    ap50_of: np.ndarray


def match_boxes(true: Boxes, drawn: Boxes) -> list[Matches]:
    """Matches drawn boxes with true ones, for each category that has a true box, in the order of their indices."""
    images = 1 + max(boxes.image.max(initial=-1) for boxes in (true, drawn))
    true, drawn = (_sorted(boxes, [-boxes.score, boxes.image, boxes.category]) for boxes in (true, drawn))
    pairs, true_pairs = (boxes.category * images + boxes.image for boxes in (drawn, true))
    place = np.arange(len(pairs)) - np.searchsorted(pairs, pairs)  # of a box among those of its image and category
    kept = place < MOST
    drawn, pairs, place = Boxes(*(column[kept] for column in drawn)), pairs[kept], place[kept]
    candidates = np.stack([np.searchsorted(true_pairs, pairs, side=side) for side in ("left", "right")], axis=1)
    hit, miss = _matched(true, drawn, place, candidates)
    order = np.lexsort([-drawn.score, drawn.category])  # equals in the order of images
    drawn, hit, miss = Boxes(*(column[order] for column in drawn)), hit[:, order], miss[:, order]
    to_find = Boxes(*(column[~true.crowd] for column in true))
    found = []
    for category in np.unique(to_find.category).tolist():
        of_drawn, of_true = (
            slice(*np.searchsorted(boxes.category, [category, category + 1])) for boxes in (drawn, to_find)
        )
        found.append(
            Matches(category, drawn.image[of_drawn], hit[:, of_drawn], miss[:, of_drawn], to_find.image[of_true])
        )
    return found


def precision(matches: Sequence[Matches], weights: np.ndarray) -> Precision:
    """COCO's figures for each row of image weights, [rows, images].

    Weights of 1 give what COCOeval.accumulate gives for all areas and MOST boxes.
    """
    of_categories = [_of_category(each, weights) for each in matches]
    ap, recall = (np.stack(figures, axis=1) for figures in zip(*of_categories, strict=True))
    with np.errstate(invalid="ignore"):  # of a row without any true box
        defined = (~np.isnan(recall[:, :, 0])).sum(axis=1)
        mean_ap, mean_recall = (np.nansum(figures, axis=1) / defined[:, None] for figures in (ap, recall))
    return Precision(100 * mean_ap.mean(axis=1), 100 * mean_ap[:, 0], 100 * mean_recall.mean(axis=1), 100 * ap[:, :, 0])


def _of_category(matches: Matches, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and the highest recall of one category by row of weights and IoU: [rows, 10] each."""
    rows = max(1, _CELLS // max(1, len(matches.image)))
    chunks = [_accumulated(matches, weights[start : start + rows]) for start in range(0, len(weights), rows)]
    ap, recall = (np.concatenate(of_chunks) for of_chunks in zip(*chunks, strict=True))
    return ap, recall


def _accumulated(matches: Matches, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true = weights[:, matches.true_image].sum(axis=1)
    ap, recall = np.zeros((2, len(weights), len(matches.hit)))
    of_box = weights[:, matches.image]
    all_boxes = np.cumsum(of_box, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # where no image with a true box has a weight
        for level, (hit, miss) in enumerate(zip(matches.hit, matches.miss, strict=True)):
            places = np.flatnonzero(hit)
            if not len(places):
                continue
            # Between two hits precision only falls, and recall stays: hits alone count.
            hits = np.cumsum(of_box[:, places], axis=1)
            counted = hit | miss
            boxes = all_boxes if counted.all() else np.cumsum(of_box * counted, axis=1)
            at = hits / (boxes[:, places] + np.spacing(1))
            at = np.maximum.accumulate(at[:, ::-1], axis=1)[:, ::-1]
            # At each recall counts the precision of the first box that reaches it: a box as often as recalls are new.
            reached = _recalls_reached(hits / np.where(true > 0, true, 1)[:, None])
            ap[:, level] = (at * np.diff(reached, axis=1, prepend=0)).sum(axis=1) / len(_RECALLS)
            recall[:, level] = hits[:, -1]
        recall /= true[:, None]
    return np.where(true[:, None] > 0, ap, np.nan), recall


def _recalls_reached(recall: np.ndarray) -> np.ndarray:
    """How many of _RECALLS are not above each recall: intp, of its shape; in a third of a binary search's time."""
    nearest = np.rint(recall * (len(_RECALLS) - 1)).astype(np.intp)
    return nearest + (_RECALLS[nearest] <= recall)


def _sorted(boxes: Boxes, keys: Sequence[np.ndarray]) -> Boxes:
    """By the last key, then the one before, and so on; equals in the order that they have."""
    order = np.lexsort(keys)
    return Boxes(*(column[order] for column in boxes))


def _matched(true: Boxes, drawn: Boxes, place: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Box after box, by descending score, takes the true box of highest IoU that is left, as in pycocotools.

    Args:
      true: sorted by category and image.
      drawn: likewise, then by descending score.
      place: int [boxes], of a drawn box among those of its image and category: the first of all pairs choose together,
        then the second of all, and so on.
      candidates: int [boxes, 2], where the true boxes of its image and category begin and end.

    Returns:
      hit and miss of `Matches`, bool [10, boxes].
    """
    hit, in_crowd = np.zeros((2, len(place), len(_IOUS)), bool)
    left = np.repeat(~true.crowd[:, None], len(_IOUS), axis=1)
    counts = candidates[:, 1] - candidates[:, 0]
    for number in range(place.max(initial=-1) + 1):
        choosing = np.flatnonzero((place == number) & (counts > 0))
        if not len(choosing):
            continue
        begins = np.cumsum(counts[choosing]) - counts[choosing]
        box = np.repeat(np.arange(len(choosing)), counts[choosing])
        rows = np.arange(len(box))
        candidate = candidates[choosing, 0][box] + rows - begins[box]
        crowd = true.crowd[candidate]
        share = _share(drawn.bbox[choosing][box], true.bbox[candidate], crowd)
        reached = share[:, None] >= _IOUS
        in_crowd[choosing] = np.logical_or.reduceat(reached & crowd[:, None], begins)
        free = np.where(reached & left[candidate], share[:, None], 0)
        best = np.maximum.reduceat(free, begins)
        hit[choosing] = best > 0
        taken = np.where((free > 0) & (free == best[box]), rows[:, None], -1)
        taken = np.maximum.reduceat(taken, begins)  # among equals the last
        chosen, level = np.nonzero(taken >= 0)
        left[candidate[taken[chosen, level]], level] = False
    return hit.T, ~(hit | in_crowd).T


def _share(drawn: np.ndarray, true: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU, box by box of [boxes, 4] each: float64 [boxes]; of a crowd the share of the drawn box that lies in it."""
    return np.where(crowd, intersection(drawn, true) / drawn[:, 2:].prod(axis=1), iou(drawn, true))
