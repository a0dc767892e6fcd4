"""MaxBoxAcc, MaxBoxAccV2 and PxAP. tests/golden/wsol holds ten images of a reference evaluator's set.

Its curves were made by taking the definition step by step, which gives the reference's own numbers on the whole set.
"""

import dataclasses
import functools
import json
import operator
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import cv2
import numpy as np
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms.wsol.combiners import BoxedMap, CountsCoder, MaskedMap, MaxBoxAcc, PxAP
from camboxes.transforms.wsol.metrics import (
    BACKGROUND,
    FOREGROUND,
    IGNORED,
    BoxCounts,
    PixelCounts,
    contour_boxes,
    pixel_labels,
    scale_boxes,
    scale_map,
    thresholds,
)

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "wsol"


def a_map(*rectangles, background=0.0):
    """A map on the square from (value, x0, y0, x1, y1), half-open, later ones on top."""
    drawn = np.full((224, 224), background)
    for value, x0, y0, x1, y1 in rectangles:
        drawn[y0:y1, x0:x1] = value
    return drawn


def correct(score_map, truth, step=0.25):
    """1 or 0 by rule, IoU (.3, .5, .7) and threshold."""
    return BoxCounts.of("a.jpg", score_map, truth, step).counts.tolist()


def golden(folder=GOLDEN):
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "wsol_golden.py"), str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_reference_numbers():
    done = golden()
    assert done.returncode == 0, done.stderr
    assert "MaxBoxAcc: largest difference 0\nMaxBoxAccV2: largest difference 0\n" in done.stdout
    assert "the same counts" in done.stdout


@pytest.mark.parametrize(
    ("metric", "said", "change"),
    [
        ("MaxBoxAcc", "MaxBoxAcc: largest difference 10", lambda metric: metric["curve"]["70"].__setitem__(99, 10.0)),
        (
            "MaxBoxAccV2",
            "MaxBoxAccV2: largest difference 10",
            lambda metric: metric["curve"]["30"].__setitem__(0, 50.0),
        ),
        (
            "PxAP",
            r"PxAP: largest difference [12]\.?\d*e-09",
            lambda metric: metric.update(value=metric["value"] + 2e-9),
        ),
    ],
)
def test_one_point_that_differs_from_the_reference(tmp_path, metric, said, change):
    shutil.copytree(GOLDEN, tmp_path / "wsol")
    numbers = json.loads((GOLDEN / "golden.json").read_text())
    change(numbers[metric])
    (tmp_path / "wsol" / "golden.json").write_text(json.dumps(numbers))
    done = golden(tmp_path / "wsol")
    assert done.returncode == 1, done.stderr
    assert re.search(f"^{said}$", done.stdout, re.MULTILINE)


def test_boxes_are_scaled_and_truncated():
    # x * 224 / 400 and y * 224 / 448: 5.6, 10, 56, 100.5
    assert scale_boxes([[10, 20, 100, 201]], 400, 448).tolist() == [[5, 10, 56, 100]]
    assert scale_boxes([], 400, 448).shape == (0, 4)


def test_a_map_is_scaled_after_it_is_resized():
    """Cubic interpolation overshoots: scaled before, these extremes would be beyond 0 and 1."""
    score_map = np.array([[-1, -1, 3, 3], [-1, -1, 3, 3]], np.float32)
    found = scale_map(score_map)
    assert (found.shape, found.dtype, found.min(), found.max()) == ((224, 224), np.float32, 0, 1)
    resized = cv2.resize(score_map, (224, 224), interpolation=cv2.INTER_CUBIC)
    assert resized.min() < -1 and resized.max() > 3
    np.testing.assert_array_equal(found, (resized - resized.min()) / (resized.max() - resized.min()))


@pytest.mark.parametrize(
    "score_map",
    [
        np.full((7, 7), 3.0),
        np.array([[5.0]]),
        np.full((7, 7), 0.1),
        np.where(np.eye(7), np.nan, 1.0),
        np.where(np.eye(7), np.inf, 1.0),
        np.where(np.eye(7), -3e38, 3e38),
    ],
)
def test_maps_that_become_zeros(score_map):
    zeros = scale_map(score_map)
    assert zeros.shape == (224, 224) and not zeros.any()
    found = contour_boxes(zeros, 0.25)
    assert [found.every[number].tolist() for number in found.foreground] == [[[0, 0, 0, 0]]] * 4
    # [0, 0, 0, 0] is one pixel: half of a box of two.
    assert correct(zeros, [[0, 0, 1, 0]]) == [[[1] * 4, [1] * 4, [0] * 4]] * 2


def test_a_threshold_is_a_share_of_the_maximum_and_the_cut_is_outside():
    """uint8 values 40 and 200: the cut is int(t * 200), 40 at t = 0.2, which is no longer below 40."""
    score_map = a_map((40.5 / 255, 10, 20, 110, 120), (200.5 / 255, 50, 60, 70, 80))
    found = contour_boxes(score_map, 0.1)
    boxes = [found.largest[number].tolist() for number in found.foreground]
    assert boxes == [[10, 20, 110, 120]] * 2 + [[50, 60, 70, 80]] * 8
    assert len(found.every) == 2


def test_corners_are_inclusive_and_end_at_the_last_pixel():
    found = contour_boxes(a_map((1.0, 0, 0, 224, 224)), 0.5)
    assert found.largest.tolist() == [[0, 0, 223, 223]]
    # The contour of 9 x 9 pixels gives 0, 0, 9, 9: 100 pixels, of which the truth has 50; IoU is 0.5, which is enough.
    assert correct(a_map((1.0, 0, 0, 9, 9)), [[0, 0, 9, 4]]) == [[[1] * 4, [1] * 4, [0] * 4]] * 2


def test_every_contour_counts_for_v2_and_the_largest_alone_for_max_box_acc():
    """A ring, whose hole is a contour too (of the pixels around it), and a small object beside it."""
    ring = a_map((1.0, 20, 20, 100, 100), (0.0, 40, 40, 80, 80), (1.0, 150, 160, 160, 180))
    found = contour_boxes(ring, 0.5)
    assert sorted(found.every[0].tolist()) == [[20, 20, 100, 100], [39, 39, 81, 81], [150, 160, 160, 180]]
    assert found.largest.tolist() == [[20, 20, 100, 100]]
    none, all_ = [[0, 0]] * 3, [[1, 1]] * 3
    assert correct(ring, [[150, 160, 160, 180]], 0.5) == [none, all_]
    # 43² / 81² is 0.28
    assert correct(ring, [[39, 39, 81, 81]], 0.5) == [none, all_]
    assert correct(ring, [[0, 200, 5, 210], [20, 20, 100, 100]], 0.5) == [all_, all_]


def test_the_best_threshold_of_each_iou_over_the_data_set():
    """Two images whose largest box is right at t 0 alone, and at 0.5 alone."""
    low = BoxCounts.of("a", a_map((0.25, 20, 20, 120, 120), (1.0, 20, 20, 80, 120)), [[20, 20, 120, 120]], 0.5)
    high = BoxCounts.of("b", a_map((0.25, 20, 20, 120, 120), (1.0, 20, 20, 50, 50)), [[20, 20, 50, 50]], 0.5)
    # IoU: 1 and 61 / 101 = 0.604 for the first; (31 / 101)² = 0.09 and 1 for the second
    first, every = (low + high).result()
    assert first.curves.tolist() == every.curves.tolist() == [[50, 100], [50, 100], [50, 50]]
    assert first.best.tolist() == [100, 100, 50]
    assert first.value == 100
    assert every.value == 250 / 3


def test_pxap_by_hand():
    score_map, labels = np.zeros((224, 224)), np.full((224, 224), IGNORED, np.uint8)
    score_map[0, :7] = [0.75, 0.5, 0.6, 0.3, 0.1, 0, 1]
    labels[0, :7] = [FOREGROUND, FOREGROUND, BACKGROUND, FOREGROUND, BACKGROUND, BACKGROUND, IGNORED]
    counts = PixelCounts.of("a.jpg", score_map, labels, 0.5)
    assert counts.counts.tolist() == [[1, 2, 0, 0], [2, 1, 0, 0]]
    found = counts.result()
    np.testing.assert_array_equal(found.precision, [np.nan, np.nan, 2 / 3, 1 / 2])
    np.testing.assert_array_equal(found.recall, [0, 0, 2 / 3, 1])
    assert found.value == pytest.approx(100 * (2 / 3 * 2 / 3 + 1 / 2 * 1 / 3), abs=1e-12)


def test_pixel_labels_by_hand():
    """Nearest neighbour of masks of 2 x 2 and 1 x 2 cells: quadrants; foreground wins, and 0.5 is not above 0.5."""
    labels = pixel_labels(
        "a.jpg", [np.array([[255, 0], [0, 0]]), np.array([[0.5, 0.0]])], np.array([[True, True], [False, True]])
    )
    expected = np.full((224, 224), BACKGROUND, np.uint8)
    expected[:, 112:] = IGNORED
    expected[:112, :112] = FOREGROUND
    np.testing.assert_array_equal(labels, expected)
    without = pixel_labels("a.jpg", [np.array([[255, 0], [0, 0]])])
    assert np.unique(without).tolist() == [BACKGROUND, FOREGROUND]


A_MAP = a_map((1.0, 10, 10, 20, 20))
NO_MASK = "a.jpg: there is no mask; expected at least one"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: BoxCounts.of("a.jpg", A_MAP, [], 0.5), "a.jpg: there is no ground-truth box; expected at least one"),
        (lambda: BoxCounts.of("a.jpg", A_MAP, [[9, 1, 5, 8]], 0.5), r"a.jpg: expected boxes .* not \[\[9, 1, 5, 8\]\]"),
        (lambda: BoxCounts.of("a.jpg", A_MAP[:7], [[0, 0, 9, 9]], 0.5), r"a.jpg: the map's shape is \(7, 224\)"),
        (lambda: BoxCounts.of("a.jpg", A_MAP * 2, [[0, 0, 9, 9]], 0.5), "a.jpg: the map goes from 0.0 to 2.0"),
        (lambda: BoxCounts.of("a.jpg", A_MAP * np.nan, [[0, 0, 9, 9]], 0.5), "a.jpg: the map goes from nan"),
        (lambda: PixelCounts.of("a.jpg", -A_MAP, A_MAP, 0.5), "a.jpg: the map goes from -1.0 to"),
        (lambda: PixelCounts.of("a.jpg", A_MAP, A_MAP[:9], 0.5), r"a.jpg: the labels' shape is \(9, 224\)"),
        (lambda: pixel_labels("a.jpg", []), NO_MASK),
        (lambda: scale_map(np.zeros((0, 7))), r"the map's shape is \(0, 7\)"),
        (lambda: scale_map(np.zeros(7)), r"the map's shape is \(7,\)"),
        (lambda: scale_boxes([[0, 0, 1, np.nan]], 4, 3), "expected finite boxes"),
        (lambda: scale_boxes([[0, 0, 1, 1]], 0, 3), "the image has 0 x 3 pixels"),
        (lambda: thresholds(0), "step is 0; expected a share"),
        (lambda: BoxCounts.none(0.5) + BoxCounts.none(0.25), "steps 0.5 and 0.25 do not add up"),
        (lambda: BoxCounts.none(0.5).result(), "no image was judged"),
        (lambda: PixelCounts.of("a", A_MAP, np.zeros_like(A_MAP), 0.5).result(), "none of 1 image has a foreground"),
    ],
)
def test_what_cannot_be_judged(call, message):
    with pytest.raises(ValueError, match=message):
        call()


blocky = arrays.arrays(np.uint8, (6, 7)).map(lambda cells: np.kron(cells, np.ones((38, 32)))[:224, :224] / 255)
steps = st.sampled_from([0.5, 0.3, 0.01, 0.001])


@settings(deadline=None, max_examples=30)
@given(blocky, steps)
def test_boxes_are_those_of_each_threshold_alone(score_map, step):
    """Equal foregrounds are held once; nothing else follows from that."""
    found = contour_boxes(score_map, step)
    grey = (score_map * 255).astype(np.uint8)
    for t, number in zip(np.arange(0, 1, step), found.foreground, strict=True):
        foreground = (grey > int(t * int(grey.max()))).astype(np.uint8)
        contours, _ = cv2.findContours(foreground, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
        sides = [cv2.boundingRect(contour) for contour in contours] or [(0, 0, 0, 0)]
        assert found.every[number].tolist() == [[x, y, min(x + w, 223), min(y + h, 223)] for x, y, w, h in sides]


images = st.lists(
    st.tuples(arrays.arrays(np.float32, (4, 5), elements=st.floats(-9, 9, width=32)), st.integers(0, 150)),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=30)
@given(images, st.randoms(use_true_random=False))
def test_any_order_and_grouping_adds_up_to_the_same(given_images, random):
    boxes, pixels = [], []
    for cells, start in given_images:
        truth = [[start, start, start + 60, start + 70]]
        labels = pixel_labels("a", [a_map((1.0, start, start, start + 60, start + 70))])
        boxes.append(BoxCounts.of("a", scale_map(cells), truth, 0.05))
        pixels.append(PixelCounts.of("a", scale_map(cells), labels, 0.05))
    for parts in (boxes, pixels):
        once = functools.reduce(operator.add, parts)
        while len(parts) > 1:
            one, other = (parts.pop(random.randrange(len(parts))) for _ in range(2))
            parts.append(one + other)
        assert parts[0].images == once.images == len(given_images)
        np.testing.assert_array_equal(parts[0].counts, once.counts)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(10, 60), st.integers(10, 60), st.floats(0.1, 1))
def test_a_perfect_map_and_one_that_is_shifted(x, y, width, height, value):
    score_map = a_map((value, x, y, x + width, y + height))
    truth, labels = [[x, y, x + width, y + height]], pixel_labels("a", [score_map > 0])
    perfect = BoxCounts.of("a", score_map, truth, 0.1).result()
    assert (perfect.max_box_acc.value, perfect.max_box_acc_v2.value) == (100, 100)
    assert PixelCounts.of("a", score_map, labels, 0.1).result().value == 100
    # Moved by more than a fifth of its width, IoU is below (1 - 0.2) / (1 + 0.2).
    shifted = np.roll(score_map, width // 5 + 3, axis=1)
    assert BoxCounts.of("a", shifted, truth, 0.1).result().max_box_acc_v2.value < 100
    assert PixelCounts.of("a", shifted, labels, 0.1).result().value < 100


def test_a_beam_job_gives_the_value_of_the_plain_functions():
    random = np.random.default_rng(0)
    cells = [random.normal(size=(7, 8)), random.normal(size=(14, 14)), np.full((7, 7), np.nan), np.ones((7, 7))]
    box = [60, 50, 200, 180]
    mask = np.zeros((240, 320))
    mask[50:180, 60:200] = 1
    ignore = np.ones((240, 320))
    ignore[:, :300] = 0
    boxed = [BoxedMap(f"{number}.jpg", of_one, [box], 320, 240) for number, of_one in enumerate(cells)]
    masked = [MaskedMap(f"{number}.jpg", of_one, [mask], ignore) for number, of_one in enumerate(cells)]
    truth, labels = scale_boxes([box], 320, 240), pixel_labels("a", [mask], ignore)
    boxes = sum((BoxCounts.of("a", scale_map(of_one), truth, 0.01) for of_one in cells), BoxCounts.none(0.01))
    pixels = sum((PixelCounts.of("a", scale_map(of_one), labels, 0.01) for of_one in cells), PixelCounts.none(0.01))

    def equal(expected):
        def check(found):
            [result] = found
            for one, other in zip(_flat(result), _flat(expected), strict=True):
                np.testing.assert_array_equal(one, other)

        return check

    with beam.Pipeline(options=beam_options([])) as pipeline:
        of_boxes = pipeline | "Boxed" >> beam.Create(boxed) | beam.CombineGlobally(MaxBoxAcc(0.01))
        of_masks = pipeline | "Masked" >> beam.Create(masked) | beam.CombineGlobally(PxAP(0.01))
        assert_that(of_boxes, equal(boxes.result()), label="Boxes")
        assert_that(of_masks, equal(pixels.result()), label="Masks")


def _flat(result):
    return [value for part in result for value in (_flat(part) if isinstance(part, tuple) else [part])]


def test_a_beam_job_names_the_image_that_cannot_be_judged():
    for combiner, element, message in [
        (MaxBoxAcc(), BoxedMap("a.jpg", A_MAP, [], 4, 3), "a.jpg: there is no ground-truth box"),
        (MaxBoxAcc(), BoxedMap("a.jpg", A_MAP[0], [[0, 0, 1, 1]], 4, 3), "a.jpg: the map's shape"),
        (PxAP(), MaskedMap("a.jpg", A_MAP, []), NO_MASK),
        (PxAP(), MaskedMap("a.jpg", A_MAP[0], [A_MAP]), "a.jpg: the map's shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            combiner.add_input(combiner.create_accumulator(), element)


@pytest.mark.parametrize("kind", [BoxCounts, PixelCounts])
def test_accumulators_are_coded_deterministically(kind):
    counts = np.arange(np.prod(kind.shape(0.25))).reshape(kind.shape(0.25))
    value = kind(0.25, 7, counts)
    coder = CountsCoder(kind)
    encoded = coder.encode(value)
    # 0.25 is 2^-2: exponent 1021 and nothing behind it.
    assert encoded[:32].hex() == "000000000000d03f" + "0700000000000000" + "0000000000000000" + "0100000000000000"
    assert len(encoded) == 16 + 8 * counts.size
    assert coder.encode(dataclasses.replace(value, counts=np.asfortranarray(counts))) == encoded
    decoded = coder.decode(encoded)
    assert (type(decoded), decoded.step, decoded.images) == (kind, 0.25, 7)
    np.testing.assert_array_equal(decoded.counts, counts)
    assert coder.is_deterministic()


def test_the_combiners_use_that_coder():
    assert MaxBoxAcc().get_accumulator_coder() == CountsCoder(BoxCounts)
    assert PxAP().get_accumulator_coder() == CountsCoder(PixelCounts) != CountsCoder(BoxCounts)
