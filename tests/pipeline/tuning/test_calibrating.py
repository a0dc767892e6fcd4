"""Calibration fitted to boxes whose chance of being right is known."""

import numpy as np
import pytest

from camboxes.pipeline.evaluation.reliability import trust
from camboxes.pipeline.tuning.calibrating import Sample, fit, known_directions, probabilities
from camboxes.transforms.boxes.evidence import Evidence

FIELDS = len(Evidence._fields)


def made(boxes, seed=0, slope=2.0, field="coherence"):
    """Boxes that are right with a probability that one of their numbers decides."""
    random = np.random.default_rng(seed)
    evidence = random.normal(size=(boxes, FIELDS))
    chance = 1 / (1 + np.exp(-slope * evidence[:, Evidence._fields.index(field)]))
    return Sample(np.arange(boxes), evidence, random.uniform(size=boxes) < chance), chance


def test_the_directions_that_come_along_weigh_all_evidence():
    for weights in known_directions():
        assert set(weights) == set(Evidence._fields)


def test_many_boxes_say_what_decides():
    sample, chance = made(8000)
    found = probabilities(fit(sample, sample.evidence), sample.evidence)
    assert np.abs(found - chance).mean() < 0.04, "the directions, which know nothing of it, still hold it back a little"
    assert np.corrcoef(found, chance)[0, 1] > 0.99


def test_fifty_boxes_rank_better_with_directions_than_without():
    others, _ = made(2000, seed=1)
    wrong = dict.fromkeys(Evidence._fields, 0.0) | {"top": 1.0}
    gained = []
    for seed in range(2, 12):
        few, _ = made(50, seed)
        known = fit(few, others.evidence, [dict.fromkeys(Evidence._fields, 0.0) | {"coherence": 1.0}, wrong])
        blind = fit(few, others.evidence, [wrong, wrong])
        found = [trust(probabilities(some, others.evidence), others.right, 0.5).auroc for some in (known, blind)]
        gained.append(found[0] - found[1])
    assert np.mean(gained) > 0.03
    assert np.min(gained) > -0.01


@pytest.mark.parametrize(
    ("right", "rate"), [([True] * 4 + [False] * 5, 0.45), ([True] * 48 + [False] * 2, 48.5 / 51), ([], 0.5)]
)
def test_too_few_boxes_give_the_base_rate(right, rate):
    sample = Sample(
        np.arange(len(right)), np.random.default_rng(0).normal(size=(len(right), FIELDS)), np.array(right, bool)
    )
    assert sample.is_small
    calibration = fit(sample, np.random.default_rng(1).normal(size=(100, FIELDS)))
    assert set(calibration.weights.values()) == {0.0}
    assert calibration.probability(Evidence(*np.ones(FIELDS))) == pytest.approx(rate, abs=1e-4)


@pytest.mark.parametrize(("right", "wrong", "enough"), [(10, 10, True), (40, 9, False), (9, 40, False)])
def test_a_calibration_is_judged_by_ten_right_and_ten_wrong_boxes(right, wrong, enough):
    boxes = right + wrong
    sample = Sample(np.arange(boxes), np.zeros((boxes, FIELDS)), np.arange(boxes) < right)
    assert sample.shows_quality == enough


def test_evidence_that_is_missing_or_constant_over_the_run_does_no_harm():
    sample, _ = made(60)
    sample.evidence[:, Evidence._fields.index("agreement")] = np.nan
    sample.evidence[:, Evidence._fields.index("fill")] = 1.0
    found = probabilities(fit(sample, sample.evidence), sample.evidence)
    assert ((found > 0) & (found < 1)).all()
