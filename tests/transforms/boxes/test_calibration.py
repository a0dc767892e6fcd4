"""Calibrated scores: the formula by hand, and scores in a run's rows."""

import math

import numpy as np
import pytest

from camboxes.transforms import BoxRule
from camboxes.transforms.boxes.calibration import Calibration, standardise
from camboxes.transforms.boxes.evidence import Evidence
from camboxes.transforms.boxes_from_maps import draw

ZEROS, ONES = dict.fromkeys(Evidence._fields, 0.0), dict.fromkeys(Evidence._fields, 1.0)
NONE = Evidence(*[0.0] * len(Evidence._fields))


def test_the_logistic_function_of_the_weighted_sum():
    calibration = Calibration(-1.0, ZEROS | {"mass": 2.0, "fill": -1.0}, ZEROS | {"mass": 0.5}, ONES | {"mass": 0.25})
    # mass: (0.75 - 0.5) / 0.25 = 1; fill: 0.4; -1 + 2 - 0.4 = 0.6.
    assert calibration.probability(NONE._replace(mass=0.75, fill=0.4)) == round(1 / (1 + math.exp(-0.6)), 4)


def test_what_is_not_known_counts_as_average():
    calibration = Calibration(0.5, ONES, ONES, ONES)
    unknown = Evidence(*[math.nan] * len(Evidence._fields))
    assert calibration.probability(unknown) == round(1 / (1 + math.exp(-0.5)), 4)


def test_no_single_number_outweighs_all_others():
    found = standardise(np.array([NONE._replace(mass=1e9), NONE._replace(mass=-1e9)]), ZEROS, ONES)
    assert found[:, Evidence._fields.index("mass")].tolist() == [4, -4]


def test_a_calibration_survives_its_file():
    calibration = Calibration(0.25, ZEROS | {"mass": 2.0}, ZEROS, ONES)
    assert Calibration.from_json(calibration.as_json()) == calibration


def test_a_calibration_of_another_version_is_refused():
    other = Calibration(0.0, {"mass": 1.0}, ZEROS, ONES).as_json()
    with pytest.raises(ValueError, match=r"weighs mass; this version .* looks at centre.*run camboxes tune again"):
        Calibration.from_json(other)


def test_a_row_gets_calibrated_scores_and_keeps_its_own(run, rows):
    constant = Calibration(math.log(3), ZEROS, ZEROS, ONES)
    for row in rows(run):
        plain, calibrated = draw(row, BoxRule()), draw(row, BoxRule(), constant)
        assert [box["calibrated_score"] for box in calibrated["boxes"]] == [0.75]
        assert [box["calibrated_score"] for box in plain["boxes"]] == [None]
        assert [box["score"] for box in calibrated["boxes"]] == [box["score"] for box in plain["boxes"]]
        assert calibrated["review"]["priority"] == 0.25
