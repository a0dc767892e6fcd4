"""Thresholds chosen on boxed images: curves whose best point is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from camboxes.pipeline.tuning.thresholds import Candidates, choose, folds

FIXED, SHARES = np.arange(2, 92, 2) / 100, np.arange(30, 151, 5) / 100


def judged(best, category, otsu=0.0, image=None):
    """Pairs whose IoU falls from 0.9 by three times the distance from their own best threshold."""
    best = np.asarray(best, float)
    return SimpleNamespace(
        categories=["cat", "dog", "owl"],
        image=np.arange(len(best)) if image is None else np.asarray(image),
        category=np.asarray(category),
        iou=np.clip(0.9 - 3 * abs(best - 0.25), 0, 1),
        thresholds=FIXED,
        otsu_shares=SHARES,
        iou_at=np.clip(0.9 - 3 * abs(FIXED - best[:, None]), 0, 1),
        iou_at_otsu=np.full((len(best), len(SHARES)), otsu),
        settings={"rule": {"threshold": 0.25}},
    )


def test_the_threshold_that_suits_all():
    choice = choose(judged([0.4] * 30, [0] * 30))
    assert (choice.threshold, choice.thresholds) == (0.4, {})
    assert choice.expected["as it was"].known == 0, "0.9 - 3 * 0.15 is below one half"
    assert choice.expected["overall"] == (100, 0, pytest.approx(90))


def test_a_share_of_the_otsu_level_where_that_is_better():
    choice = choose(judged(np.linspace(0.1, 0.8, 30), [0] * 30, otsu=0.7))
    assert choice.threshold.endswith("*otsu")
    assert choice.expected["overall"].known == 100


def test_classes_that_differ_get_their_own():
    choice = choose(judged([0.2] * 40 + [0.6] * 40, [0] * 40 + [1] * 40))
    both = {name: choice.thresholds.get(name, choice.threshold) for name in ("cat", "dog")}
    assert both == {"cat": pytest.approx(0.2, abs=0.03), "dog": pytest.approx(0.6, abs=0.03)}
    assert choice.expected["per class"].known > choice.expected["overall"].known + 30
    assert "owl" not in choice.thresholds, "no box of it was seen"


def test_a_class_of_few_boxes_stays_near_the_others():
    random = np.random.default_rng(0)
    many, few = np.full(60, 0.3), [0.6, 0.6]
    best = np.concatenate([many + random.normal(0, 0.02, 60), few, np.full(60, 0.55)])
    choice = choose(judged(best, [0] * 60 + [1] * 2 + [2] * 60))
    of = {name: choice.thresholds.get(name, choice.threshold) for name in ("cat", "dog", "owl")}
    assert of["cat"] < of["dog"] < 0.6, "two boxes do not outweigh all others"
    assert of["owl"] == pytest.approx(0.55, abs=0.03)


def test_noise_gives_no_thresholds_by_class():
    random = np.random.default_rng(1)
    choice = choose(judged(random.uniform(0.2, 0.5, 60), random.integers(0, 3, 60)))
    assert choice.thresholds == {}
    assert choice.shrinkage is None


def test_too_few_pairs_choose_nothing():
    choice = choose(judged([0.6] * 9, [0] * 9))
    assert (choice.threshold, list(choice.expected)) == (0.25, ["as it was"])


def test_images_are_never_on_both_sides():
    image = np.repeat(np.arange(13), 3)
    seen = np.zeros((4, len(image)), int)
    for repeat, train, test in folds(image):
        assert not set(image[train]) & set(image[test])
        assert len(train) + len(test) == len(image)
        seen[repeat, test] += 1
    assert (seen == 1).all()


def test_smoothing_keeps_the_families_apart():
    candidates = Candidates.of(judged([0.25], [0]))
    curve = np.concatenate([np.zeros(len(FIXED)), np.ones(len(SHARES))])
    np.testing.assert_allclose(candidates.smoothed(curve), curve, atol=1e-12)
