import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from camboxes.pipeline.tuning.calibrating import Sample, fit, probabilities
from camboxes.pipeline.tuning.calibration_quality import _auroc, _wins, cross_validated
from camboxes.pipeline.tuning.cross_validation import folds
from camboxes.transforms.boxes.evidence import Evidence

FIELDS = len(Evidence._fields)


def made(boxes, seed, slope):
    random = np.random.default_rng(seed)
    evidence = random.normal(size=(boxes, FIELDS))
    chance = 1 / (1 + np.exp(-slope * evidence[:, Evidence._fields.index("coherence")]))
    return Sample(np.arange(boxes), evidence, random.uniform(size=boxes) < chance)


def test_wins_by_hand():
    scores, right = np.array([0.9, 0.5, 0.5, 0.2, 0.7]), np.array([True, True, False, False, False])
    assert _wins(scores, right).tolist() == [3, 1.5, 1.5, 2, 1]
    assert _auroc(_wins(scores, right), np.array([3, 3, 2, 2, 2]), np.arange(5))[0] == 4.5 / 6


def test_the_jackknife_leaves_images_out():
    random = np.random.default_rng(0)
    scores, right, image = random.uniform(size=12), np.arange(12) % 3 > 0, np.array([*range(10), 3, 3])
    pairs = np.where(right, (~right).sum(), right.sum()).astype(float)
    value, error = _auroc(_wins(scores, right), pairs, np.arange(12))
    assert value == pytest.approx(roc_auc_score(right, scores))
    left_out = [roc_auc_score(np.delete(right, box), np.delete(scores, box)) for box in range(12)]
    assert error == pytest.approx(np.sqrt(11 / 12 * np.square(left_out - np.mean(left_out)).sum()))
    assert _auroc(_wins(scores, right), pairs, image)[1] != pytest.approx(error)


def test_folds_are_not_ranked():
    """Each fold's base rate is lower the more right boxes it holds, so pooled scores of no evidence rank backwards."""
    sample = Sample(np.arange(50), np.zeros((50, FIELDS)), np.arange(50) % 3 > 0)
    of_run = np.random.default_rng(0).normal(size=(100, FIELDS))
    pooled = np.zeros(50)
    for _, train, test in folds(sample.image):
        pooled[test] += probabilities(fit(sample.some(train), of_run), sample.evidence[test])
    assert roc_auc_score(sample.right, pooled) < 0.35
    found = cross_validated(sample, of_run)
    assert (found.auroc, found.auroc_error) == (0.5, 0)
    assert found.brier == pytest.approx(found.constant_brier, abs=0.002)
    assert not found.is_useful


def test_noise_is_seldom_taken_for_a_signal():
    noise, signal = (
        [cross_validated(sample, sample.evidence) for sample in (made(50, seed, slope) for seed in range(20))]
        for slope in (0.0, 2.0)
    )
    assert sum(each.is_useful for each in noise) <= 3
    assert sum(each.is_useful for each in signal) >= 15
    assert abs(np.mean([each.auroc for each in noise]) - 0.5) < 0.05
    assert 0.05 < np.mean([each.auroc_error for each in noise]) < 0.12, "about 0.08 for fifty boxes"


def test_figures_are_of_other_images():
    sample = made(60, 0, 2.0)
    found, rates = cross_validated(sample, sample.evidence), []
    for _, train, test in folds(sample.image):
        rate = (sample.right[train].sum() + 0.5) / (len(train) + 1)
        rates.append(np.square(rate - sample.right[test]))
    assert found.constant_brier == pytest.approx(np.concatenate(rates).mean())
    own = np.square(probabilities(fit(sample, sample.evidence), sample.evidence) - sample.right).mean()
    assert own < found.brier < found.constant_brier
    assert found.auroc > 0.5 + 2 * found.auroc_error


def test_folds_of_one_kind_are_not_compared():
    right = np.array([True] * 3 + [False] * 3 + [True] * 6)
    image = np.repeat(np.arange(4), 3)
    found = cross_validated(
        Sample(image, np.random.default_rng(0).normal(size=(12, FIELDS)), right), np.zeros((2, FIELDS))
    )
    assert (found.auroc, found.auroc_error) == (None, None), "each image is a fold, and its boxes are of one kind"
    assert found.images == 4
