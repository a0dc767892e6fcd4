import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from camboxes.pipeline.evaluation.average_precision import Boxes, match_boxes, precision

IMAGES, CATEGORIES = 4, 3
NO_WEIGHTS = [0] * IMAGES


def _boxes(rows):
    """Rows of image, category, bbox, score, crowd."""
    image, category, bbox, score, crowd = zip(*rows, strict=True) if rows else [()] * 5
    return Boxes(
        np.array(image, np.int64),
        np.array(category, np.int64),
        np.array(bbox, np.float64).reshape(-1, 4),
        np.array(score, np.float64),
        np.array(crowd, bool),
    )


def _true(image, category, bbox, crowd=False):
    return image, category, bbox, 0.0, crowd


def _drawn(image, category, bbox, score):
    return image, category, bbox, score, False


def _peer(true, drawn, copies=(1,) * IMAGES):
    """AP, AP50 and AR by pycocotools, with so many copies of each image, and AP50 of each category."""
    numbers = {image: [image * 10 + copy for copy in range(copies[image])] for image in range(IMAGES)}

    def coco(rows):
        data = COCO()
        data.dataset = {
            "images": [{"id": number} for image in numbers.values() for number in image],
            "categories": [{"id": category} for category in range(CATEGORIES)],
            "annotations": [
                {"image_id": number, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3]}
                | {"score": score, "iscrowd": int(crowd)}
                for image, category, bbox, score, crowd in rows
                for number in numbers[image]
            ],
        }
        for number, annotation in enumerate(data.dataset["annotations"], start=1):
            annotation["id"] = number
        data.createIndex()
        return data

    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(coco(true), coco(drawn), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    found, recall = evaluation.eval["precision"][:, :, :, 0, 2], evaluation.eval["recall"][:, :, 0, 2]
    of_category = [np.mean(found[0, :, k]) * 100 for k in range(CATEGORIES) if found[0, 0, k] > -1]
    means = [100 * np.mean(values[values > -1]) for values in (found, found[0], recall)]
    return [*means, of_category]


def _ours(true, drawn, weights=(1,) * IMAGES):
    matches = match_boxes(_boxes(true), _boxes(drawn))
    found = precision(matches, np.array([NO_WEIGHTS, weights, NO_WEIGHTS], float))  # rows do not mix
    assert np.isnan(found.ap[[0, 2]]).all()
    of_category = found.ap50_of[1]
    return [found.ap[1], found.ap50[1], found.ar[1], of_category[~np.isnan(of_category)].tolist()]


def test_by_hand(capsys):
    square, beside = [0, 0, 10, 10], [20, 0, 10, 10]
    true = [_true(0, 0, square), _true(1, 0, square)]
    drawn = [_drawn(0, 0, square, 0.9), _drawn(1, 0, beside, 0.8), _drawn(1, 0, square, 0.7)]
    # Precision 1 up to recall 0.5 (51 of 101 recalls), then 2/3 for the other 50.
    assert _ours(true, drawn)[0] == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    # The second image twice: after its 2 misses and 2 hits 3 of 5 boxes are hits; recall 1/3 (34 recalls) before.
    assert _ours(true, drawn, [1, 2, 0, 0])[0] == pytest.approx(100 * (34 + 67 * 3 / 5) / 101)
    assert _ours(true, drawn, [1, 0, 0, 0])[:3] == pytest.approx([100, 100, 100])
    assert _ours(true, drawn, [0, 1, 0, 0])[:3] == pytest.approx([50, 50, 100])
    assert capsys.readouterr().out == "", "pycocotools is silent"


def test_iou_of_the_ten_levels():
    # IoU 0.8: found at 0.50 to 0.80, 7 of the 10.
    assert _ours([_true(0, 0, [0, 0, 10, 10])], [_drawn(0, 0, [0, 0, 10, 8], 0.9)])[:3] == pytest.approx([70, 100, 70])


@pytest.mark.parametrize("found", [1, 7, 14, 29, 55, 57, 58, 99, 100])
def test_recalls_that_are_reached_exactly(found):
    # Of 100 true boxes so many are found, one after the other without a miss: as many of COCO's
    # 101 recalls are reached as are not above that share, in whatever way floating point rounds either.
    places = [[20 * number, 0, 10, 10] for number in range(100)]
    drawn = [_drawn(0, 0, place, 1 - number / 200) for number, place in enumerate(places[:found])]
    reached = int((np.linspace(0, 1, 101) <= found / 100).sum())
    assert _ours([_true(0, 0, place) for place in places], drawn)[0] == pytest.approx(100 * reached / 101)


def test_crowds_unlabelled_boxes_and_none_at_all():
    square = [0, 0, 10, 10]
    crowd = [_true(0, 0, square), _true(1, 0, [0, 0, 50, 50], True)]
    within = [_drawn(0, 0, square, 0.5), _drawn(1, 0, [10, 10, 5, 5], 0.9)]
    assert _ours(crowd, within)[0] == pytest.approx(100), "a box in a crowd is neither right nor wrong"
    assert _ours(crowd[:1], within)[0] == pytest.approx(50), "without a true box it is wrong"
    assert _ours(crowd[:1], [])[:3] == [0, 0, 0]
    assert _ours([*crowd[:1], _true(2, 1, square)], within[:1])[:3] == pytest.approx([50, 50, 50])
    assert [each.category for each in match_boxes(_boxes(crowd[1:]), _boxes(within))] == [], "nothing to find"


_places = st.integers(0, 3).map(lambda number: [5 * number, 0, 10, 10])
_truths = st.lists(
    st.tuples(st.integers(0, IMAGES - 1), st.integers(0, CATEGORIES - 1), _places, st.booleans()),
    min_size=1,
    max_size=10,
)
_finds = st.lists(
    st.tuples(st.integers(0, IMAGES - 1), st.integers(0, CATEGORIES - 1), _places, st.integers(0, 4)), max_size=12
)


@given(_truths, _finds)
@settings(max_examples=100, deadline=None)
def test_at_weight_1_it_is_pycocotools(truths, finds):
    true = [_true(0, 0, [0, 0, 10, 10]), *(_true(*each) for each in truths)]
    drawn = [_drawn(*place, score / 4) for *place, score in finds]  # with ties
    ours, peers = _ours(true, drawn), _peer(true, drawn)
    assert ours[:3] == pytest.approx(peers[:3], abs=1e-9)
    assert ours[3] == pytest.approx(peers[3], abs=1e-9)


@pytest.mark.parametrize("seed", range(24))
def test_boxes_that_overlap_by_any_share_match_as_in_pycocotools(seed):
    random = np.random.default_rng(seed)
    few, many = random.integers(1, 30), random.choice([5, 60, 400])  # of 400 some pair has more than the 100 that count

    def boxes(count):
        bbox = random.integers(0, 6, (count, 4)) * 3.0 if seed % 2 else random.random((count, 4)) * 20
        bbox[:, 2:] += random.choice([3, 13])
        image, category = random.integers(0, IMAGES, count), random.integers(0, 1 if many == 400 else CATEGORIES, count)
        return zip(image.tolist(), category.tolist(), bbox.tolist(), random.integers(0, 6, count).tolist(), strict=True)

    true = [_true(*place, score == 0) for *place, score in boxes(few)] + [_true(0, 0, [0, 0, 10, 10])]
    drawn = [_drawn(*place, score / 5) for *place, score in boxes(many)]
    ours, peers = _ours(true, drawn), _peer(true, drawn)
    assert ours[:3] == pytest.approx(peers[:3], abs=1e-9)
    assert ours[3] == pytest.approx(peers[3], abs=1e-9)


@given(_truths, _finds, st.lists(st.integers(0, 3), min_size=IMAGES - 1, max_size=IMAGES - 1))
@settings(max_examples=100, deadline=None)
def test_a_weight_is_so_many_copies_of_the_image(truths, finds, weights):
    true = [_true(0, 0, [0, 0, 10, 10]), *(_true(*each) for each in truths)]
    drawn = [
        _drawn(*place, number / 20) for number, (*place, _) in enumerate(finds)
    ]  # copies tie with each other alone
    ours, peers = _ours(true, drawn, [1, *weights]), _peer(true, drawn, [1, *weights])
    assert ours[:3] == pytest.approx(peers[:3], abs=1e-9)
    assert ours[3] == pytest.approx(peers[3], abs=1e-9)
