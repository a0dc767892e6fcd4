import json

import pytest

from camboxes.pipeline.formats.readers import read_ground_truth, reviewed
from camboxes.transforms import Plan, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision

VOC = """<annotation><filename>{}</filename><object><name>dog</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>4</xmax>
<ymax>6</ymax></bndbox></object></annotation>"""


def _plain(boxes):
    return {name: of_category.tolist() for name, of_category in boxes.items()}


def test_each_format_is_known_by_its_name(tmp_path):
    coco, csv, voc = tmp_path / "instances.JSON", tmp_path / "boxes.csv", tmp_path / "voc"
    csv.write_text("path,label,x,y,width,height\na.jpg,dog,1,2,3,4\n")
    coco.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg"}],
                "categories": [{"id": 1, "name": "dog"}],
                "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
            }
        )
    )
    (voc / "deeper").mkdir(parents=True)
    (voc / "deeper" / "a.xml").write_text(VOC.format("a.jpg"))
    for path in (coco, csv, voc):
        truth = read_ground_truth(str(path))
        assert (truth.source, list(truth.images)) == (str(path), ["a.jpg"])
        assert _plain(truth.images["a.jpg"].boxes) == {"dog": [[1, 2, 3, 4]]}
    (voc / "b.xml").write_text("<annotation>")
    with pytest.raises(ValueError, match=rf"ground truth '{voc}/b.xml' is not XML"):
        read_ground_truth(str(voc))


def test_what_is_no_ground_truth(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere.json' does not exist; expected COCO annotations"):
        read_ground_truth(str(tmp_path / "nowhere.json"))
    (tmp_path / "boxes.txt").write_text("1 2 3 4")
    with pytest.raises(ValueError, match=r"boxes.txt' is none of these; expected COCO annotations"):
        read_ground_truth(str(tmp_path / "boxes.txt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        ValueError, match=r"holds no .xml files and no data.yaml; expected a folder of Pascal VOC annotations"
    ):
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
