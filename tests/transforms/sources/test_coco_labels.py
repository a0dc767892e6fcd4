import json
import tracemalloc

import pytest
from pycocotools.coco import COCO

from camboxes.transforms.sources.coco_labels import read_coco
from camboxes.transforms.sources.datasets import SourceError

SQUARE = [[0, 0, 9, 0, 9, 9, 0, 9]]


@pytest.fixture
def coco(tmp_path):
    """Writes annotations, each an image, a category and whether it is a crowd, and gives the file's path."""

    def write(annotations, name="instances.json"):
        images = [{"id": number, "file_name": f"train/{number}.jpg", "width": 9, "height": 9} for number in (7, 5, 9)]
        categories = [{"id": 2, "name": "cat", "supercategory": "animal"}, {"id": 1, "name": "dog"}]
        entries = [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "iscrowd": crowd,
                "bbox": [0, 0, 9, 9],
                "area": 81,
                "segmentation": {"size": [9, 9], "counts": [0, 81]} if crowd else SQUARE,
            }
            for number, (image, category, crowd) in enumerate(annotations, start=1)
        ]
        data = {"info": {}, "images": images, "annotations": entries, "categories": categories}
        (tmp_path / name).write_text(json.dumps(data))
        return str(tmp_path / name)

    return write


def test_each_image_has_the_categories_of_its_annotations(coco):
    path = coco([(7, 1, 0), (5, 2, 1), (7, 2, 0), (7, 1, 1)])
    assert list(read_coco(path)) == [
        ("train/7.jpg", ("dog", "cat"), ()),
        ("train/5.jpg", ("cat",), ()),
        ("train/9.jpg", (), ()),
    ]
    peer = COCO(path)
    for file, labels, _ in read_coco(path):
        [image] = [image for image in peer.dataset["images"] if image["file_name"] == file]
        found = {peer.cats[entry["category_id"]]["name"] for entry in peer.imgToAnns[image["id"]]}
        assert found == set(labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["annotations"][0].update(image_id=8), r"image_id 8 .* no image has that id"),
        (lambda data: data["annotations"][0].update(category_id=8), r"category_id 8, but no category has that id"),
        (lambda data: data["images"].append({"id": 7, "file_name": "x"}), "images: the id 7 is there twice"),
        (lambda data: data["images"].append({"id": 8}), r"images: expected file_name in each entry, got {'id': 8}"),
        (lambda data: data["categories"].append(3), "categories: expected id in each entry, got 3"),
        (lambda data: data["annotations"].append({}), "expected image_id in each entry, got {}"),
        (lambda data: data.pop("images"), "is no COCO annotations; expected an object with the lists images"),
        (lambda data: data.update(images={}), "is no COCO annotations"),
    ],
)
def test_annotations_that_cannot_be_understood(change, message, coco, tmp_path):
    data = json.loads((tmp_path / coco([(7, 1, 0)])).read_text())
    change(data)
    (tmp_path / "changed.json").write_text(json.dumps(data))
    with pytest.raises(SourceError, match=message):
        list(read_coco(str(tmp_path / "changed.json")))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "is not JSON"), (b"\xff", "is not JSON"), (b"[" * 100_000, "is not JSON"), (b"[]", "is no COCO")],
)
def test_files_that_are_no_annotations(content, message, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(SourceError, match=message):
        list(read_coco(str(tmp_path / "x.json")))


def test_masks_are_not_held(coco, tmp_path):
    data = json.loads((tmp_path / coco([(7, 1, 0)])).read_text())
    [annotation] = data["annotations"]
    data["annotations"] = [{**annotation, "segmentation": [list(range(1000))]} for _ in range(500)]
    (tmp_path / "masks.json").write_text(json.dumps(data))
    size = (tmp_path / "masks.json").stat().st_size
    tracemalloc.start()
    assert len(list(read_coco(str(tmp_path / "masks.json")))) == 3
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.2 * size  # with masks it is 7 times
