import numpy as np
import pytest

from camboxes.pipeline.evaluation import reliability
from camboxes.pipeline.evaluation.reliability import trust


def test_figures_by_hand():
    scores, right = np.array([0.1, 0.2, 0.8, 0.9]), np.array([False, True, True, True])
    found = trust(scores, right, 0.5)
    assert found.brier == pytest.approx((0.01 + 0.64 + 0.04 + 0.01) / 4)
    assert found.constant_brier == pytest.approx(0.25)
    assert found.ece == pytest.approx((0.1 + 0.8 + 0.2 + 0.1) / 4), "four boxes make four bins"
    assert found.auroc == 1
    assert found.bins[1] == (pytest.approx(0.2), 1, 1)


def test_ece_bins_have_equal_mass():
    # Twenty boxes, two a bin; of each two one is right: bins are off by |0.5 - score|.
    scores, right = np.repeat(np.arange(10) / 10, 2), np.tile([True, False], 10)
    found = trust(scores, right, 0.5)
    assert [count for _, _, count in found.bins] == [2] * reliability._BINS
    assert found.ece == pytest.approx(np.abs(0.5 - np.arange(10) / 10).mean())
    assert found.constant_ece == 0


def test_boxes_of_one_kind_have_no_auroc():
    assert trust(np.array([0.4, 0.6]), np.array([True, True]), 1.0).auroc is None
