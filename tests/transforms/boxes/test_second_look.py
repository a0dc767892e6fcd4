import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camboxes.pipeline.cli import main
from camboxes.transforms.boxes.from_map import BoxRule, Drawn, MapBox
from camboxes.transforms.boxes.second_look import merge, quarters
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.boxes_from_maps import draw

WHOLE = (0, 0, 100, 50)
FIRST, SECOND, THIRD, FOURTH = quarters(100, 50)


def drawn(*boxes):
    return Drawn([MapBox(bbox, mean, 0.1, (0, 0)) for bbox, mean in boxes], None)


def merged(*looks):
    return [(seen.look, seen.bbox, seen.share) for seen in merge(looks, 100, 50)]


def test_quarters_share_a_third_with_each_neighbour():
    assert [FIRST, SECOND, THIRD, FOURTH] == [(0, 0, 60, 30), (40, 0, 60, 30), (0, 20, 60, 30), (40, 20, 60, 30)]
    assert quarters(1, 50) == []


@given(st.integers(2, 5000), st.integers(2, 5000))
def test_quarters_cover_the_image_and_nothing_else(width, height):
    covered = np.zeros((2, 2), bool)
    for x, y, own_width, own_height in quarters(width, height):
        assert x >= 0 and y >= 0 and x + own_width <= width and y + own_height <= height
        assert 2 * own_width >= width and 2 * own_height >= height
        covered[int(y > 0), int(x > 0)] = True
    assert covered.all()


@given(st.integers(2, 5000), st.integers(1, 10000), st.integers(0, 3))
def test_no_box_leaves_the_image_by_rounding(width, hundredths, which):
    rectangle = quarters(width, width)[which]
    extent = min(hundredths / 100, float(rectangle[2]))
    box = (round(rectangle[2] - extent, 2), round(rectangle[3] - extent, 2), extent, extent)
    for seen in merge([(rectangle, drawn((box, 0.5)))], width, width):
        x, y, box_width, box_height = seen.bbox
        assert x + box_width <= width and y + box_height <= width


def test_what_a_second_look_adds_stands_behind_and_counts_half():
    whole = drawn(((50, 20, 10, 10), 0.8))
    quarter = drawn(((10, 5, 8, 6), 0.6), ((30, 5, 8, 6), 0.4))
    assert merged((WHOLE, whole), (SECOND, quarter)) == [
        (0, (50, 20, 10, 10), 0.8),
        (1, (50, 5, 8, 6), pytest.approx(0.3)),
        (1, (70, 5, 8, 6), pytest.approx(0.2)),
    ]


def test_a_box_that_is_there_already_is_not_added():
    # 10 x 10 shifted by 5: 50 in common of 150, IoU 1/3; shifted by 6: 40 of 160, IoU 1/4.
    whole = drawn(((50, 10, 10, 10), 0.8))
    assert merged((WHOLE, whole), (SECOND, drawn(((15, 10, 10, 10), 0.9)))) == [(0, (50, 10, 10, 10), 0.8)]
    added = merged((WHOLE, whole), (SECOND, drawn(((16, 10, 10, 10), 0.9))))
    assert added == [(0, (50, 10, 10, 10), 0.8), (1, (56, 10, 10, 10), 0.45)]


def test_of_two_quarters_the_surer_box_counts():
    looks = (SECOND, drawn(((2, 5, 10, 10), 0.4))), (FIRST, drawn(((42, 5, 10, 10), 0.6)))
    assert merged((WHOLE, drawn()), *looks) == [(2, (42, 5, 10, 10), 0.3)]


@pytest.mark.parametrize(
    ("quarter", "bbox", "stays"),
    [
        (FIRST, (0, 0, 20, 20), True),  # the image's own corner
        (FIRST, (39.5, 5, 20, 20), False),
        (FIRST, (5, 9.5, 20, 20), False),
        (FOURTH, (1, 5, 20, 20), False),
        (FOURTH, (5, 1, 20, 20), False),
        (FOURTH, (40, 10, 20, 20), True),
    ],
)
def test_what_an_inner_edge_cuts_is_left_out(quarter, bbox, stays):
    assert bool(merged((WHOLE, drawn()), (quarter, drawn((bbox, 0.5))))) is stays


def test_boxes_of_a_row_come_from_all_its_maps():
    # One cell a pixel: a square on the whole image's map, and one on the last quarter's, 40 pixels right, 20 down.
    whole, quarter = np.zeros((50, 100), np.uint8), np.zeros((30, 60), np.uint8)
    whole[0:10, 0:10] = quarter[10:20, 30:40] = 255
    entries = [
        StoredMap(cells, 0.0, 1.0).entry() | {"category_id": 1, "rectangle": list(rectangle), "method": "cam"}
        for cells, rectangle in ((whole, WHOLE), (quarter, FOURTH))
    ]
    label = {"label": "cat", "category_id": 1, "class_index": 3, "probability": 0.5}
    row = {"path": "a.jpg", "width": 100, "height": 50, "status": "ok", "reason": None, "labels": [label]}
    found = draw(row | {"maps": entries}, BoxRule(0.5, boxes="peak"))
    assert [(box["bbox"], box["score"], box["rank"]) for box in found["boxes"]] == [
        ([0, 0, 10, 10], 0.5, 1),
        ([70, 30, 10, 10], 0.25, 2),
    ]
    assert len({box["box_uid"] for box in found["boxes"]}) == 2
    # With nothing on the whole image's map the second look's box is the label's first.
    nothing = StoredMap(np.zeros((50, 100), np.uint8), 0.0, 1.0).entry()
    found = draw(row | {"maps": [entries[0] | nothing, entries[1]]}, BoxRule(0.5, boxes="peak"))
    assert [(box["bbox"], box["rank"]) for box in found["boxes"]] == [([70, 30, 10, 10], 1)]
    assert (found["status"], found["reason"]) == ("ok", None)


def test_a_quarters_map_is_that_of_the_quarter_as_an_image(photographs, rows, tmp_path):
    [path] = (photographs / "moped").iterdir()
    image = Image.open(path).convert("RGB")
    (tmp_path / "whole" / "moped").mkdir(parents=True)
    (tmp_path / "quarters" / "moped").mkdir(parents=True)
    image.save(tmp_path / "whole" / "moped" / "0.png")
    rectangles = quarters(*image.size)
    for number, (x, y, width, height) in enumerate(rectangles):
        image.crop((x, y, x + width, y + height)).save(tmp_path / "quarters" / "moped" / f"{number}.png")
    for name, options in (("whole", ["--second-look"]), ("quarters", [])):
        assert main(["label", "--input", f"{tmp_path}/{name}", "--output", f"{tmp_path}/{name}_run", *options]) == 0
    [whole] = rows(tmp_path / "whole_run")
    maps = ("height", "width", "cells", "raw_min", "raw_max", "coherence", "agreement")
    alone = [row["maps"][0] for row in rows(tmp_path / "quarters_run")]
    assert [tuple(entry["rectangle"]) for entry in whole["maps"]] == [(0, 0, *image.size), *rectangles]
    assert [[entry[name] for name in maps] for entry in whole["maps"][1:]] == [
        [a[name] for name in maps] for a in alone
    ]
