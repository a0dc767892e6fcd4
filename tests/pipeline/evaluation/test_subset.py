import hashlib

import numpy as np
import pytest

from camboxes.pipeline.evaluation.judging import judge
from camboxes.pipeline.evaluation.redrawing import redraw
from camboxes.pipeline.evaluation.subset import restricted, sampled

HOT = np.zeros((10, 10), np.uint8)  # a map of 10 x 10 cells, hot in the corner
HOT[:4, :4] = 255
BOX = ([0, 0, 4, 4], 0.5, 1, None)


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
    part = restricted(judged, ["c.jpg", "a.jpg"], ["dog", "cat"], np.array([places[pair] for pair in kept]))
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
    part = restricted(judged, ["a.jpg"], ["dog"], np.array([], int))
    assert (part.image.tolist(), part.iou.shape, part.detections.bbox.shape) == ([], (0,), (0, 4))


def test_a_sample_is_of_the_smallest_hashes_of_paths(made, truth_of, cells):
    # Maps of 0 to 8 columns, and no true dog on the last image, which is therefore not worth drawing.
    columns = {f"{number}.jpg": number for number in range(9)}
    run = made({path: ({"dog": (10, [BOX], cells((0, 0, n, 10, 255)))},) for path, n in columns.items()})
    truth = {path: {"dog": [[0, 0, 4, 4]]} for path in columns} | {"8.jpg": {}}
    judged = judge(run, truth_of(truth))
    assert sampled(judged, 8) is judged
    by_hash = sorted([f"{n}.jpg" for n in range(8)], key=lambda path: hashlib.sha256(path.encode()).hexdigest())
    part = sampled(judged, 3)
    assert sorted(part.paths) == sorted(by_hash[:3])
    assert part.paths == [path for path in judged.paths if path in by_hash[:3]], "in the order of the run"
    assert set(part.matching.truths) == set(part.paths)
    backwards = judged.paths[::-1]
    order = np.argsort([backwards.index(judged.paths[image]) for image in judged.image])
    assert set(sampled(restricted(judged, backwards, judged.categories, order), 3).paths) == set(part.paths)
    drawn, drawn_part = redraw(run, judged), redraw(run, part)
    pairs = [judged.image.tolist().index(judged.paths.index(path)) for path in part.paths]
    assert drawn_part.iou_at.tolist() == drawn.iou_at[pairs].tolist()
    assert drawn_part.iou_at_otsu.tolist() == drawn.iou_at_otsu[pairs].tolist()
    assert (drawn.literature.images, drawn_part.literature.images) == (8, 3)
