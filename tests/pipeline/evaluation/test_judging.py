import dataclasses
import hashlib

import numpy as np
import pytest

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation.judging import judge
from camboxes.pipeline.evaluation.redrawing import redraw
from camboxes.pipeline.formats.exported_names import stem
from camboxes.transforms import BoxRule
from camboxes.transforms.boxes.from_map import best_iou

HOT = np.zeros((10, 10), np.uint8)  # a map of 10 x 10 cells, hot in the corner
HOT[:4, :4] = 255
BOX = ([0, 0, 4, 4], 0.5, 1, None)


def test_best_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 2, 2], [8, 8, 1, 1], [2, 0, 2, 2.0]])
    truth = np.array([[0, 0, 2, 2], [0, 0, 3, 3.0]])
    # With the first: 1, 1/7, 0, 0 (they touch); with the second: 4/9, 4/9, 0, 2/11.
    assert best_iou(boxes, truth).tolist() == pytest.approx([1, 4 / 9, 0, 2 / 11])


def test_pairs_by_hand(made, truth_of):
    two = [([0, 0, 4, 4], 0.9, 1, 0.1), ([5, 5, 4, 4], 0.2, 2, 0.8)]
    tied = [([0, 0, 4, 4], 0.5, 2, None), ([0, 0, 2, 2], 0.5, 1, None)]
    run = made(
        {
            "a.jpg": ({"dog": (10, two, HOT), "cat": (14, [], HOT), "bird": (11, [BOX], HOT)},),
            "b.jpg": ({"dog": (15, tied, HOT), "cat": (12, [BOX], HOT)},),
        }
    )
    crowd = {"ignored": {"cat": np.array([[0, 0, 9, 9.0]])}}
    truth = truth_of(
        {
            "a.jpg": {"dog": [[5, 5, 4, 2], [0, 0, 1, 1]], "cat": [[0, 0, 10, 10]]},
            "b.jpg": ({"dog": [[0, 0, 4, 4]]}, crowd),
        }
    )
    judged = judge(run, truth)
    in_order = [row["path"] for key in run.shards for row in run.planned_rows(key).to_pylist()]
    assert judged.paths == in_order
    assert judged.categories == ["bird", "cat", "dog"]
    assert judged.sizes.tolist() == [[10, 10], [10, 10]]
    a, b = in_order.index("a.jpg"), in_order.index("b.jpg")
    columns = ("iou", "score", "raw_score", "calibrated", "top1", "top5")
    expected = {
        # The second box has the higher calibrated score; its IoU with 8 pixels of its 16 is a half.
        (a, "dog"): (0.5, 0.8, 0.2, 0.8, True, True),
        (a, "cat"): (0, np.nan, np.nan, np.nan, False, True),
        # Of equal scores that of rank 1.
        (b, "dog"): (0.25, 0.5, 0.5, np.nan, False, False),
    }
    # The centred box is 1, 1, 8, 8: it holds the 8 pixels at 5, 5; all of the 64; 9 of the 16 at 0, 0.
    floors = {(a, "dog"): (8 / 64, 0.08), (a, "cat"): (0.64, 1), (b, "dog"): (9 / 71, 0.16)}
    order = sorted(expected)
    assert list(zip(judged.image.tolist(), (judged.categories[c] for c in judged.category), strict=True)) == order
    for column, name in enumerate(columns):
        values = [expected[pair][column] for pair in order]
        assert getattr(judged, name).tolist() == pytest.approx(values, nan_ok=True), name
    assert judged.centre.tolist() == pytest.approx([floors[pair][0] for pair in order])
    assert judged.whole.tolist() == pytest.approx([floors[pair][1] for pair in order])
    assert judged.settings["rule"] == dataclasses.asdict(BoxRule())
    assert judged.matching.categories == ["cat", "dog"]
    assert judged.matching.categories_only_in_run == ["bird"]
    assert judged.matching.labelled_without_true_box == 1, "the cat of b.jpg, of which a crowd alone is known"
    found = judged.detections
    boxes = sorted(zip(found.image.tolist(), found.category.tolist(), found.score.tolist(), strict=True))
    assert boxes == sorted([(a, 2, 0.1), (a, 2, 0.8), (b, 2, 0.5), (b, 2, 0.5), (b, 1, 0.5)]), "not the bird's"
    assert found.bbox[found.score == 0.8].tolist() == [[5, 5, 4, 4]]


def test_what_cannot_be_matched_is_listed(made, truth_of):
    one = {"dog": (10, [BOX], HOT)}
    rejected = {"status": "rejected", "reason": "missing: so it is", "width": None, "height": None}
    rejected |= {"maps": [], "boxes": [], "top5": []}
    run = made(
        {
            "same.jpg": (one,),
            "photos/tail.jpg": (one | {"none": (None, [], None)},),
            "longer.jpg": (one,),
            "x/two.jpg": (one,),
            "y/two.jpg": (one,),
            "many.jpg": (one,),
            "turned.jpg": (one,),
            "gone.jpg": (one, rejected),
            "mine.jpg": (one,),
            "atail.jpg": (one,),
            "dogs/1.png": (one,),
        },
        label_map={"none": []},
    )
    dog = {"dog": [[0, 0, 4, 4]]}
    truth = truth_of(
        {
            "same.jpg": (dog | {"cat": [[0, 0, 1, 1]]}, {"width": 10, "height": 10}),
            "tail.jpg": dog | {"none": [[0, 0, 1, 1]]},
            "/data/set/longer.jpg": {},
            "two.jpg": dog,
            "a/many.jpg": dog,
            "b/many.jpg": dog,
            "turned.jpg": (dog, {"width": 10, "height": 20}),
            "gone.jpg": dog,
            "other.jpg": dog,
            f"images/{stem('dogs/1.png')}.jpg": dog,
        },
        ("cat", "dog", "none"),
    )
    judged = judge(run, truth)
    matching = judged.matching
    assert {path: true.path for path, true in matching.truths.items()} == {
        "same.jpg": "same.jpg",
        "photos/tail.jpg": "tail.jpg",
        "longer.jpg": "/data/set/longer.jpg",
        "dogs/1.png": f"images/{stem('dogs/1.png')}.jpg",
    }
    assert sorted(judged.paths[image] for image in judged.image) == ["dogs/1.png", "photos/tail.jpg", "same.jpg"]
    assert sorted(matching.images_only_in_run) == ["atail.jpg", "mine.jpg"]
    assert matching.images_only_in_truth == ["other.jpg"]
    assert sorted(matching.ambiguous_images) == [
        "many.jpg: a/many.jpg or b/many.jpg in the ground truth",
        "x/two.jpg: two.jpg in the ground truth",
        "y/two.jpg: two.jpg in the ground truth",
    ]
    assert matching.images_of_other_size == ["turned.jpg: 10 x 10 in the run, 10 x 20 in the ground truth"]
    assert matching.rejected_images == ["gone.jpg"]
    assert matching.categories == ["dog"]
    assert (matching.categories_only_in_run, matching.categories_only_in_truth) == ([], ["cat"])
    assert matching.categories_without_class == ["none"]
    assert matching.labelled_without_class == 1
    assert matching.labelled_without_true_box == 1, "the dog of longer.jpg"
    assert matching.true_without_label == 0


def test_true_boxes_that_the_run_was_not_asked_for_are_counted(made, truth_of):
    run = made({"a.jpg": ({"dog": (10, [BOX], HOT)},), "b.jpg": ({"cat": (10, [BOX], HOT)},)})
    both = {"dog": [[0, 0, 4, 4]], "cat": [[0, 0, 4, 4], [1, 1, 1, 1]]}
    judged = judge(run, truth_of({"a.jpg": both, "b.jpg": both}))
    assert judged.matching.true_without_label == 2
    assert len(judged.image) == 2


def test_nothing_to_judge(made, truth_of):
    run = made({f"photos/{name}.JPG": ({"dog": (10, [BOX], HOT)},) for name in "abcd"})
    dog = {"dog": [[0, 0, 4, 4]]}

    def said(truth):
        with pytest.raises(CallError) as error:
            judge(run, truth)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert said(truth_of({"x.jpg": dog})) == (
        "no image of ground truth 'truth.json' can be judged: 'photos/a.JPG', 'photos/b.JPG', 'photos/c.JPG', ... in "
        "the run, 'x.jpg' in the ground truth; paths must be the same, or one the tail of the other at a folder"
    )
    assert said(truth_of({"x/a.jpg": dog})).endswith("('a.JPG' and 'a.jpg' differ in upper and lower case)")
    assert "ambiguous, as photos/a.JPG: x/photos/a.JPG or y/photos/a.JPG" in said(
        truth_of({"x/photos/a.JPG": dog, "y/photos/a.JPG": dog})
    )
    assert "in another frame, as of photos/a.JPG: 10 x 10 in the run, 20 x 10 in" in said(
        truth_of({"a.JPG": (dog, {"width": 20, "height": 10})})
    )
    assert (
        "the run looks for: 'dog' in the run, 'Dog', 'cat' in the ground truth; names must be the same ('dog' and"
        in (said(truth_of({"a.JPG": {"Dog": [[0, 0, 1, 1]]}}, ("cat", "Dog"))))
    )
    assert "none of the 1 image that run and ground truth 'truth.json' share has a true box of a category that" in said(
        truth_of({"a.JPG": {"cat": [[0, 0, 1, 1]]}})
    )


def test_rejected_images_alone(made, truth_of):
    gone = {
        "status": "rejected",
        "reason": "missing",
        "width": None,
        "height": None,
        "maps": [],
        "boxes": [],
        "top5": [],
    }
    run = made({"a.jpg": ({"dog": (10, [], None)}, gone)})
    with pytest.raises(CallError, match=r"can be judged: the run rejected 'a.jpg'; its report says why"):
        judge(run, truth_of({"a.jpg": {"dog": [[0, 0, 4, 4]]}}))


def test_a_part_in_another_order(made, truth_of):
    entries = {"dog": (10, [BOX], HOT), "cat": (14, [([0, 0, 2, 2], 0.7, 1, None)], HOT), "bird": (11, [BOX], HOT)}
    run = made({f"{name}.jpg": (entries,) for name in "abc"})
    sizes = {"a": 4, "b": 5, "c": 8}  # of the true boxes: IoU 1, 16 / 25 and 16 / 64 of the dogs
    boxes = {n: {c: [[0, 0, s, s]] for c in ("dog", "cat", "bird")} for n, s in sizes.items()}
    judged = judge(run, truth_of({f"{n}.jpg": of for n, of in boxes.items()}, ("bird", "cat", "dog", "emu")))
    places = {
        (judged.paths[i], judged.categories[c]): number
        for number, (i, c) in enumerate(zip(judged.image, judged.category, strict=True))
    }
    kept = [("c.jpg", "dog"), ("c.jpg", "cat"), ("a.jpg", "dog")]
    part = judged.restricted(["c.jpg", "a.jpg"], ["dog", "cat"], np.array([places[pair] for pair in kept]))
    assert (part.paths, part.categories) == (["c.jpg", "a.jpg"], ["dog", "cat"])
    assert part.sizes.tolist() == [[10, 10]] * 2
    assert part.image.tolist() == [0, 0, 1]
    assert part.category.tolist() == [0, 1, 0]
    assert part.iou.tolist() == pytest.approx([16 / 64, 4 / 64, 1])
    assert part.score.tolist() == [0.5, 0.7, 0.5]
    boxes = part.detections
    assert boxes.image.tolist() == [0, 0, 1, 1], "the cat of a.jpg has a box, though its pair is left out"
    assert sorted(zip(boxes.image.tolist(), boxes.category.tolist(), boxes.score.tolist(), strict=True)) == [
        (0, 0, 0.5),
        (0, 1, 0.7),
        (1, 0, 0.5),
        (1, 1, 0.7),
    ]
    assert boxes.bbox[boxes.category == 1].tolist() == [[0, 0, 2, 2]] * 2
    assert list(part.matching.truths) == ["c.jpg", "a.jpg"]
    assert part.matching.categories == ["cat", "dog"]
    drawn, drawn_part = redraw(run, judged), redraw(run, part)
    assert drawn_part.iou_at.tolist() == [drawn.iou_at[places[pair]].tolist() for pair in kept]
    assert (drawn.literature.images, drawn_part.literature.images) == (9, 3)
    assert len(judged.image) == 9, "the whole is left as it was"


def test_a_part_without_pairs_or_boxes(made, truth_of):
    judged = judge(made({"a.jpg": ({"dog": (10, [], HOT)},)}), truth_of({"a.jpg": {"dog": [[0, 0, 4, 4]]}}))
    part = judged.restricted(["a.jpg"], ["dog"], np.array([], int))
    assert (part.image.tolist(), part.iou.shape, part.detections.bbox.shape) == ([], (0,), (0, 4))


def test_a_sample_is_of_the_smallest_hashes_of_paths(made, truth_of, cells):
    # Maps of 0 to 8 columns, and no true dog on the last image, which is therefore not worth drawing.
    columns = {f"{number}.jpg": number for number in range(9)}
    run = made({path: ({"dog": (10, [BOX], cells((0, 0, n, 10, 255)))},) for path, n in columns.items()})
    truth = {path: {"dog": [[0, 0, 4, 4]]} for path in columns} | {"8.jpg": {}}
    judged = judge(run, truth_of(truth))
    assert judged.sampled(8) is judged
    by_hash = sorted([f"{n}.jpg" for n in range(8)], key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    part = judged.sampled(3)
    assert sorted(part.paths) == sorted(by_hash[:3])
    assert part.paths == [path for path in judged.paths if path in by_hash[:3]], "in the order of the run"
    assert set(part.matching.truths) == set(part.paths)
    backwards = judged.paths[::-1]
    order = np.argsort([backwards.index(judged.paths[image]) for image in judged.image])
    assert set(judged.restricted(backwards, judged.categories, order).sampled(3).paths) == set(part.paths)
    drawn, drawn_part = redraw(run, judged), redraw(run, part)
    pairs = [judged.image.tolist().index(judged.paths.index(path)) for path in part.paths]
    assert drawn_part.iou_at.tolist() == drawn.iou_at[pairs].tolist()
    assert drawn_part.iou_at_otsu.tolist() == drawn.iou_at_otsu[pairs].tolist()
    assert (drawn.literature.images, drawn_part.literature.images) == (8, 3)
