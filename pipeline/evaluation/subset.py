"""Selects a part of what was judged: given pairs in a given order, or a stable sample of the images."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from camboxes.pipeline import sampling
from camboxes.pipeline.evaluation.judging import Judged

_OF_PAIRS = ("image", "category", "iou", "score", "raw_score", "calibrated", "centre", "whole", "top1", "top5")


def restricted(judged: Judged, paths: Sequence[str], categories: Sequence[str], pairs: np.ndarray) -> Judged:
    """Keeps some images, categories and pairs, in the given order.

    A box is kept if its image and its category are, whether or not their pair is. The left-out lists of `matching` are
    not counted again.

    Args:
      judged: a judged run.
      paths: the images to keep.
      categories: the names to keep.
      pairs: int64 [pairs], indices of the pairs to keep; their images and categories must be kept.
    """
    places = {path: place for place, path in enumerate(judged.paths)}
    numbers = {name: number for number, name in enumerate(judged.categories)}
    images_kept = np.array([places[path] for path in paths], np.int64)
    categories_kept = np.array([numbers[name] for name in categories], np.int64)
    image, category = np.full(len(places), -1), np.full(len(numbers), -1)  # new indices
    image[images_kept] = np.arange(len(paths))
    category[categories_kept] = np.arange(len(categories))
    columns = {name: getattr(judged, name)[pairs] for name in _OF_PAIRS}
    columns |= {"image": image[columns["image"]], "category": category[columns["category"]]}
    boxes = judged.detections._replace(
        image=image[judged.detections.image], category=category[judged.detections.category]
    )
    kept = np.flatnonzero((boxes.image >= 0) & (boxes.category >= 0))
    kept = kept[np.argsort(boxes.image[kept], kind="stable")]
    matching = dataclasses.replace(
        judged.matching,
        truths={path: judged.matching.truths[path] for path in paths},
        categories=sorted(set(judged.matching.categories) & set(categories)),
    )
    return Judged(
        categories=list(categories),
        paths=list(paths),
        sizes=judged.sizes[images_kept],
        **columns,
        detections=boxes.some(kept),
        matching=matching,
        settings=judged.settings,
    )


def sampled(judged: Judged, most: int) -> Judged:
    """Keeps at most `most` of the images that have a pair, by the rule of `pipeline.sampling`.

    If there are no more than `most`, returns `judged` unchanged.
    """
    with_pairs = np.unique(judged.image).tolist()
    if len(with_pairs) <= most:
        return judged
    chosen = sorted(sampling.first(with_pairs, most, judged.paths.__getitem__))
    pairs = np.flatnonzero(np.isin(judged.image, chosen))
    return restricted(judged, [judged.paths[place] for place in chosen], judged.categories, pairs)
