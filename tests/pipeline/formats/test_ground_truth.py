import json

import numpy as np
import pytest

from camboxes.pipeline.detection_data.exports import voc_xml
from camboxes.pipeline.formats.ground_truth import TrueImage, read_ground_truth, reviewed
from camboxes.transforms import Plan, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision

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

VOC = """<annotation><folder>x</folder><filename>{name}</filename>
<size><width>40</width><height>{height}</height></size>
<object><name>dog</name><difficult>{difficult}</difficult><bndbox><xmin>{xmin}</xmin><ymin>3</ymin><xmax>4</xmax>
<ymax>6</ymax></bndbox><part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object></annotation>"""


def _plain(boxes):
    return {name: of_category.tolist() for name, of_category in boxes.items()}


def _coco(folder, **changed):
    path = folder / "instances.json"
    path.write_text(json.dumps(COCO | changed))
    return str(path)


def _csv(folder, text):
    path = folder / "boxes.csv"
    path.write_text(text)
    return str(path)


def _voc(folder, name="a.jpg", file="a.xml", height=30, difficult=0, xmin=2):
    path = folder / "voc" / "Annotations" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(VOC.format(name=name, height=height, difficult=difficult, xmin=xmin))
    return str(folder / "voc")


def test_coco(tmp_path):
    truth = read_ground_truth(_coco(tmp_path))
    assert truth.source == str(tmp_path / "instances.json")
    assert truth.categories == ("cat", "crane", "dog"), "those without a box too"
    assert list(truth.images) == ["photos/a.jpg", "photos/b.jpg", "photos/c.jpg"]
    a, b, c = truth.images.values()
    assert (a.path, a.width, a.height) == ("photos/a.jpg", 40, 30)
    assert _plain(a.boxes) == {"dog": [[1, 2, 3, 4], [5.5, 0, 10, 20.25]]}
    assert a.boxes["dog"].dtype == np.float64
    assert _plain(a.ignored) == {"dog": [[0, 0, 40, 30]]}
    assert (b.width, b.height, _plain(b.boxes), b.ignored) == (None, None, {"cat": [[0, 0, 2, 2]]}, {})
    assert (c.width, c.boxes, c.ignored) == (None, {}, {})


def test_csv_by_extent_and_by_corners(tmp_path):
    extent = read_ground_truth(
        _csv(
            tmp_path,
            "path,label,x,y,width,height,image_width,image_height,who\n"
            "a.jpg,dog,1,2,3,4,40,30,me\nb.jpg,,,,,,,,me\na.jpg,cat,0,0,.5,1e1,40,30,\nc.jpg,dog,,,,,,,\n",
        )
    )
    assert list(extent.images) == ["a.jpg", "b.jpg", "c.jpg"]
    assert _plain(extent.images["a.jpg"].boxes) == {"dog": [[1, 2, 3, 4]], "cat": [[0, 0, 0.5, 10]]}
    assert extent.images["a.jpg"][1:3] == (40, 30)
    assert extent.images["b.jpg"][1:5] == extent.images["c.jpg"][1:5] == (None, None, {}, {}), "known to hold nothing"
    # Here width and height are the image's, as in the CSV files that tools make of VOC, and are passed over.
    corners = read_ground_truth(
        _csv(tmp_path, "\ufeffpath,width,height,label,xmin,ymin,xmax,ymax\na.jpg,640,480,dog,1,2,4,6\n")
    )
    assert _plain(corners.images["a.jpg"].boxes) == {"dog": [[1, 2, 3, 4]]}


def test_voc(tmp_path):
    _voc(tmp_path)
    _voc(tmp_path, "b.jpg", "deeper/b.xml", height=0, difficult=1)
    truth = read_ground_truth(str(tmp_path / "voc"))
    assert truth.categories == ("dog",)
    a, b = truth.images["a.jpg"], truth.images["b.jpg"]
    assert _plain(a.boxes) == {"dog": [[1, 2, 3, 4]]}, "pixels 2 to 4 and 3 to 6, counted from 1"
    assert (a.width, a.height, a.ignored) == (40, 30, {})
    assert (b.width, b.height, b.boxes, _plain(b.ignored)) == (40, None, {}, {"dog": [[1, 2, 3, 4]]})


def test_voc_is_the_inverse_of_the_export(tmp_path):
    boxes = [[0.0, 0.0, 64.0, 48.0], [10.0, 20.0, 1.0, 5.0], [63.0, 47.0, 1.0, 1.0]]
    row = {"width": 64, "height": 48, "boxes": [{"category_id": 1, "bbox": box} for box in boxes]}
    (tmp_path / "a.xml").write_text(voc_xml(row, "a.png", ["dog"], lambda box: {"source": "person"}))
    assert _plain(read_ground_truth(str(tmp_path)).images["a.png"].boxes) == {"dog": boxes}


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
def test_coco_that_is_wrong(tmp_path, changed, message):
    with pytest.raises(ValueError) as error:
        read_ground_truth(_coco(tmp_path, **changed))
    assert message in str(error.value)
    assert "instances.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_other_json(tmp_path):
    (tmp_path / "results.json").write_text('[{"image_id": 1}]')
    with pytest.raises(
        ValueError, match=r"is a JSON list; expected an object .* \(COCO results alone are no ground truth"
    ):
        read_ground_truth(str(tmp_path / "results.json"))
    (tmp_path / "results.json").write_text("path,label")
    with pytest.raises(ValueError, match=r"is not JSON .*; expected COCO annotations"):
        read_ground_truth(str(tmp_path / "results.json"))
    path = _coco(tmp_path)
    (tmp_path / "instances.json").write_text(json.dumps(_without(COCO, "categories")))
    with pytest.raises(ValueError, match=r"instances.json' has no 'categories'"):
        read_ground_truth(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,dog\n", "begins with 'path,label'; expected a header with path,label and either x,y,width"),
        ("path,class,x,y,width,height\n", "expected a header with path,label"),
        ("path,label,x,y,width,height,xmin,ymin,xmax,ymax\n", "and either x,y,width,height or xmin,ymin,xmax,ymax"),
        (
            "path,label,x,y,width,height\na.jpg,dog,1,2,3\n",
            "line 2: x,y,width,height are '1,2,3,'; expected four numbers",
        ),
        ("path,label,x,y,width,height\n\na.jpg,dog,1,2,3,far\n", "line 3: x,y,width,height are '1,2,3,far'"),
        ("path,label,x,y,width,height\na.jpg,,1,2,3,4\n", "line 2: a box without a label"),
        ("path,label,x,y,width,height\n,dog,1,2,3,4\n", "line 2: expected a path"),
        ("path,label,x,y,width,height\na.jpg,dog,1,2,3,4,5\n", "line 2: expected a path, and as many cells"),
        ("path,label,xmin,ymin,xmax,ymax\na.jpg,dog,4,2,4,9\n", "line 2: the box of 'dog' is x 4, y 2, 0 x 7 pixels"),
        ("path,label,xmin,ymin,xmax,ymax\na.jpg,dog,4,2,inf,9\n", "inf x 7 pixels"),
        ("path,label,x,y,width,height\na.jpg,dog,,,,\n", "holds no boxes"),
        (
            "path,label,x,y,width,height,image_width,image_height\na.jpg,dog,1,2,3,4,8,9\na.jpg,dog,1,2,3,4,9,8\n",
            "line 3: 'a.jpg' has 9 x 8 pixels, and before it had 8 x 9",
        ),
    ],
)
def test_csv_that_is_wrong(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        read_ground_truth(_csv(tmp_path, text))
    assert message in str(error.value)
    assert "boxes.csv" in str(error.value)


def test_voc_that_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"a.xml', object 1: the box of 'dog' is x 4, y 2, 0 x 4 pixels"):
        read_ground_truth(_voc(tmp_path, xmin=5))
    with pytest.raises(ValueError, match="object 1: its corners are 'left, 3, 4, 6'; expected four numbers"):
        read_ground_truth(_voc(tmp_path, xmin="left"))
    with pytest.raises(ValueError, match="difficult is 'yes'; expected 0 or 1"):
        read_ground_truth(_voc(tmp_path, difficult="yes"))
    with pytest.raises(ValueError, match=r"a.xml' has no filename; expected a Pascal VOC annotation"):
        read_ground_truth(_voc(tmp_path, name=" "))
    _voc(tmp_path)
    with pytest.raises(ValueError, match=r"b.xml': its image 'a.jpg' is that of '.*a.xml' too"):
        read_ground_truth(_voc(tmp_path, file="b.xml"))
    (tmp_path / "voc" / "Annotations" / "b.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=r"b.xml' is not XML"):
        read_ground_truth(str(tmp_path / "voc"))


def test_what_is_no_ground_truth(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.json' does not exist; expected COCO annotations"):
        read_ground_truth(str(tmp_path / "nowhere.json"))
    (tmp_path / "boxes.txt").write_text("1 2 3 4")
    with pytest.raises(ValueError, match=r"boxes.txt' is none of these; expected COCO annotations"):
        read_ground_truth(str(tmp_path / "boxes.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no .xml files; expected a folder of Pascal VOC annotations"):
        read_ground_truth(str(tmp_path / "empty"))


def test_a_review_as_ground_truth(tmp_path):
    labels = {"a.jpg": ["cat", "dog"], "b.jpg": ["cat", "dog"], "c.jpg": ["dog"], "d.jpg": ["cat"], "e.jpg": ["cat"]}
    manifest = tmp_path / "labels.jsonl"
    manifest.write_text("".join(json.dumps({"path": path, "labels": of}) + "\n" for path, of in labels.items()))
    run = Plan(str(tmp_path / "run"), [["cat"], ["dog"]]).make(str(manifest))
    for key in run.shards:
        rows = [row | {"width": 40, "height": 30} for row in run.planned_rows(key).to_pylist()]
        storage.write_table(shard_file(run.output, key), table(rows, LABELED, {}))
    cat, dog = DecidedBox("cat", 1, (1, 2, 3, 4)), DecidedBox("dog", 2, (5, 6, 7, 8))
    for path, verdict, boxes in [
        ("a.jpg", "accepted", [dog, cat]),
        ("b.jpg", "accepted", [cat, cat]),
        ("c.jpg", "rejected", [dog]),
        ("d.jpg", "skipped", [cat]),
        ("elsewhere.jpg", "accepted", [cat]),
    ]:
        append_decision(run.output, Decision(path, 1, verdict, boxes=tuple(boxes)))
    truth = reviewed(run)
    assert (truth.source, truth.categories) == (storage.join(run.output, "review.jsonl"), ("cat", "dog"))
    assert truth.images.keys() == {"a.jpg", "b.jpg", "c.jpg"}
    a, b, c = (truth.images[f"{name}.jpg"] for name in "abc")
    assert _plain(a.boxes) == {"cat": [[1, 2, 3, 4]], "dog": [[5, 6, 7, 8]]}
    assert (a.path, a.width, a.height, a.ignored, a.wrong) == ("a.jpg", 40, 30, {}, {})
    assert (_plain(b.boxes), b.wrong) == ({"cat": [[1, 2, 3, 4], [1, 2, 3, 4]]}, {"dog": None})
    assert (c.boxes, _plain(c.wrong)) == ({}, {"dog": [[5, 6, 7, 8]]})


def test_what_is_known_of_a_box():
    box = np.array([[0, 0, 4, 4.0]])
    image = TrueImage("a.jpg", None, None, {"cat": box}, {}, {"dog": box, "cow": None})
    half, less = [0, 0, 4, 2], [0, 0, 4, 1.9]
    assert [image.is_right("cat", half), image.is_right("cat", less)] == [True, False]
    assert [image.is_right("dog", half), image.is_right("dog", less)] == [False, None]
    assert [image.is_right("cow", half), image.is_right("yak", half)] == [False, None]
