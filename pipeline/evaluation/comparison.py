"""Compares two judged runs: how large is each difference, and could it be chance?

The bootstrap is paired: each resample draws the same images for both runs, so that an image that is hard for both does
not blur the difference. A p-value is twice the smaller share of resamples on either side of 0. Nothing corrects it for
the number of figures and classes.
"""

from typing import NamedTuple

import numpy as np

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation import figures
from camboxes.pipeline.evaluation.average_precision import match_boxes
from camboxes.pipeline.evaluation.judging import Judged
from camboxes.pipeline.evaluation.resampling import Estimate, bootstrap, estimates

FEWEST_PAIRS = 5  # of a category whose difference is reported


class Shared(NamedTuple):
    """Two runs restricted to what they share: the same images, categories and pairs in the same order."""

    first: Judged
    second: Judged
    images: list[str]  # the ground truth's paths of the images
    left_out: list[dict[str, int]]  # for each run, how many images, categories and pairs only that run has


class Difference(NamedTuple):
    """One figure of both runs, in percent."""

    first: float | None  # of the first run; None if there is nothing to judge
    second: float | None  # likewise
    difference: Estimate  # second minus first, with its interval
    p: float | None  # two-sided, at least 1 / resamples; None if the difference is not defined

    @property
    def told_apart(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.difference.low, self.difference.high
        return low is not None and high is not None and (low > 0 or high < 0)


class Comparison(NamedTuple):
    """Differences between two runs.

    AP and AR count every box of the shared images and categories, including boxes of a label that only one run has.

    Attributes:
      shared: both runs, restricted to what they share.
      figures: the headline figures by name: `figures["ap"].difference.value`, `.low` and `.high`.
      classes: by category name the number of pairs and GT-known Loc at IoU 0.5, of categories with at least
        FEWEST_PAIRS pairs; the largest differences first.
      both_right, first_right, second_right, neither_right: number of pairs whose box reaches IoU 0.5 in both runs, in
        one run only, or in neither.
    """

    shared: Shared
    figures: dict[str, Difference]
    classes: dict[str, tuple[int, Difference]]
    both_right: int
    first_right: int
    second_right: int
    neither_right: int


def shared_part(first: Judged, second: Judged) -> Shared:
    """Restricts two runs to the images, categories and pairs that both judge.

    Two images are the same if they match the same image of the ground truth.

    Raises:
      CallError: they share no pair.
    """
    own_paths = [{each.matching.truths[path].path: path for path in each.paths} for each in (first, second)]
    images = [path for path in own_paths[0] if path in own_paths[1]]
    categories = sorted(set(first.matching.categories) & set(second.matching.categories))
    places = {path: place for place, path in enumerate(images)}
    pairs = [_pairs(each) for each in (first, second)]
    common = sorted(pairs[0].keys() & pairs[1].keys(), key=lambda pair: (places[pair[0]], pair[1]))
    if not common:
        raise CallError(
            f"the two runs share {len(images)} judged images, {len(categories)} judged categories, and no pair of an "
            "image and a label with a true box; expected runs over the same photographs with the same labels"
        )
    one, two = (
        each.restricted([own[path] for path in images], categories, np.array([of[pair] for pair in common]))
        for each, own, of in zip((first, second), own_paths, pairs, strict=True)
    )
    left_out = [
        {
            "images": len(each.paths) - len(images),
            "categories": len(each.matching.categories) - len(categories),
            "pairs": len(each.image) - len(common),
        }
        for each in (first, second)
    ]
    return Shared(one, two, images, left_out)


def _pairs(judged: Judged) -> dict[tuple[str, str], int]:
    """The index of each pair, by the ground truth's path and the category's name."""
    paths = [judged.matching.truths[path].path for path in judged.paths]
    pairs = zip(judged.image.tolist(), judged.category.tolist(), strict=True)
    return {(paths[image], judged.categories[category]): number for number, (image, category) in enumerate(pairs)}


def compare_shared(both: Shared) -> Comparison:
    """Compares two runs, with intervals from a paired bootstrap over their images."""
    runs, true = (both.first, both.second), figures.true_boxes(both.first)
    matches = [match_boxes(true, run.detections) for run in runs]

    def of_own_boxes(weights: np.ndarray) -> np.ndarray:
        """LOCALIZATION, then GT-known Loc at IoU 0.5 of each category: [rows, runs, figures]."""
        found = [figures.localization(run, weights) for run in runs]
        return np.stack([np.concatenate([of.overall, of.gt_known_50], axis=1)[:, :, 0] for of in found], axis=1)

    def of_all_boxes(weights: np.ndarray) -> np.ndarray:
        """DETECTION: [rows, runs, figures]."""
        return figures.detection(matches, weights).overall.swapaxes(1, 2)

    localized = differences(*bootstrap(of_own_boxes, both.images, figures.RESAMPLES, len(both.first.image)))
    detected = differences(*bootstrap(of_all_boxes, both.images, figures.RESAMPLES_OF_DETECTION))
    overall, of_classes = localized[: len(figures.LOCALIZATION)], localized[len(figures.LOCALIZATION) :]
    by_name = dict(zip((*figures.LOCALIZATION, *figures.DETECTION), [*overall, *detected], strict=True))
    numbers, counts = np.unique(both.first.category, return_counts=True)
    classes = {
        both.first.categories[number]: (count, of_class)
        for number, count, of_class in zip(numbers.tolist(), counts.tolist(), of_classes, strict=True)
        if count >= FEWEST_PAIRS
    }
    first, second = both.first.iou >= 0.5, both.second.iou >= 0.5
    return Comparison(
        shared=both,
        figures={name: by_name[name] for name in figures.HEADLINE},
        classes=dict(sorted(classes.items(), key=lambda item: (-abs(item[1][1].difference.value or 0.0), item[0]))),
        both_right=int((first & second).sum()),
        first_right=int((first & ~second).sum()),
        second_right=int((~first & second).sum()),
        neither_right=int((~first & ~second).sum()),
    )


def differences(values: np.ndarray, samples: np.ndarray) -> list[Difference]:
    """Differences of several figures, in percent: of [runs, figures], with resamples [resamples, runs, figures].

    A figure that is not defined is NaN; a resample in which it is NaN is left out.
    """
    between, found = samples[:, 1] - samples[:, 0], []
    for number, estimate in enumerate(estimates(values[1] - values[0], between)):
        first, second = (None if np.isnan(value) else float(value) for value in values[:, number])
        sample = between[~np.isnan(between[:, number]), number]
        p = None
        if estimate.low is not None:
            p = min(1.0, max(2 * min((sample <= 0).mean(), (sample >= 0).mean()), 1 / len(sample)))
        found.append(Difference(first, second, estimate, None if p is None else float(p)))
    return found
