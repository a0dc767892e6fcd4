import math
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camboxes.models import MapSpec, ModelSpec
from camboxes.transforms import BoxRule, boxes_from_map
from camboxes.transforms.boxes.from_map import Cut, WorkingMap, box_uid
from camboxes.transforms.boxes.stored_maps import StoredMap, quantize

ALL = BoxRule(threshold=0.5, boxes="all")


def stored(cells):
    return StoredMap(np.array(cells, np.uint8), -1.0, 2.0)


def grid_of(cells):
    """An image of exactly one pixel per cell, so that nothing is interpolated."""
    return stored(cells), len(cells[0]), len(cells)


def test_one_pixel_per_cell_by_hand():
    cells = [
        [255, 200, 0, 0, 0],
        [0, 128, 0, 0, 130],
        [0, 0, 127, 0, 140],
    ]
    boxes, reason = boxes_from_map(*grid_of(cells), ALL)[:2]
    assert reason is None
    assert [box.bbox for box in boxes] == [(0, 0, 2, 2), (4, 1, 1, 2)]
    assert [box.area for box in boxes] == [3 / 15, 2 / 15]
    assert [box.peak for box in boxes] == [(0, 0), (2, 4)]
    np.testing.assert_allclose([box.mean for box in boxes], [(255 + 200 + 0 + 128) / 4 / 255, 135 / 255], rtol=1e-6)


def test_components_are_8_connected():
    boxes, _ = boxes_from_map(*grid_of([[255, 0, 0], [0, 255, 0], [0, 0, 255]]), ALL)[:2]
    assert [box.bbox for box in boxes] == [(0, 0, 3, 3)]


def test_the_threshold_itself_is_foreground():
    third = boxes_from_map(*grid_of([[255, 85, 0]]), BoxRule(threshold=85 / 255)).boxes
    assert third[0].bbox == (0, 0, 2, 1)
    above = boxes_from_map(*grid_of([[255, 85, 0]]), BoxRule(threshold=86 / 255)).boxes
    assert above[0].bbox == (0, 0, 1, 1)


def test_bilinear_with_half_pixel_centres_by_hand():
    # Two cells over four pixels: centres at -0.25 (clamped), 0.25, 0.75, 1.25 (clamped) of the way.
    scaled = WorkingMap(stored([[0, 200]]), 4, 1).scaled
    np.testing.assert_allclose(scaled, [[0, 0.25, 0.75, 1]], atol=1e-6)
    assert boxes_from_map(stored([[0, 200]]), 4, 1, ALL).boxes[0].bbox == (2, 0, 2, 1)


def test_large_photographs_are_drawn_on_a_grid_of_512():
    boxes, _ = boxes_from_map(stored([[255, 0], [0, 0]]), 4000, 3000, ALL)[:2]
    # the grid is 512 x 384; the product of two linear ramps reaches 0.5 where (1 - u)(1 - v) >= 0.5, u along the top
    # edge up to 0.5: (0.25 + 0.5 / 2) * 4000
    assert boxes[0].bbox == (0, 0, 2000, 1500)


def test_min_area_and_largest():
    cells = [[255, 0, 200], [255, 0, 0]]
    assert len(boxes_from_map(*grid_of(cells), ALL).boxes) == 2
    assert [box.bbox for box in boxes_from_map(*grid_of(cells), BoxRule(0.5, 0.3, "all")).boxes] == [(0, 0, 1, 2)]
    assert [box.bbox for box in boxes_from_map(*grid_of(cells), BoxRule(0.5)).boxes] == [(0, 0, 1, 2)]
    none, reason = boxes_from_map(*grid_of(cells), BoxRule(0.5, 0.4))[:2]
    assert none == []
    assert reason.startswith("component_too_small: every component covers less than 0.4")


def test_equal_components_are_ranked_by_their_peaks_cell():
    boxes, _ = boxes_from_map(*grid_of([[0, 0, 255], [255, 0, 0]]), ALL)[:2]
    assert [box.peak for box in boxes] == [(0, 2), (1, 0)]
    assert boxes_from_map(*grid_of([[0, 0, 255], [255, 0, 0]]), BoxRule(0.5)).boxes[0].peak == (0, 2)


@pytest.mark.parametrize(
    ("score_map", "code"),
    [
        (np.full((7, 7), 3.0), "map_constant"),
        (np.full((7, 7), np.nan), "map_not_finite"),
        (np.where(np.eye(7), np.nan, 1.0), "map_not_finite"),
        (np.where(np.eye(7), np.inf, 1.0), "map_not_finite"),
        (-1 - np.arange(49.0).reshape(7, 7), "map_not_positive"),
        (np.zeros((7, 7)), "map_not_positive"),
        (np.array([[5.0]]), "map_constant"),
        (np.array([[-5.0]]), "map_not_positive"),
    ],
)
def test_maps_that_give_no_box(score_map, code):
    boxes, reason = boxes_from_map(quantize(score_map), 640, 480, BoxRule())[:2]
    assert boxes == []
    assert reason.split(":")[0] == code


def test_an_image_of_one_pixel():
    boxes, reason = boxes_from_map(quantize(np.arange(49.0).reshape(7, 7)), 1, 1, BoxRule())[:2]
    assert boxes == []
    assert reason == "image_too_small: the map is constant over 1 x 1 pixels"


@pytest.mark.parametrize("values", [{"threshold": 1.1}, {"threshold": math.nan}, {"min_area": -0.1}, {"boxes": "some"}])
def test_rules_out_of_range(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))} is"):
        BoxRule(**values)


maps = arrays.arrays(np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)))
sides = st.integers(1, 900)
shares = st.floats(0, 1, width=32)


@settings(deadline=None)
@given(maps, sides, sides, shares)
@example(np.array([[2, 2, 2, 45, 2]], np.uint8), 9, 5, 1.0)  # rounding splits the peak into two slivers
def test_boxes_are_inside_the_image(cells, width, height, threshold):
    boxes, reason = boxes_from_map(stored(cells), width, height, BoxRule(threshold, boxes="all"))[:2]
    assert bool(boxes) != bool(reason)
    assert len({box.peak for box in boxes}) == len(boxes)
    assert [box.area for box in boxes] == sorted((box.area for box in boxes), reverse=True)
    assert sum(box.area for box in boxes) <= 1 + 1e-9
    for box in boxes:
        x, y, w, h = box.bbox
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height
        assert 0 <= box.mean <= 1
        assert 0 < box.area <= round(w * h / (width * height), 9) + 0.01


def test_a_plateau_that_rounding_splits_is_one_component():
    """One row of cells over five rows of pixels: each column is constant, but interpolation rounds it up and down."""
    working = WorkingMap(stored([[2, 2, 2, 45, 2]]), 9, 5)
    assert (working.scaled[:, 6] == 1).tolist() == [False, True, False, True, True]
    assert len(working.components(1.0)[1]) == 1 + 2
    (box,) = working.draw(BoxRule(1.0, boxes="all")).boxes
    assert (box.bbox, box.area, box.peak) == ((6, 1, 1, 4), 3 / 45, (0, 3))
    assert box.mean == pytest.approx(1, abs=1e-6)
    below = working.draw(BoxRule(0.9999, boxes="all")).boxes
    assert [(box.bbox, box.area, box.peak) for box in below] == [((6, 0, 1, 5), 5 / 45, (0, 3))]


@settings(deadline=None)
@given(maps, sides, sides, shares, shares)
def test_foreground_shrinks_as_the_threshold_grows(cells, width, height, one, other):
    low, high = sorted((one, other))
    wide = boxes_from_map(stored(cells), width, height, BoxRule(low, boxes="all")).boxes
    narrow = boxes_from_map(stored(cells), width, height, BoxRule(high, boxes="all")).boxes
    assert sum(box.area for box in narrow) <= sum(box.area for box in wide) + 1e-9
    for inner in narrow:
        assert any(_contains(outer.bbox, inner.bbox) for outer in wide)


def test_rounding_makes_no_boxes():
    """Two cells side by side over one column of pixels are one value, which interpolation rounds in several ways."""
    drawn = boxes_from_map(stored([[0, 47]]), 1, 15, BoxRule(1.0, boxes="instances"))
    assert (drawn.boxes, drawn.reason) == ([], "image_too_small: the map is constant over 1 x 15 pixels")


@settings(deadline=None)
@given(maps, sides, sides, shares)
def test_regions_share_out_the_components(cells, width, height, threshold):
    working = WorkingMap(stored(cells), width, height)
    instances = working.draw(BoxRule(threshold, boxes="instances"))
    components = working.draw(BoxRule(threshold, boxes="all"))
    assert instances.reason == components.reason
    assert sum(instances.areas) == pytest.approx(sum(components.areas))
    assert len({box.peak for box in instances.boxes}) == len(instances.boxes)
    assert [box.area for box in instances.boxes] == sorted((box.area for box in instances.boxes), reverse=True)
    for box in instances.boxes:
        x, y, w, h = box.bbox
        assert x >= 0 and y >= 0 and w > 0 and h > 0 and x + w <= width and y + h <= height
        assert any(_contains(component.bbox, box.bbox) for component in components.boxes)


def _contains(outer, inner):
    return (
        outer[0] <= inner[0]
        and outer[1] <= inner[1]
        and outer[0] + outer[2] >= inner[0] + inner[2] - 1e-9
        and outer[1] + outer[3] >= inner[1] + inner[3] - 1e-9
    )


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, (5, 6), elements=st.floats(-100, 100, width=32)),
    st.sampled_from([0.25, 2.0, 1024.0]),
)
def test_scaling_a_map_changes_nothing(score_map, factor):
    assume(score_map.max() > 1e-3)
    one = boxes_from_map(quantize(score_map), 300, 200, BoxRule(boxes="all"))
    assert boxes_from_map(quantize(score_map * np.float32(factor)), 300, 200, BoxRule(boxes="all")) == one


@settings(deadline=None)
@given(maps, sides, sides, shares)
def test_flips_commute(cells, width, height, threshold):
    drawing = WorkingMap(stored(cells), width, height)
    assume(drawing.empty_because is None and np.abs(drawing.scaled - threshold).min() > 1e-5)
    straight = boxes_from_map(stored(cells), width, height, BoxRule(threshold, boxes="all")).boxes
    flipped = boxes_from_map(stored(cells[:, ::-1]), width, height, BoxRule(threshold, boxes="all")).boxes
    mirrored = sorted((round(width - x - w, 2), y, w, h) for (x, y, w, h), *_ in flipped)
    np.testing.assert_allclose(sorted(box.bbox for box in straight), mirrored, atol=0.02)


@settings(deadline=None)
@given(maps, st.integers(448, 512), st.integers(448, 512), shares, shares)
def test_the_highest_boxs_uid_survives_another_threshold(cells, width, height, one, other):
    """The component that holds the map's highest cell is named by it, at whatever threshold.

    With 32 or more points of the grid to a cell, one of them comes within 1/64 of each centre, so that up to
    (1 - 1/64)² of the maximum it is foreground.
    """
    peak = np.unravel_index(cells.argmax(), cells.shape)
    for threshold in (one, other):
        boxes = boxes_from_map(stored(cells), width, height, BoxRule(min(threshold, 0.95), boxes="all")).boxes
        assume(boxes)
        assert tuple(peak) in {box.peak for box in boxes}


def test_box_uid_by_hand():
    import hashlib

    expected = hashlib.sha256('["a/ü.jpg", "cat", [0, 0, 4, 3], [1, 2]]'.encode()).hexdigest()[:16]
    assert box_uid("a/ü.jpg", "cat", [0, 0, 4, 3], (1, 2)) == expected
    assert len({box_uid("a", "b", [0, 0, 1, 1], (0, 0)), box_uid("a", "c", [0, 0, 1, 1], (0, 0)),
                box_uid("a", "b", [0, 0, 1, 1], (0, 1)), box_uid("a", "b", [0, 0, 2, 1], (0, 0))}) == 4  # fmt: skip


def test_quantization_by_hand():
    found = quantize(np.array([[-1.0, 0.0], [1.0, 0.5]]))
    assert found.cells.tolist() == [[0, 128], [255, 191]]
    assert (found.raw_min, found.raw_max) == (-1, 1)


def test_a_12_megapixel_photograph_is_drawn_on_as_few_cells_as_a_512_pixel_one():
    cells = np.arange(49, dtype=np.uint8).reshape(7, 7)
    large, small = (WorkingMap(stored(cells), *size) for size in ((4000, 3000), (512, 384)))
    assert large.scaled.shape == small.scaled.shape == (384, 512)


def test_the_otsu_level_splits_two_groups_and_a_threshold_may_be_a_share_of_it():
    # Six cells of 0, two of 100 and two of 200: splitting above 0 leaves the least variance inside the groups.
    # (Between-group variance, counts x squared difference of means: 6 * 4 * 150**2 against 8 * 2 * 175**2.)
    cells = [[0, 0, 0, 0, 0], [0, 100, 100, 200, 200]]
    drawing = WorkingMap(*grid_of(cells))
    assert drawing.otsu == pytest.approx(1 / 255)
    assert drawing.level(BoxRule("0.8*otsu")) == pytest.approx(0.8 / 255)
    assert drawing.level(BoxRule("otsu")) == drawing.otsu
    assert drawing.level(BoxRule(0.4)) == 0.4
    by_share = drawing.draw(BoxRule("2*otsu"))
    assert by_share.boxes[0].bbox == (1, 1, 4, 1)
    assert by_share.level == pytest.approx(2 / 255)


def test_components_are_counted_whatever_becomes_a_box():
    drawn = boxes_from_map(*grid_of([[255, 0, 255, 0, 255], [255, 0, 255, 0, 0]]), BoxRule(0.5))
    assert len(drawn.boxes) == 1
    assert drawn.areas == (0.2, 0.2, 0.1)


def test_the_component_at_the_peak_need_not_be_the_largest():
    cells = [[255, 0, 200, 200], [0, 0, 200, 200]]
    assert [box.bbox for box in boxes_from_map(*grid_of(cells), BoxRule(0.5)).boxes] == [(2, 0, 2, 2)]
    peak = boxes_from_map(*grid_of(cells), BoxRule(0.5, boxes="peak"))
    assert [box.bbox for box in peak.boxes] == [(0, 0, 1, 1)]
    assert peak.areas == (0.5, 0.125)
    none = boxes_from_map(*grid_of(cells), BoxRule(0.5, 0.2, "peak"))
    assert none.reason == "component_too_small: the component at the peak covers less than 0.2 of the image"


def test_a_label_may_have_a_threshold_of_its_own():
    rule = BoxRule(0.5, thresholds={"dog": 0.2, "cat": "otsu"})
    assert rule.of("dog") == BoxRule(0.2)
    assert rule.of("cat") == BoxRule("otsu")
    assert rule.of("cow") == BoxRule(0.5)


@pytest.mark.parametrize(
    ("network", "refine", "threshold"),
    [
        ("timm:tf_efficientnet_lite0", "affinity", "1*otsu"),
        ("timm:tf_efficientnet_lite0", "none", 0.25),
        ("timm:tf_efficientnet_lite1", "affinity", "1*otsu"),
        ("timm:tf_efficientnet_lite1", "none", 0.15),
        ("timm:tf_efficientnet_lite2", "none", 0.15),
        ("torchvision:resnet50", "affinity", "1*otsu"),
        ("torchvision:resnet50", "none", 0.25),
    ],
)
def test_the_default_suits_network_and_maps(network, refine, threshold):
    classifier = SimpleNamespace(spec=ModelSpec(network))
    assert BoxRule.default_for(classifier, MapSpec(refine=refine)) == BoxRule(threshold, boxes="peak")


@pytest.mark.parametrize("threshold", [-0.1, 1.1, "nan", "1.5", "3*otsu", "-1*otsu", "otsu*0.8", "0.8*", "", "half"])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ValueError, match=r"expected a share from 0 to 1 .*0.8\*otsu"):
        BoxRule(threshold)


def test_a_threshold_may_be_text():
    assert Cut.parse("0.25") == Cut.parse(0.25) == (0.25, False)
    assert Cut.parse("1e-1*otsu") == (0.1, True)


@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(2, 30), st.integers(2, 30)), elements=st.sampled_from([0, 9, 200])),
    st.sampled_from([0.01, 0.5, 1.0]),
)
def test_few_components_and_many_are_those_that_opencv_labels(cells, level):
    assume(cells.min() < cells.max())
    working = WorkingMap(*grid_of(cells))
    labels, statistics = working.components(level)
    foreground = (working.scaled >= np.float32(level)).astype(np.uint8)
    _, expected, of_expected, _ = cv2.connectedComponentsWithStats(foreground, connectivity=8)
    pairs = {*zip(labels.ravel().tolist(), expected.ravel().tolist(), strict=True)}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    for one, other in pairs - {(0, 0)}:
        assert statistics[one].tolist() == of_expected[other].tolist()
    assert len(statistics) == len(of_expected)


@pytest.mark.parametrize("count", [8, 9])
def test_components_of_which_there_are_as_many_as_are_filled_one_by_one_or_one_more(count):
    cells = np.zeros((3, 2 * count), np.uint8)
    cells[1, ::2] = 255
    labels, statistics = WorkingMap(*grid_of(cells)).components(0.5)
    assert statistics[1:].tolist() == [[2 * number, 1, 1, 1, 1] for number in range(count)]
    assert labels[1].tolist() == [value for number in range(count) for value in (number + 1, 0)]


@given(
    arrays.arrays(
        np.uint8, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.sampled_from([0, 9, 90, 200])
    ),
    st.sampled_from(["largest", "peak"]),
    st.sampled_from([0.0, 0.03, 0.3]),
    st.lists(st.one_of(shares, st.sampled_from(["0.5*otsu", "otsu"])), min_size=1, max_size=6),
)
def test_the_boxes_at_many_thresholds_are_those_at_each_of_them(cells, which, min_area, thresholds):
    working = WorkingMap(StoredMap(cells, 0.0, 1.0), 90, 60)
    rules = [BoxRule(threshold, min_area, which) for threshold in thresholds]
    drawn = [working.draw(rule).boxes for rule in rules]
    expected = [boxes[0].bbox if boxes else None for boxes in drawn]
    assert working.outlines(rules) == expected
