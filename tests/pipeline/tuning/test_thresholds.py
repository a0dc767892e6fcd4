"""Thresholds chosen on boxed images: curves whose best point is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from camboxes.pipeline.tuning.thresholds import Candidates, choose

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
    assert (choice.rule, choice.threshold, choice.thresholds) == ("overall", 0.4, {})
    assert choice.expected["as it was"].known == 0, "0.9 - 3 * 0.15 is below one half"
    best = choice.expected["overall"]
    assert (best.known, best.mean_iou, best.gain, best.error) == (
        100,
        pytest.approx(90),
        pytest.approx(73, abs=1),
        pytest.approx(0),
    )
    assert (best.low, best.high) == (pytest.approx(100 * 30 / (30 + 1.96**2)), pytest.approx(100)), "Wilson's"


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


def missing(missed, images=30):
    """Thirty pairs that thresholds near 0.25 suit, of which the run's own rule draws some elsewhere, on one image."""
    value = judged([0.25] * 30, [0] * 30, image=np.arange(30) * images // 30)
    value.iou[:missed] = 0
    return value


@pytest.mark.parametrize(("missed", "rule"), [(0, "as it was"), (1, "as it was"), (2, "overall"), (30, "overall")])
def test_the_own_rule_stays_unless_another_is_better_by_a_standard_error(missed, rule):
    choice = choose(missing(missed))
    assert (choice.rule, choice.threshold == 0.25) == (rule, rule == "as it was")
    own, overall = choice.expected["as it was"], choice.expected["overall"]
    share = missed / 30
    assert (own.known, own.gain, own.error) == (pytest.approx(100 * (1 - share)), 0, 0)
    # Of thirty pairs one is 3.3 points, and so is the standard error; two are 6.7, and it is 4.6.
    assert overall.gain == pytest.approx(100 * share, abs=0.1)
    assert overall.error == pytest.approx(100 * np.sqrt(share * (1 - share) / 29), abs=0.1)


def test_errors_are_over_images():
    assert choose(missing(2, images=30)).rule == "overall"
    assert choose(missing(2, images=10)).rule == "as it was", "both pairs are of one image"
    assert choose(missing(30, images=10)).rule == "overall"
    few = choose(missing(30, images=9))
    assert (few.rule, few.threshold, few.expected) == ("as it was", 0.25, {})


def test_a_rule_that_hits_less_is_not_chosen():
    """Twenty boxes just above IoU 0.5 would gain in soft hits what one box just below it loses."""
    value = judged([0.25] * 30, [0] * 30)
    value.iou[:20] = 0.52
    value.iou_at[20], value.iou_at_otsu[20] = 0.49, 0.49
    choice = choose(value)
    own, overall = choice.expected["as it was"], choice.expected["overall"]
    assert overall.gain > 3 * overall.error
    assert (choice.rule, own.known, overall.known) == ("as it was", 100, pytest.approx(100 * 29 / 30))


def test_thresholds_by_class_of_the_run_stay_too():
    value = judged([0.25] * 30, [0] * 30)
    value.settings["rule"]["thresholds"] = {"cat": 0.26}
    choice = choose(value)
    assert (choice.rule, choice.threshold, choice.thresholds) == ("as it was", 0.25, {"cat": 0.26})


def test_smoothing_keeps_the_families_apart():
    candidates = Candidates.of(judged([0.25], [0]))
    curve = np.concatenate([np.zeros(len(FIXED)), np.ones(len(SHARES))])
    np.testing.assert_allclose(candidates.smoothed(curve), curve, atol=1e-12)
