"""What is read off a map and a box, worked out by hand on maps of ten cells a side, a cell a pixel."""

import math

import numpy as np
import pytest

from camboxes.transforms import BoxRule
from camboxes.transforms.boxes.evidence import evidence
from camboxes.transforms.boxes.from_map import WorkingMap
from camboxes.transforms.boxes.stored_maps import StoredMap

NOTHING = {"coherence": None, "agreement": None}


def look(cells, rule, number=0, probability=0.5, stored=NOTHING):
    cells = np.array(cells, np.uint8)
    working = WorkingMap(StoredMap(cells, 0.0, 1.0), cells.shape[1], cells.shape[0])
    drawn = working.draw(rule)
    return evidence(working, drawn, drawn.boxes[number], probability, stored)


def blank():
    return np.zeros((10, 10), np.uint8)


def test_the_box_that_a_photographer_would_fill():
    cells = blank()
    cells[1:9, 1:9] = 255
    found = look(cells, BoxRule(0.5), probability=0.9, stored={"coherence": 0.5, "agreement": 0.75})
    assert found.centre == pytest.approx(1)
    assert found.upper_quartile == 1, "64 of 100 cells are as high as the peak"
    assert found.contrast == pytest.approx(0.48), "sqrt(0.64 * 0.36)"
    assert found.mass == 1
    assert found.log_odds == pytest.approx(math.log(0.9001 / 0.1001))
    assert found[5:9] == pytest.approx((0, 1, 1, 0)), "components, dominance, fill and log_aspect"
    assert found.top == pytest.approx(0.1)
    assert (found.stability, found.persistence) == pytest.approx((1, 1)), "a block has the same box at every level"
    assert (found.coherence, found.agreement) == (0.5, 0.75)


def test_the_smaller_of_two_components():
    cells = blank()
    cells[0:2, 0:6] = 255  # 12 cells
    cells[8:10, 0:3] = 255  # 6 cells, one of them taken out: 5 in a box of 6
    cells[8, 2] = 0
    found = look(cells, BoxRule(0.5, boxes="all"), number=1)
    assert found.centre == pytest.approx(2 / (6 + 64 - 2)), "it shares two cells with the rows and columns 1 to 8"
    assert found.mass == pytest.approx(5 / 17)
    assert found.components == pytest.approx(math.log(2))
    assert found.dominance == pytest.approx(5 / 17)
    assert found.fill == pytest.approx(5 / 6)
    assert found.log_aspect == pytest.approx(math.log(1.5))
    assert found.top == pytest.approx(0.8)
    assert found.stability == pytest.approx(1), "it is compared with the component that it is most like"


def test_stability_is_judged_at_levels_on_both_sides():
    cells = blank()
    cells[0:4, 0:10] = 90  # 0.353: foreground at 0.3, and no more at 0.4 and 0.5
    cells[0:4, 0:5] = 255
    found = look(cells, BoxRule(0.5))
    # At 0.3 the box is 10 x 4, at 0.4, 0.6 and 0.7 it is 5 x 4.
    assert found.stability == pytest.approx((0.5 + 1 + 1 + 1) / 4)
    assert found.persistence == pytest.approx(1)
    assert look(cells, BoxRule(0.3)).persistence == pytest.approx(0.5)


def test_what_is_not_known_is_not_a_number():
    cells = blank()
    cells[2:4, 2:4] = 255
    assert all(math.isnan(value) for value in look(cells, BoxRule(0.5))[-2:])
    assert all(math.isnan(value) for value in look(cells, BoxRule(0.5), stored={})[-2:]), "a run of an older version"


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_certainty_has_finite_odds(probability):
    cells = blank()
    cells[2:4, 2:4] = 255
    assert math.isfinite(look(cells, BoxRule(0.5), probability=probability).log_odds)
