"""A finished run, read in Python."""

import json
import shutil
from pathlib import Path

import pytest

from camboxes.pipeline import Run
from camboxes.pipeline.errors import CallError

EARLIER = Path(__file__).parents[1] / "golden" / "earlier_run"


@pytest.mark.parametrize("version", ["this one", "an earlier one"])
def test_images_and_boxes_are_those_of_annotations_json(version, run):
    read = Run.open(str(run if version == "this one" else EARLIER))
    written = json.loads(Path(read.annotations).read_text())
    categories = {category["id"]: category["name"] for category in written["categories"]}
    images = {image["id"]: image["file_name"] for image in written["images"]}
    expected = [
        (
            images[box["image_id"]],
            categories[box["category_id"]],
            box["bbox"],
            box["score"],
            box["rank"],
            box["box_uid"],
        )
        for box in written["annotations"]
    ]
    found = [
        (image.path, box.label, list(box.bbox), box.score, box.rank, box.uid)
        for image in read.images()
        for box in image.boxes
    ]
    assert found == expected and len(found) == 5
    cat = next(image for image in read.images() if image.path.endswith("chelsea.png"))
    assert (cat.status, cat.reason, cat.width, cat.height, cat.labels) == ("ok", None, 451, 300, ("Egyptian cat",))
    assert cat.boxes[0].calibrated_score is None
    assert read.counts == (5, 5, 0, 0, 0, 5)


def test_the_table_has_the_rows_of_all_shards(run, rows):
    assert Run.open(str(run)).table().to_pylist() == rows(run)


def test_the_files_of_a_run(run):
    read = Run.open(str(run))
    assert [Path(path).name for path in (read.annotations, read.results, read.report)] == [
        "annotations.json", "results.json", "report.html",
    ]  # fmt: skip
    assert read.summary == json.loads((run / "summary.json").read_text())


def test_what_is_no_finished_run(run, tmp_path):
    with pytest.raises(CallError, match="holds no run"):
        Run.open(str(tmp_path))
    shutil.copytree(run, tmp_path / "begun")
    next((tmp_path / "begun" / "shards").iterdir()).unlink()
    with pytest.raises(CallError, match="is not finished: it lacks 1 of 2 shards"):
        Run.open(str(tmp_path / "begun"))
