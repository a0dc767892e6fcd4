import cv2
import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camboxes.transforms import BoxRule, boxes_from_map
from camboxes.transforms.boxes.instances import flood, split
from camboxes.transforms.boxes.stored_maps import StoredMap, quantize

INSTANCES = BoxRule(0.2, boxes="instances")


def stored(cells):
    return StoredMap(np.array(cells, np.uint8), -1.0, 2.0)


def grid_of(cells):
    """An image of exactly one pixel per cell, so that nothing is interpolated."""
    return stored(cells), len(cells[0]), len(cells)


def flooded(heights, level=0.0):
    """The regions of a map that is one component."""
    heights = np.array(heights, np.float64)
    return flood(heights, (heights >= level).astype(np.int32), level).tolist()


def boxes_of(cells, rule=INSTANCES):
    return [box.bbox for box in boxes_from_map(*grid_of(cells), rule).boxes]


def test_two_hills_part_where_the_saddle_lies_below_two_fifths_of_the_lower_one():
    # Above a threshold of 51 the lower hill is 190 high: its saddle parts it below 51 + 0.4 * 190 = 127.
    assert boxes_of([[0, 255, 126, 241, 0]]) == [(1, 0, 2, 1), (3, 0, 1, 1)]
    assert boxes_of([[0, 255, 128, 241, 0]]) == [(1, 0, 3, 1)]


def test_a_hill_below_nine_tenths_of_the_highest_is_a_part_of_it():
    # 51 + 0.9 * 204 = 234.6
    assert boxes_of([[0, 255, 60, 235, 0]]) == [(1, 0, 2, 1), (3, 0, 1, 1)]
    assert boxes_of([[0, 255, 60, 234, 0]]) == [(1, 0, 3, 1)]


def test_the_saddle_on_a_diagonal_is_that_of_the_bilinear_surface():
    # Between 1 and 1 across a square whose other corners are b and c: (1 - b c) / (2 - b - c).
    assert flooded([[1, -0.6], [-0.6, 1]]) == [[1, 0], [0, 2]]  # 0.64 / 3.2 = 0.2
    assert flooded([[1, 0], [0, 1]]) == [[1, 1], [1, 1]]  # 1 / 2
    assert flooded([[-0.6, 1], [1, -0.6]]) == [[0, 1], [2, 0]]
    # Where one of the other corners is higher than the lower end, there is no saddle between.
    assert flooded([[1, 0.9], [-0.6, 0.95]]) == [[1, 1], [0, 1]]


def test_three_hills_and_a_shoulder():
    # The first saddle, of 0.5, is too high to part the hill before it; those of 0.2 and 0.3 are not. Peaks that are
    # equally high: the first one's region has the component's number.
    assert flooded([[0.95, 0.5, 0.98, 0.2, 1.0, 0.3, 1.0]]) == [[2, 2, 2, 1, 1, 1, 3]]


def test_a_valley_belongs_to_the_higher_of_its_neighbours():
    assert flooded([[0.95, 0.2, 0.1, 0.3, 1.0]]) == [[2, 2, 1, 1, 1]]
    assert flooded([[0.95, 0.1, 1.0]]) == [[2, 1, 1]]


def test_equal_heights_go_in_row_order():
    assert flooded([[1, 1, 0, 1, 1]]) == [[1, 1, 1, 2, 2]]
    assert flooded([[1], [0], [0], [1]]) == [[1], [1], [2], [2]]
    assert flooded([[1, 1], [1, 1]]) == [[1, 1], [1, 1]]


def test_a_region_is_named_by_its_own_peak_and_ranked_by_its_area():
    cells = [
        [200, 0, 0, 0, 0],
        [200, 250, 70, 255, 0],
        [200, 200, 0, 0, 0],
    ]
    boxes = boxes_from_map(*grid_of(cells), INSTANCES).boxes
    assert [box.bbox for box in boxes] == [(0, 0, 2, 3), (2, 1, 2, 1)]
    assert [box.area for box in boxes] == [5 / 15, 2 / 15]
    assert [box.peak for box in boxes] == [(1, 1), (1, 3)]
    np.testing.assert_allclose([box.mean for box in boxes], [1050 / 6 / 255, 325 / 2 / 255], rtol=1e-6)


def test_a_region_below_a_quarter_of_the_largest_gives_no_box():
    four, five = ([[255, 250, 250, 250, *more, 0, 255]] for more in ([], [250]))
    assert boxes_of(four) == [(0, 0, 4, 1), (5, 0, 1, 1)]
    drawn = boxes_from_map(*grid_of(five), INSTANCES)
    assert [box.bbox for box in drawn.boxes] == [(0, 0, 5, 1)]
    assert drawn.areas == (5 / 7, 1 / 7)


def test_regions_below_min_area_give_no_box():
    cells = [[255, 60, 255, 0]]
    assert boxes_of(cells, BoxRule(0.2, 0.3, "instances")) == [(0, 0, 2, 1)]
    none = boxes_from_map(*grid_of(cells), BoxRule(0.2, 0.6, "instances"))
    assert none.boxes == []
    assert none.reason == "component_too_small: every region covers less than 0.6 of the image"


def test_points_follow_the_nearest_cell_of_their_component():
    # Three points to a cell. The component ends within a cell that is no one's: its points go to the cell beside it.
    labels = np.array([[0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0]] * 3, np.int32)
    owners = np.array([[0, 1, 1, 1]], np.int32)
    parted, cells = split(labels, owners, np.array([[0.0, 1.0, 0.2, 1.0]]), 0.1)
    assert cells.tolist() == [[0, 1, 1, 2]]
    assert parted.tolist() == [[0, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 0]] * 3


@settings(deadline=None)
@given(
    arrays.arrays(
        np.float64, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from(np.arange(9) / 8)
    ),
    st.sampled_from([0.0, 0.25, 0.6]),
)
def test_a_components_regions_are_no_more_than_its_peaks_and_hold_one_of_them_each(heights, level):
    assume(heights.max() >= level)
    _, owners = cv2.connectedComponents((heights >= level).astype(np.uint8), connectivity=8)
    regions = flood(heights, owners, level)
    assert ((regions > 0) == (owners > 0)).all()
    for region in np.unique(regions[regions > 0]):
        inside = regions == region
        assert len(np.unique(owners[inside])) == 1
        assert cv2.connectedComponents(inside.astype(np.uint8), connectivity=8)[0] == 2
        peaks = inside & (heights == heights[inside].max())
        neighbours = cv2.dilate(heights, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))
        assert (heights[peaks] == neighbours[peaks]).any()


@settings(deadline=None)
@given(
    st.integers(0, 11),
    st.integers(0, 11),
    st.floats(1, 8),
    st.integers(30, 600),
    st.integers(30, 600),
    st.floats(0, 1, width=32),
)
def test_one_hill_gives_the_box_of_the_component_at_the_peak(row, column, spread, width, height, threshold):
    rows, columns = np.mgrid[:12, :12]
    hill = quantize(np.exp(-np.maximum(abs(rows - row), abs(columns - column)) / spread))
    one, other = (
        boxes_from_map(hill, width, height, BoxRule(threshold, boxes=which)) for which in ("instances", "peak")
    )
    assert one == other
    assert len(one.boxes) == 1


@settings(deadline=None)
@given(arrays.arrays(np.float32, (5, 6), elements=st.floats(-100, 100, width=32)), st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaling_a_map_changes_nothing(score_map, factor):
    assume(score_map.max() > 1e-3)
    one = boxes_from_map(quantize(score_map), 300, 200, INSTANCES)
    assert boxes_from_map(quantize(score_map * np.float32(factor)), 300, 200, INSTANCES) == one
