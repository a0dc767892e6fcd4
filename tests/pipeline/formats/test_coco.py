import json

import numpy as np
import pytest

from camboxes.pipeline.formats import coco

COCO = {
    "images": [
        {"id": 7, "file_name": "photos/a.jpg", "width": 40, "height": 30},
        {"id": 8, "file_name": "photos/b.jpg"},
        {"id": 9, "file_name": "photos/c.jpg", "width": None, "height": None},
    ],
    "categories": [{"id": 3, "name": "dog"}, {"id": 1, "name": "cat"}, {"id": 2, "name": "crane"}],
    "annotations": [
        {"id": 0, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"id": 1, "image_id": 7, "category_id": 3, "bbox": [5.5, 0, 10, 20.25], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 40, 30], "iscrowd": 1},
        {"id": 3, "image_id": 8, "category_id": 1, "bbox": [0, 0, 2, 2]},
    ],
}


def _plain(boxes):
    return {name: of_category.tolist() for name, of_category in boxes.items()}


def _read(**changed):
    return coco.read(json.dumps(COCO | changed).encode(), "instances.json")


def test_read():
    truth = _read()
    assert truth.source == "instances.json"
    assert truth.categories == ("cat", "crane", "dog"), "those without a box too"
    assert list(truth.images) == ["photos/a.jpg", "photos/b.jpg", "photos/c.jpg"]
    a, b, c = truth.images.values()
    assert (a.path, a.width, a.height) == ("photos/a.jpg", 40, 30)
    assert _plain(a.boxes) == {"dog": [[1, 2, 3, 4], [5.5, 0, 10, 20.25]]}
    assert a.boxes["dog"].dtype == np.float64
    assert _plain(a.ignored) == {"dog": [[0, 0, 40, 30]]}
    assert (b.width, b.height, _plain(b.boxes), b.ignored) == (None, None, {"cat": [[0, 0, 2, 2]]}, {})
    assert (c.width, c.boxes, c.ignored) == (None, {}, {})


def _annotation(**changed):
    return {"annotations": [COCO["annotations"][0] | {"id": 5} | changed]}


def _without(entry, key):
    return {name: value for name, value in entry.items() if name != key}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"annotations": []}, "holds no boxes; expected at least one box to judge by"),
        (_annotation(iscrowd=1), "holds only crowd or difficult boxes"),
        ({"annotations": None}, "annotations is None; expected list"),
        (_annotation(image_id=70), "annotation id 5: no image has the id 70"),
        (_annotation(category_id="3"), "annotation id 5: no category has the id '3'"),
        (
            _annotation(bbox=[1, 2, 0, 4]),
            "annotation id 5: the box of 'dog' is x 1, y 2, 0 x 4 pixels; expected finite",
        ),
        (_annotation(bbox=[1, 2, 3, -4]), "3 x -4 pixels"),
        (_annotation(bbox=[1, 2, float("nan"), 4]), "nan x 4 pixels"),
        (_annotation(bbox=[1, 2, 3]), "annotation id 5: bbox is [1, 2, 3]; expected four numbers"),
        (_annotation(bbox=["1", 2, 3, 4]), "bbox is ['1', 2, 3, 4]; expected four numbers"),
        ({"annotations": [_without(COCO["annotations"][0], "bbox")]}, "annotation id 0 has no 'bbox'"),
        ({"annotations": [[1, 2]]}, "annotation number 1 is [1, 2]; expected an object"),
        (
            {"images": [*COCO["images"], COCO["images"][0]]},
            "image id 7: id 7 or file_name 'photos/a.jpg' is there twice",
        ),
        ({"images": [COCO["images"][0] | {"width": 0}]}, "image id 7: a side of the image is 0; expected whole pixels"),
        ({"images": [_without(COCO["images"][0], "file_name")]}, "image id 7 has no 'file_name'"),
        ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "category id 2: id 2 or name 'a' is there"),
    ],
)
def test_what_is_wrong(changed, message):
    with pytest.raises(ValueError) as error:
        _read(**changed)
    assert message in str(error.value)
    assert "instances.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_json():
    with pytest.raises(
        ValueError, match=r"is a JSON list; expected an object .* \(COCO results alone are no ground truth"
    ):
        coco.read(b'[{"image_id": 1}]', "results.json")
    with pytest.raises(ValueError, match=r"is not JSON .*; expected COCO annotations"):
        coco.read(b"path,label", "results.json")
    with pytest.raises(ValueError, match=r"instances.json' has no 'categories'"):
        coco.read(json.dumps(_without(COCO, "categories")).encode(), "instances.json")
