import dataclasses

import numpy as np
import pytest

from camboxes.pipeline.evaluation import figures, resampling
from camboxes.pipeline.evaluation.average_precision import Boxes, match_boxes
from camboxes.pipeline.evaluation.figures import (
    BestThresholds,
    Figure,
    compute_figures,
    known_at_best,
    localization,
    true_boxes,
)
from camboxes.pipeline.evaluation.matching import Matching
from camboxes.pipeline.evaluation.redrawing import Redrawn
from camboxes.pipeline.evaluation.resampling import Estimate
from camboxes.pipeline.formats.ground_truth import TrueImage
from camboxes.transforms.wsol import metrics

# Three images of 10 x 10 pixels. Two pairs of cats (IoU 0.9 and 0.4), one of a dog (0.6) on the second image; on the
# third the run was not asked for the dog that is there. The cat of the second image has no box at the second threshold.
IOU = np.array([0.9, 0.4, 0.6])
AT = np.array([[0.2, 0.5, 0.8], [0.8, 0.4, 0.0], [0.6, 0.5, 0.3]], np.float32)
CAT, DOG = 0, 2


def _literature(correct):
    """Points of the curves: `correct` [2 rules, 3 IoUs] at the first threshold of two, one image less at the second."""
    counts = np.stack([correct, np.array(correct) - 1], axis=2)
    return metrics.BoxCounts(0.5, 3, counts)


@pytest.fixture
def judged():
    images = {
        "a.jpg": TrueImage("a.jpg", 10, 10, {"cat": np.array([[0, 0, 10, 9.0]])}, {}),
        "b.jpg": TrueImage(
            "b.jpg", 10, 10, {"cat": np.array([[0, 0, 5, 5.0]]), "dog": np.array([[0, 0, 6, 10.0]])}, {}
        ),
        "c.jpg": TrueImage(
            "c.jpg",
            10,
            10,
            {"dog": np.array([[1, 1, 8, 8.0]]), "owl": np.ones((1, 4))},
            {"cat": np.array([[0, 0, 9, 9.0]])},
        ),
    }
    return Redrawn(
        categories=["cat", "cow", "dog"],
        paths=list(images),
        sizes=np.full((3, 2), 10),
        image=np.array([0, 1, 1]),
        category=np.array([CAT, CAT, DOG]),
        iou=IOU,
        score=np.array([0.9, 0.8, 0.7]),
        raw_score=np.array([0.9, 0.8, 0.7]),
        calibrated=np.full(3, np.nan),
        centre=np.array([0.5, 0.1, 0.2]),
        whole=np.array([0.9, 0.25, 0.6]),
        top1=np.array([True, True, False]),
        top5=np.array([True, True, True]),
        thresholds=np.array([0.2, 0.4, 0.6]),
        otsu_shares=np.array([1.0]),
        iou_at=AT,
        iou_at_otsu=AT[:, :1],
        literature=_literature([[3, 2, 1], [3, 3, 2]]),
        detections=Boxes(
            np.array([0, 1, 1, 1]),
            np.array([CAT, CAT, DOG, DOG]),
            np.array([[0, 0, 10, 10], [0, 0, 5, 2], [0, 0, 10, 10], [0, 0, 6, 10.0]]),
            np.array([0.9, 0.8, 0.7, 0.6]),
            np.zeros(4, bool),
        ),
        matching=Matching(images, ["cat", "cow", "dog"], [], [], [], [], [], [], [], []),
        settings={},
    )


def _named(values):
    return dict(zip(figures.LOCALIZATION, values.T.tolist(), strict=True))


def test_localization_by_hand(judged):
    found = localization(judged, np.ones((1, 3)))
    by_name = _named(found.overall[0].T)
    third = 100 / 3
    expected = {  # of the run, the centred box, the whole image
        "gt_known_30": (100, third, 2 * third),
        "gt_known_50": (2 * third, third, 2 * third),
        "gt_known_70": (third, 0, third),
        "top1_loc": (third, third, third),
        "top1_error": (2 * third, 2 * third, 2 * third),
        "top5_loc": (2 * third, third, 2 * third),
        "top5_error": (third, 2 * third, third),
        "corloc": (75, 25, 75),  # of the cats a half, all dogs
        "mean_iou": (100 * 1.9 / 3, 100 * 0.8 / 3, 100 * 1.75 / 3),
    }
    assert list(by_name) == list(expected)
    for name, values in expected.items():
        assert by_name[name] == pytest.approx(values), name
    assert found.gt_known_50[0].tolist() == [pytest.approx([50, 50, 50]), pytest.approx([100, 0, 100])]
    assert found.mean_iou[0, :, 0].tolist() == pytest.approx([65, 60])


def test_weights_count_images(judged):
    found = localization(judged, np.array([[3, 0, 0], [1, 2, 0], [0, 0, 3.0]]))
    known_50, corloc, mean = (
        found.overall[:, figures.LOCALIZATION.index(n), 0] for n in ("gt_known_50", "corloc", "mean_iou")
    )
    # The second row: the first pair once, the other two twice.
    assert known_50.tolist() == pytest.approx([100, 60, np.nan], nan_ok=True)
    assert corloc.tolist() == pytest.approx([100, (100 / 3 + 100) / 2, np.nan], nan_ok=True)
    assert mean.tolist() == pytest.approx([90, 100 * (0.9 + 0.8 + 1.2) / 5, np.nan], nan_ok=True)
    assert found.gt_known_50[:, 1, 0].tolist() == pytest.approx([np.nan, 100, np.nan], nan_ok=True)


def test_the_best_threshold_is_chosen_for_each_row(judged):
    # Correct pairs at 0.3: 2, 3, 2 of the thresholds; at 0.5: 2, 2, 1; at 0.7: 1, 0, 1.
    assert known_at_best(judged, np.ones((1, 3))).tolist() == [pytest.approx([100, 200 / 3, 100 / 3])]
    assert known_at_best(judged, np.array([[1, 0, 0], [0, 1, 0.0]])).tolist() == [[100, 100, 100], [100, 100, 50]]


def test_evaluation_by_hand(judged):
    found = compute_figures(judged, judged)
    best = found.best
    assert isinstance(best, BestThresholds)
    assert best.threshold == [0.4, 0.2, 0.2], "the lowest among equals"
    assert [figure.run.value for figure in best.gt_known] == pytest.approx([100, 200 / 3, 100 / 3])
    assert [figure.whole for figure in best.gt_known] == [
        found.figures[name].whole for name in ("gt_known_30", "gt_known_50", "gt_known_70")
    ]
    assert best.v2.run.value == pytest.approx(200 / 3)
    assert best.v2.centre.value == pytest.approx(200 / 9)
    assert best.max_box_acc == pytest.approx(200 / 3)
    assert best.max_box_acc_v2 == pytest.approx(800 / 9)
    assert best.literature_threshold == [0, 0, 0]
    assert best.images == 3


def test_best_thresholds_of_a_sample(judged):
    part = judged.restricted(["b.jpg"], judged.categories, np.array([1, 2]))
    redrawn = Redrawn(
        **vars(part),
        thresholds=judged.thresholds,
        otsu_shares=judged.otsu_shares,
        iou_at=AT[1:],
        iou_at_otsu=AT[1:, :1],
        literature=_literature([[3, 2, 1], [3, 3, 2]]),
    )
    found = compute_figures(judged, redrawn)
    assert found.figures == compute_figures(judged, judged).figures
    best = found.best
    assert best.images == 1
    # Of these two pairs 2, 2, 1 are correct at 0.3; 2, 1, 0 at 0.5; 1, 0, 0 at 0.7. The whole image has IoU 0.25, 0.6.
    assert best.threshold == [0.2, 0.2, 0.2]
    assert [figure.run.value for figure in best.gt_known] == [100, 100, 50]
    assert [figure.whole.value for figure in best.gt_known] == [50, 50, 0]

    # Cats: the first box is right up to 0.90 (nine levels), the second has IoU 0.4: AP is recall 0.5's 51 of 101.
    # Dogs: the first box has IoU 0.6 (three levels) and takes the true box there; the second is right at all of them.
    # The dog that the run was not asked for is missed. So up to 0.60 precision is 1 at recall 0.5, above it a half.
    cat = 9 / 10 * 51 / 101
    dog = (3 * 51 / 101 + 7 * 51 / 101 / 2) / 10
    assert found.figures["ap"].run.value == pytest.approx(100 * (cat + dog) / 2)
    assert found.figures["ap50"].run.value == pytest.approx(100 * 51 / 101)
    assert found.figures["ar"].run.value == pytest.approx(100 * (9 / 20 + 1 / 2) / 2)
    # The whole image in place of each pair's boxes: IoU 0.9 and 0.25 of the cats, 0.6 of the dog.
    assert found.figures["ar"].whole.value == pytest.approx(100 * (9 / 20 + 3 / 20) / 2)
    # The centred box, 1, 1, 8, 8: IoU 64 / 90 = 0.71 with the first cat (five levels), 16 / 73 and 40 / 84 else.
    assert found.figures["ar"].centre.value == pytest.approx(100 * (5 / 20 + 0) / 2)

    assert list(found.classes) == ["cat", "dog"], "no cow has a true box"
    cats, dogs = found.classes["cat"], found.classes["dog"]
    assert (cats.pairs, dogs.pairs) == (2, 1)
    assert cats.gt_known_50.run == Estimate(50, 0, 100)
    assert dogs.gt_known_50 == Figure(Estimate(100, None, None), Estimate(0, None, None), Estimate(100, None, None))
    assert cats.ap50.run.value == pytest.approx(100 * 51 / 101)
    assert dogs.ap50.run.low == 0, "the dog of the third image alone is never found"


def test_intervals_hold_the_value_and_are_the_same_each_time(judged, monkeypatch):
    found = compute_figures(judged, judged)
    for name, figure in found.figures.items():
        for estimate in figure:
            assert estimate.low <= estimate.value <= estimate.high, name
    assert found.figures["gt_known_50"].run.low < found.figures["gt_known_50"].run.high
    monkeypatch.setattr(resampling, "_CELLS", 7)
    assert compute_figures(judged, judged) == found, "whatever the chunks"
    order = [2, 0, 1]  # another order of the images: the same resamples
    turned = dataclasses.replace(
        judged,
        paths=[judged.paths[i] for i in order],
        image=np.argsort(order)[judged.image],
        detections=judged.detections._replace(image=np.argsort(order)[judged.detections.image]),
    )
    for name, figure in compute_figures(turned, turned).figures.items():
        for there, here in zip(figure, found.figures[name], strict=True):
            assert there == pytest.approx(here), name


def test_a_category_that_the_run_was_never_asked_for_is_missed(judged):
    unasked = np.array([0, 1])
    fewer = dataclasses.replace(
        judged,
        **{
            name: getattr(judged, name)[unasked]
            for name in ("image", "category", "iou", "score", "raw_score", "calibrated")
        },
        **{
            name: getattr(judged, name)[unasked]
            for name in ("centre", "whole", "top1", "top5", "iou_at", "iou_at_otsu")
        },
        detections=judged.detections.some(np.arange(2)),
    )
    found = compute_figures(fewer, fewer)
    undefined = Estimate(None, None, None)
    assert found.classes["dog"].pairs == 0
    assert found.classes["dog"].gt_known_50 == Figure(undefined, undefined, undefined)
    assert found.classes["dog"].ap50.run == Estimate(0, 0, 0)
    assert found.figures["ap50"].run.value == pytest.approx(100 * 51 / 101 / 2)


def test_true_boxes_of_judged_categories(judged):
    true = true_boxes(judged)
    listed = list(zip(*(column.tolist() for column in (true.image, true.category, true.crowd)), strict=True))
    assert listed == [(0, CAT, False), (1, CAT, False), (1, DOG, False), (2, DOG, False), (2, CAT, True)], "no owl"
    assert true.bbox[3].tolist() == [1, 1, 8, 8]
    assert [each.category for each in match_boxes(true, true)] == [CAT, DOG]
