import hashlib

import numpy as np
import pytest
from PIL import Image

from camboxes.transforms import BoxRule
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference.selftrained_maps import (
    can_be_regressed,
    component,
    on_grid,
    read_unchanged,
    selftrained,
)


def _entry(cells, rectangle=(0, 0, 50, 40), raw=(-1.0, 1.0)):
    cells = np.array(cells, np.uint8)
    size = {"height": cells.shape[0], "width": cells.shape[1]}
    return {**size, "raw_min": raw[0], "raw_max": raw[1], "cells": cells.tobytes(), "rectangle": list(rectangle)}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (_entry([[0, 255]]), True),
        (_entry([[7, 7]]), False),  # constant
        (_entry([[0, 255]], raw=(-2.0, -1.0)), False),  # nothing speaks for the class
        (_entry([[0, 255]], rectangle=(0, 0, 25, 40)), False),  # a tile
    ],
)
def test_maps_that_no_box_can_come_from_are_left_alone(entry, expected):
    assert can_be_regressed({"width": 50, "height": 40}, entry) is expected


def test_a_map_on_a_grid_goes_from_0_to_1():
    assert on_grid(_entry([[55, 105], [155, 255]]), 2, 2).tolist() == pytest.approx(np.array([[0, 0.25], [0.5, 1]]))
    # Bilinear, the cells' centres at 1/4 and 3/4: 0.5 and 1.5 of the way between two columns, clipped at the edges.
    assert on_grid(_entry([[0, 200]]), 1, 4)[0].tolist() == pytest.approx([0, 0.25, 0.75, 1])


def _two_blocks():
    """A map of 112 x 112 cells: the upper left quarter at 0.8, and the peak in 28 x 28 cells at the lower right."""
    cells = np.zeros((112, 112), np.uint8)
    cells[:56, :56], cells[84:, 84:] = 204, 255
    return StoredMap(cells, 0.0, 1.0)


def test_the_component_of_the_first_box():
    quarter = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert component(_two_blocks(), BoxRule(0.5), 4, 4).tolist() == quarter
    assert component(_two_blocks(), BoxRule(0.5, boxes="all"), 4, 4).tolist() == quarter
    corner = np.zeros((4, 4))
    corner[3, 3] = 1
    assert component(_two_blocks(), BoxRule(0.5, boxes="peak"), 4, 4).tolist() == corner.tolist()
    assert component(_two_blocks(), BoxRule(0.9), 4, 4).tolist() == corner.tolist()
    assert component(_two_blocks(), BoxRule(0.5, min_area=0.3), 4, 4) is None


def test_a_component_covers_a_part_of_a_cell():
    cells = np.zeros((112, 112), np.uint8)
    cells[:56, :28] = 255
    assert component(StoredMap(cells, 0.0, 1.0), BoxRule(0.5), 2, 2).tolist() == [[0.5, 0], [0, 0]]


def test_names():
    assert selftrained("affinity(cam)") == "selftrained(affinity(cam))"


def test_only_the_bytes_that_the_run_saw_are_read(tmp_path):
    Image.new("RGB", (3, 2), (10, 20, 30)).save(tmp_path / "a.png")
    row = {"path": "a.png", "digest": hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()}
    assert read_unchanged(str(tmp_path), row).tolist() == [[[10, 20, 30]] * 3] * 2
    Image.new("RGB", (3, 2), (10, 20, 31)).save(tmp_path / "a.png")
    with pytest.raises(BadImageError, match="changed: the file is not the one that the run saw"):
        read_unchanged(str(tmp_path), row)
    with pytest.raises(BadImageError, match="missing"):
        read_unchanged(str(tmp_path), row | {"path": "b.png"})
