import time

import numpy as np
import pytest
from PIL import Image, ImageColor

from camboxes.pipeline.reports import method_sheet
from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map
from camboxes.transforms.boxes.stored_maps import quantize

LEFT, TOP = method_sheet.MARGIN, method_sheet.MARGIN // 2 + method_sheet.HEADING  # of the photograph's tile
STEP = method_sheet.TILE[0] + method_sheet.GAP  # from a column to the next


def _mapped(cells, width, height, threshold=0.5):
    stored = quantize(np.array(cells, np.float32))
    return stored, boxes_from_map(stored, width, height, BoxRule(threshold))


def _figure(width=720, height=480, maps=(), name="tripod"):
    photograph = np.full((height, width, 3), (200, 0, 0), np.uint8)
    columns = [method_sheet.Column(f"method{number}", 12.3) for number in range(len(maps))]
    rows = [method_sheet.Row(3, name, 0.5, [_mapped(cells, width, height) for cells in maps])]
    return np.asarray(method_sheet.figure(photograph, columns, rows, ("network", "at 224")))


def _extent(where):
    """First and last column, first and last row that hold a true value."""
    rows, columns = np.nonzero(where)
    return columns.min(), columns.max(), rows.min(), rows.max()


def test_the_hottest_place_is_the_maps():
    cells = np.zeros((4, 6))
    cells[1:3, 3:5] = 1
    picture = np.asarray(
        method_sheet.overlay(Image.new("RGB", (360, 240), (100, 100, 100)), *_mapped(cells, 720, 480), 0.5)
    )
    # 60 pixels a cell; bilinear between centres: at its highest between the centres of the four, 0 a cell further on.
    hottest = (abs(picture.astype(int) - (222, 224, 151)) <= 1).all(2)  # 0.8 (252, 255, 164) + 0.2 (100, 100, 100)
    assert _extent(hottest) == (210, 269, 90, 149)
    changed = (picture != 100).any(2)
    left, right, top, bottom = _extent(changed)
    assert 150 <= left <= 155
    assert 324 <= right <= 329
    assert 30 <= top <= 35
    assert 204 <= bottom <= 209


def test_the_box_is_the_one_that_was_drawn():
    stored, boxes = _mapped([[0, 1]], 720, 480)
    assert boxes.boxes[0].bbox == (360, 0, 360, 480)
    picture = np.asarray(method_sheet.overlay(Image.new("RGB", (360, 240)), stored, boxes, 0.5))
    line = (picture == ImageColor.getrgb(method_sheet.LINE)).all(2)
    assert _extent(line) == (181, 358, 1, 238), "from 180 to 359 and from 0 to 239, inside a casing of one pixel"
    assert not line[10:230, 190:350].any()


def test_a_speck_is_still_a_box():
    cells = np.zeros((3, 3))
    cells[1, 1] = 1
    stored, boxes = _mapped(cells, 300, 300, threshold=1)
    assert max(boxes.boxes[0].bbox[2:]) <= 2
    picture = np.asarray(method_sheet.overlay(Image.new("RGB", (300, 300)), stored, boxes, 1))
    left, right, top, bottom = _extent((picture == ImageColor.getrgb(method_sheet.LINE)).all(2))
    assert (right - left, bottom - top) == (6, 6)
    assert left <= 150 <= right
    assert top <= 150 <= bottom


@pytest.mark.parametrize("cells", [[[-2, -1]], [[3, 3]], [[0, np.nan]]])
def test_a_map_without_a_box_says_why(cells):
    page = _figure(maps=[[[0, 1]], cells])
    tile = page[TOP : TOP + 240]
    assert (tile[:, LEFT + 2 * STEP :][:, :360] == (200, 0, 0)).all(), "bare"
    assert (tile[:, LEFT + STEP :][:, :360] != (200, 0, 0)).any()
    below = page[TOP + 242 : TOP + 300]
    assert (below[:, LEFT + 2 * STEP :] < 160).any()
    assert (below[:, LEFT + STEP : LEFT + 2 * STEP] < 160).any(), "the level of the other's box"
    assert (below[:, : LEFT + STEP] == 255).all()
    assert page.shape[0] - _figure(maps=[[[0, 1]]]).shape[0] == 88 - 50


@pytest.mark.parametrize(
    ("size", "tile"),
    [
        ((720, 480), (360, 240)),
        ((3000, 300), (360, 36)),
        ((300, 1500), (108, 540)),
        ((30, 30), (360, 360)),
        ((5000, 2), (360, 1)),
    ],
)
def test_photographs_keep_their_aspect_ratio(size, tile):
    page = _figure(*size, maps=[[[0, 1]]])
    first = LEFT, LEFT + tile[0] - 1, TOP, TOP + tile[1] - 1
    assert _extent((page == (200, 0, 0)).all(2)[:, : LEFT + STEP]) == first
    coloured = (page != 255).any(2)[TOP : TOP + tile[1]]
    assert _extent(coloured)[1] == LEFT + STEP + tile[0] - 1, "the overlay is as wide"


def test_the_scale_of_the_palette():
    page = _figure(maps=[[[0, 1]]])
    left, top = LEFT + STEP, TOP + 240 + 50 + 44
    assert page[top + 5, left].tolist() == [0, 0, 4], "inferno's first colour"
    assert page[top + 5, left + 359].tolist() == [252, 255, 164], "and its last"


def test_the_level_of_each_box_stands_below_it():
    page = _figure(maps=[[[0, 1]], [[0, 1], [1, 1]]])  # both are cut at 0.5
    captions = page[TOP + 240 : TOP + 240 + 50, LEFT + STEP :]
    assert (captions[:, :360] == captions[:, STEP : STEP + 360]).all()
    photograph = np.full((10, 10, 3), 200, np.uint8)
    stored, boxes = _mapped([[0, 1]], 10, 10, threshold=0.75)
    row = method_sheet.Row(3, "tripod", 0.5, [_mapped([[0, 1]], 10, 10), (stored, boxes)])
    columns = [method_sheet.Column("cam", 1)] * 2
    other = np.asarray(method_sheet.figure(photograph, columns, [row], ()))[TOP + 360 :, LEFT + STEP :]
    assert (other[:50, :360] != other[:50, STEP : STEP + 360]).any()


def test_long_names_are_shortened():
    page = _figure(maps=[[[0, 1]]], name="black-and-tan " * 9)
    short = _figure(maps=[[[0, 1]]], name="black")
    heading = np.s_[method_sheet.MARGIN // 2 : TOP]
    assert (page[heading, : LEFT + 300] != short[heading, : LEFT + 300]).any()
    assert (page[heading, LEFT + 360 :] == short[heading, LEFT + 360 :]).all()
    assert (page[heading, LEFT + 300 : LEFT + 360] < 100).any(), "as long as there is room"


def test_a_name_of_a_stranger_is_one_line_at_once():
    start = time.monotonic()
    _figure(name="x" * 100_000)
    assert time.monotonic() - start < 10
    assert (_figure(name="a\nb") == _figure(name="a\\nb")).all()


def test_a_name_that_no_font_has(monkeypatch):
    method_sheet._fonts.cache_clear()
    monkeypatch.setattr(method_sheet, "_OTHER_FONTS", ("none.ttf",))
    try:
        assert (_figure(name="猫") == _figure(name="class 3")).all()
        assert (_figure(name="cat") != _figure(name="class 3")).any()
    finally:
        method_sheet._fonts.cache_clear()
