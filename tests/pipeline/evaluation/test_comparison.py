import numpy as np
import pytest

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation import figures
from camboxes.pipeline.evaluation.average_precision import Boxes
from camboxes.pipeline.evaluation.comparison import (
    Difference,
    compare_shared,
    differences,
    shared_part,
)
from camboxes.pipeline.evaluation.judging import Judged
from camboxes.pipeline.evaluation.matching import Matching
from camboxes.pipeline.evaluation.resampling import Estimate
from camboxes.pipeline.formats.ground_truth import TrueImage

CAT, DOG = "cat", "dog"
SQUARE = [0, 0, 10, 10]


def make(pairs, root="", categories=(CAT, DOG)):
    """A judged run over images of 10 x 10 pixels, each pair with one true box, all of the image.

    Args:
      pairs: by the ground truth's path and a label, the height of the box in pixels: ten times its IoU.
      root: what the run's paths have before the ground truth's.
      categories: names in the order of the run's ids.
    """
    images = list(dict.fromkeys(path for path, _ in pairs))
    truths = {root + path: TrueImage(path, 10, 10, {}, {}) for path in images}
    for path, label in pairs:
        truths[root + path].boxes[label] = np.array([SQUARE], float)
    iou = np.array(list(pairs.values())) / 10
    image = np.array([images.index(path) for path, _ in pairs])
    category = np.array([categories.index(label) for _, label in pairs])
    score = np.linspace(0.9, 0.1, len(pairs))
    return Judged(
        categories=list(categories),
        paths=list(truths),
        sizes=np.full((len(images), 2), 10),
        image=image,
        category=category,
        iou=iou,
        score=score,
        raw_score=score,
        calibrated=np.full(len(iou), np.nan),
        centre=np.full(len(iou), 0.64),
        whole=np.ones(len(iou)),
        top1=np.ones(len(iou), bool),
        top5=np.ones(len(iou), bool),
        detections=Boxes(
            image, category, np.array([[0, 0, 10, 10 * each] for each in iou]), score, np.zeros(len(score), bool)
        ),
        matching=Matching(truths, sorted(categories), [], [], [], [], [], [], [], []),
        settings={},
    )


FIRST = {("a", CAT): 9, ("b", CAT): 4, ("b", DOG): 6, ("c", DOG): 8}


def test_what_two_runs_share():
    first = make({**FIRST, ("d", CAT): 1})
    second = make({("e", CAT): 2, ("c", DOG): 1, ("b", DOG): 2, ("a", CAT): 3}, "photos/", (DOG, CAT, "owl"))
    both = shared_part(first, second)
    assert both.images == ["a", "b", "c"]
    assert both.first.paths == ["a", "b", "c"]
    assert both.second.paths == ["photos/a", "photos/b", "photos/c"]
    assert both.first.categories == both.second.categories == [CAT, DOG]
    for each in (both.first, both.second):
        assert each.image.tolist() == [0, 1, 2]
        assert each.category.tolist() == [0, 1, 1]
    assert both.first.iou.tolist() == [0.9, 0.6, 0.8]
    assert both.second.iou.tolist() == [0.3, 0.2, 0.1]
    assert both.left_out == [{"images": 1, "categories": 0, "pairs": 2}, {"images": 1, "categories": 1, "pairs": 1}]
    assert len(both.first.detections.score) == 4, "the cat of b has a box in one run, which AP counts"


def test_nothing_shared():
    with pytest.raises(CallError, match="share 0 judged images, 2 judged categories, and no pair of an image"):
        shared_part(make({("a", CAT): 5}), make({("b", CAT): 5}))
    with pytest.raises(CallError, match="share 1 judged images"):
        shared_part(make({("a", CAT): 5}), make({("a", DOG): 5}))


def test_figures_by_hand():
    second = {("a", CAT): 9, ("b", CAT): 6, ("b", DOG): 3, ("c", DOG): 9}
    found = compare_shared(shared_part(make(FIRST), make(second)))
    assert list(found.figures) == [
        *("gt_known_30", "gt_known_50", "gt_known_70", "top1_error", "top5_error", "corloc", "mean_iou"),
        *("ap", "ap50", "ar"),
    ]

    def values(name):
        of = found.figures[name]
        return pytest.approx((of.first, of.second, of.difference.value))

    assert values("gt_known_50") == (75, 75, 0)
    assert values("gt_known_70") == (50, 50, 0)
    assert values("mean_iou") == (67.5, 67.5, 0)
    assert values("corloc") == (75, 75, 0)
    # By scores 0.9, 0.63, 0.37, 0.1: cats right and wrong (AP50 51 / 101) in run 1, both right in run 2; of the dogs
    # both right in run 1, wrong and right (precision a half up to recall a half) in run 2.
    assert values("ap50") == (
        100 * (51 / 101 + 1) / 2,
        100 * (1 + 51 / 101 / 2) / 2,
        -100 * 51 / 101 / 4,
    )
    # At ten levels of IoU: cats 9 + 0 and dogs 3 + 7 of 20 hits in run 1; 9 + 3 and 0 + 9 in run 2.
    assert values("ar") == (47.5, 52.5, 5)
    assert (found.both_right, found.first_right, found.second_right, found.neither_right) == (2, 1, 1, 0)
    assert found.classes == {}, "none has five pairs"


def test_two_runs_are_drawn_together():
    """Images differ much, the runs always by 10 points: there is no doubt about the difference."""
    heights = {(f"{number}", CAT): 1 + number % 8 for number in range(40)}
    one, two = make(heights), make({pair: height + 1 for pair, height in heights.items()})
    mean = compare_shared(shared_part(one, two)).figures["mean_iou"]
    assert mean.difference == Estimate(*[pytest.approx(10)] * 3)
    assert mean.p == 1 / figures.RESAMPLES
    assert mean.told_apart
    same = compare_shared(shared_part(one, make(heights))).figures
    assert all(of.difference == Estimate(0, 0, 0) and of.p == 1 and not of.told_apart for of in same.values())
    turned = make(dict(reversed(heights.items())))
    assert compare_shared(shared_part(two, turned)).figures["mean_iou"].difference.high == pytest.approx(-10)


def test_classes_with_enough_pairs_by_size_of_their_difference():
    pairs = {(f"{number}", CAT): 6 for number in range(5)} | {(f"{number}", DOG): 6 for number in range(3, 10)}
    pairs |= {(f"{number}", "owl"): 6 for number in range(4)} | {(f"{number}", "emu"): 2 for number in range(5)}
    names = (CAT, DOG, "emu", "owl")
    worse = {pair: 1 if pair in (("0", CAT), ("3", DOG), ("4", DOG)) else height for pair, height in pairs.items()}
    found = compare_shared(shared_part(make(pairs, "", names), make(worse, "", names)))
    assert list(found.classes) == [DOG, CAT, "emu"], "owls have four pairs"
    count, dogs = found.classes[DOG]
    assert (count, dogs.first) == (7, 100)
    assert (dogs.second, dogs.difference.value) == pytest.approx((500 / 7, -200 / 7))
    assert found.classes["emu"][1].difference == Estimate(0, 0, 0)


def test_p_is_twice_the_smaller_share_on_either_side():
    first = np.zeros((10, 4))
    second = np.stack([[-1] * 2 + [1] * 8, [1] * 10, [-1] * 4 + [0] * 3 + [1] * 3, [np.nan] * 6 + [-1] * 4], axis=1)
    values = np.array([[1.0, 1.0, 1.0, np.nan], [3.0, 3.0, 1.0, 1.0]])
    some, all_above, ties, undefined = differences(values, np.stack([first, second], axis=1))
    assert (some.first, some.second, some.difference.value, some.p) == (1, 3, 2, 0.4)
    assert not some.told_apart
    assert (all_above.p, all_above.told_apart) == (0.1, True), "never below 1 / resamples"
    assert ties.p == 1, "where 0 itself is on both sides, not above 1"
    assert undefined == Difference(None, 1, Estimate(None, None, None), None)
    [partly] = differences(np.array([[1.0], [0.0]]), np.stack([first, second], axis=1)[:, :, 3:])
    assert (partly.p, partly.told_apart) == (0.25, True), "of the four resamples that have the figure"
