"""YOLO data sets in the layouts in which tools write them. Pictures are 40 x 20 pixels; the box is 10, 5, 20, 10."""

import numpy as np
import pytest
from PIL import Image

from camboxes.pipeline.formats.readers import read_ground_truth

BOX = "1 0.5 0.5 0.5 0.5\n"
POLYGON = "0 0.25 0.5 0.5 0.25 0.75 0.75 0.5 0.25\n"  # its corners are the same box's
NAMES = "names: [cat, dog]\n"


@pytest.fixture
def data_set(tmp_path):
    """Makes a data set of pictures and text files by their paths; gives the path of its data.yaml."""

    def make(files):
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(file)
            else:
                file.write_text(content)
        return str(tmp_path / "data.yaml")

    return make


def _boxes(truth):
    return {path: {name: boxes.tolist() for name, boxes in image.boxes.items()} for path, image in truth.images.items()}


def test_boxes_and_polygons_by_hand(data_set, tmp_path):
    path = data_set(
        {
            "data.yaml": "train: images/train\nval: images/val\nnames:\n  0: cat\n  1: dog\n  7: owl\n",
            "images/train/a.png": None,
            "labels/train/a.txt": f"\ufeff{BOX}\n{POLYGON}1 0.0125 0.025 0.025 0.05",
            "images/val/deep/b.png": None,
            "labels/val/deep/b.txt": "",
            "images/val/c.d.PNG": None,
            "labels/val/c.d.txt": POLYGON,
            "images/val/nothing.png": None,
            "images/val/notes.md": "",
        }
    )
    truth = read_ground_truth(path)
    assert _boxes(truth) == {
        "a.png": {"dog": [[10, 5, 20, 10], [0, 0, 1, 1]], "cat": [[10, 5, 20, 10]]},
        "c.d.PNG": {"cat": [[10, 5, 20, 10]]},
        "deep/b.png": {},
        "nothing.png": {},
    }
    assert (truth.source, truth.categories) == (path, ("cat", "dog", "owl"))
    assert (truth.images["a.png"].width, truth.images["a.png"].height) == (40, 20)
    assert truth.images["nothing.png"].width is None, "without a box no size is needed"
    assert _boxes(read_ground_truth(str(tmp_path))) == _boxes(truth), "the folder will do"


@pytest.mark.parametrize(
    ("described", "moved"),
    [
        ("train: ../train/images\nval: ../valid/images\n", {}),  # as Roboflow writes it
        ("path: .\ntrain: [train/images, valid/images]\n", {}),
        ("path: /somewhere/else\ntrain: train/images\ntest: valid\n", {}),
        ("train: train.txt\nval: valid/images\n", {"train.txt": "./train/images/a.png\n\ntrain/images/sub/b.png\n"}),
        ("path: ..\nval: lists/all.txt\n", {"lists/all.txt": "set/train/images/a.png\nset/train/images/sub/b.png\n"}),
    ],
)
def test_where_images_and_labels_stand(data_set, tmp_path, described, moved):
    nested = "set/" if "path: .." in described else ""
    files = {
        f"{nested}train/images/a.png": None,
        f"{nested}train/labels/a.txt": BOX,
        f"{nested}train/images/sub/b.png": None,
        f"{nested}train/labels/sub/b.txt": POLYGON,
        f"{nested}valid/images/c.png": None,
    }
    path = data_set(files | moved | {f"{nested}data.yaml": described + NAMES})
    truth = read_ground_truth(str(tmp_path / nested / "data.yaml") if nested else path)
    found = _boxes(truth)
    assert found.pop("a.png") == {"dog": [[10, 5, 20, 10]]}
    assert found.pop("sub/b.png") == {"cat": [[10, 5, 20, 10]]}
    assert set(found.values() and found) <= {"c.png", "images/c.png"}


def test_images_of_one_name(data_set):
    path = data_set(
        {
            "data.yaml": "train: images/train\nval: images/val\ntest: images/train\n" + NAMES,
            "images/train/1.png": None,
            "images/val/1.png": None,
            "images/val/2.png": None,
            "labels/train/1.txt": BOX,
        }
    )
    expected = {"images/train/1.png": {"dog": [[10, 5, 20, 10]]}, "images/val/1.png": {}, "2.png": {}}
    assert _boxes(read_ground_truth(path)) == expected, "the test images are train's, and count once"


def test_labels_beside_images_and_sides_as_a_person_sees_them(data_set, tmp_path):
    path = data_set({"data.yaml": "val: pictures\n" + NAMES, "pictures/a.txt": BOX})
    turned = Image.Exif()
    turned[274] = 6  # a quarter turn
    Image.fromarray(np.zeros((20, 40, 3), np.uint8)).save(tmp_path / "pictures" / "a.jpg", exif=turned)
    truth = read_ground_truth(path)
    assert _boxes(truth) == {"a.jpg": {"dog": [[5, 10, 10, 20]]}}
    assert (truth.images["a.jpg"].width, truth.images["a.jpg"].height) == (20, 40)


def test_key_points_are_no_polygon(data_set):
    files = {"images/a.png": None, "labels/a.txt": "1 0.5 0.5 0.5 0.5 0.9 0.9 2 0 0 0\n"}
    path = data_set(files | {"data.yaml": "val: images\nkpt_shape: [2, 3]\n" + NAMES})
    assert _boxes(read_ground_truth(path)) == {"a.png": {"dog": [[10, 5, 20, 10]]}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.5 0.5", "there is no class 2 in data.yaml, which names 2"),
        ("1 0.5 0.5 0.5", "4 numbers; expected a class and centre x, centre y, width and height, or a class and the"),
        ("1 0.5 0.5 0.5 0.5 0.9", "6 numbers; expected a class and centre x"),  # a detection with its confidence
        ("dog 0.5 0.5 0.5 0.5", "'dog 0.5 0.5 0.5 0.5'; expected numbers alone"),
        ("nan 0.5 0.5 0.5 0.5", "'nan 0.5 0.5 0.5 0.5'; expected numbers alone"),
        ("1 20 10 20 10", "'1 20 10 20 10'; expected shares of the image's sides, from 0 to 1"),
        ("1 nan 0.5 0.5 0.5", "expected shares of the image's sides"),
        ("1 0.5 0.5 0 0.5", "the box of 'dog' is x 20, y 5, 0 x 10 pixels; expected finite numbers and an extent"),
    ],
)
def test_a_wrong_line_is_named(data_set, tmp_path, line, message):
    path = data_set({"data.yaml": "val: images\n" + NAMES, "images/a.png": None, "labels/a.txt": f"{BOX}\n{line}\n"})
    with pytest.raises(ValueError) as error:
        read_ground_truth(path)
    assert str(error.value).startswith(f"ground truth '{tmp_path}/labels/a.txt', line 3: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data.yaml": "names: [cat"}, "data.yaml' is not YAML"),
        ({"data.yaml": "- cat"}, "names are None; expected the names of classes"),
        ({"data.yaml": "nc: 2\nval: images"}, "names are None; expected the names of classes"),
        ({"data.yaml": NAMES}, r"train, val and test are \[\]; expected folders of images"),
        ({"data.yaml": "val: 5\n" + NAMES}, r"train, val and test are \[5\]"),
        ({"data.yaml": "val: images\n" + NAMES}, "there is no 'images' in '.*'; expected a folder of images"),
        ({"data.yaml": "val: images\n" + NAMES, "images/a.md": ""}, "no images in images; labels are read by their"),
        ({"data.yaml": "val: all.txt\n" + NAMES, "all.txt": "\nb.png"}, "all.txt', line 2: there is no image 'b.png'"),
        (
            {"data.yaml": "val: images\n" + NAMES, "images/a.png": None},
            "has 1 images and no labels; expected those of '.*/images/a.png' in '.*/labels/a.txt'",
        ),
        (
            {"data.yaml": "val: images\n" + NAMES, "images/a.png": None, "labels/a.txt": ""},
            "holds no boxes; expected at least one box",
        ),
        (
            {"data.yaml": "val: images\n" + NAMES, "images/a.png": "no picture", "labels/a.txt": BOX},
            "the size of '.*/images/a.png' cannot be read",
        ),
    ],
)
def test_what_is_no_yolo_data_set(data_set, files, message):
    with pytest.raises(ValueError, match=message):
        read_ground_truth(data_set(files))
