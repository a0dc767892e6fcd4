import numpy as np
import pytest

from camboxes.pipeline.cli import main
from camboxes.pipeline.errors import CallError
from camboxes.pipeline.evaluation.judging import judge
from camboxes.pipeline.evaluation.redrawing import redraw
from camboxes.transforms import BoxRule, PlannedRun

BOX = ([0, 0, 4, 4], 0.5, 1, None)


def _redrawn(run, truth):
    return redraw(run, judge(run, truth))


def test_thresholds_draw_again(made, truth_of, cells):
    # 128 / 255 is 0.502: up to a threshold of 0.50 the component is 8 x 8, above it 2 x 2.
    steps = cells((1, 1, 8, 8, 128), (3, 3, 2, 2, 255))
    judged = _redrawn(made({"a.jpg": ({"dog": (10, [], steps)},)}), truth_of({"a.jpg": {"dog": [[1, 1, 8, 4]]}}))
    assert judged.thresholds.tolist() == [pytest.approx(0.02 * number) for number in range(1, 46)]
    assert judged.iou_at.dtype == np.float32
    assert judged.iou_at.tolist() == [pytest.approx([0.5] * 25 + [4 / 32] * 20)]
    # Otsu's level is 1 / 255, between the 36 cells of 0 and the others: each share of it from 0.3 to 1.5 gives 8 x 8.
    assert judged.otsu_shares.tolist() == [pytest.approx(0.05 * number) for number in range(6, 31)]
    assert judged.iou_at_otsu.tolist() == [[0.5] * 25]


def test_among_all_boxes_the_one_of_highest_score_is_drawn(made, truth_of, cells):
    # Below 0.5 there are two components: the larger one of 4 x 4 cells has the mean 0.5, the other the mean 1.
    two = cells((0, 0, 4, 4, 128), (6, 6, 3, 3, 255))
    images, truth = {"a.jpg": ({"dog": (10, [], two)},)}, truth_of({"a.jpg": {"dog": [[6, 6, 3, 3]]}})
    assert _redrawn(made(images, rule=BoxRule(boxes="all")), truth).iou_at.tolist() == [[1.0] * 45]
    assert _redrawn(made(images, rule=BoxRule(boxes="largest")), truth).iou_at.tolist() == [[0.0] * 25 + [1.0] * 20]
    none = made(images, rule=BoxRule(boxes="all", min_area=0.5))
    assert _redrawn(none, truth).iou_at.tolist() == [[0.0] * 45]


def test_the_literatures_rule_sees_the_stored_map(made, truth_of):
    # The left half of a map of 224 x 224 cells: its contour's box is 0, 0, 112, 223, corners inclusive. The left half
    # of the image is 0, 0, 112, 224: IoU 224 / 225 at every threshold. The right half shares one column of 113.
    half = np.zeros((224, 224), np.uint8)
    half[:, :112] = 255
    size = {"width": 224, "height": 224}
    run = made({f"{name}.jpg": ({"dog": (10, [], half)}, size) for name in ("a", "b")})
    judged = _redrawn(run, truth_of({"a.jpg": {"dog": [[0, 0, 112, 224]]}, "b.jpg": {"dog": [[112, 0, 112, 224]]}}))
    result = judged.literature.result()
    assert judged.literature.images == 2
    assert (result.max_box_acc.curves == 50).all()
    assert (result.max_box_acc_v2.curves == 50).all()
    assert result.max_box_acc.curves.shape == (3, 1000)


def test_thresholds_agree_with_a_run_drawn_again(run, tmp_path, annotations, truth_of):
    """On real maps, IoU at 0.5 is the IoU of the run that rebox draws at 0.5."""
    names = {category["id"]: category["name"] for category in annotations(run)["categories"]}
    files = {image["id"]: image["file_name"] for image in annotations(run)["images"]}
    boxes = {files[a["image_id"]]: {names[a["category_id"]]: [a["bbox"]]} for a in annotations(run)["annotations"]}
    truth = truth_of(boxes, tuple(sorted(names.values())))
    again = tmp_path / "again"
    assert main(["rebox", "--run", str(run), "--output", str(again), "--threshold", "0.5"]) == 0
    before, after = (_redrawn(PlannedRun.load(str(output)), truth) for output in (run, again))
    assert before.iou.tolist() == pytest.approx([1] * 5)
    assert (after.iou < 1).all()
    assert before.iou_at[:, 24].tolist() == pytest.approx(after.iou.tolist(), rel=1e-6)
    assert (before.iou_at == after.iou_at).all()


def test_a_run_without_maps(made, truth_of):
    run = made({"a.jpg": ({"dog": (10, [BOX], None)},)})
    judged = judge(run, truth_of({"a.jpg": {"dog": [[0, 0, 4, 4]]}}))
    assert judged.iou.tolist() == [1], "the boxes that it has need no maps"
    with pytest.raises(CallError, match=r"the run has no map of 'dog' on 'a.jpg' to draw its boxes from"):
        redraw(run, judged)
