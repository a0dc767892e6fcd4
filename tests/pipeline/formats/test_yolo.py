import pytest

from camboxes.pipeline.formats import yolo


def test_labels_by_hand():
    row = {"width": 200, "height": 100, "boxes": [{"bbox": [10.4, 20.6, 30.2, 9.6], "category_id": 2}]}
    # centres 25.5 / 200 and 25.4 / 100
    assert yolo.write(row) == "1 0.12750000 0.25400000 0.15100000 0.09600000\n"


def test_digits_are_enough_for_large_images():
    size = 99_999
    for bbox in ([0.01, 33_333.33, 99_998.98, 0.02], [77_777.77, 0.0, 22_221.23, 99_999.0]):
        [line] = yolo.write({"width": size, "height": size, "boxes": [{"bbox": bbox, "category_id": 1}]}).splitlines()
        x, y, width, height = (float(share) * size for share in line.split()[1:])
        assert [x - width / 2, y - height / 2, width, height] == pytest.approx(bbox, abs=0.005)


def test_a_description_by_hand():
    folders = {"train": "images/train", "val": "images/val"}
    assert yolo.data_yaml(folders, ["12", "写真"]) == (
        "train: images/train\nval: images/val\nnames:\n  0: '12'\n  1: 写真\n"
    )
