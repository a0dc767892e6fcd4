"""Images of the background: in `label` and what reads its runs, from `train` to `export`."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from camboxes.models import Localizer
from camboxes.pipeline.cli import main
from camboxes.transforms import PlannedRun

SMALL = ["--method", "cam", "--scales", "64", "--refine", "none"]


def _label(source, output, *options):
    return main(["label", "--input", str(source), "--output", str(output), *SMALL, *options])


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def manifest(photographs, tmp_path_factory):
    """A cat, and two photographs without one, of which the last is said to hold a cat, too."""
    rows = ["Egyptian cat/chelsea.png,Egyptian cat", "espresso/coffee.png,no cat", "tripod/camera.png,nothing"]
    rows += ["moped/motorcycle_left.png,no cat", "moped/motorcycle_left.png,Egyptian cat"]
    folder = shutil.copytree(photographs, tmp_path_factory.mktemp("cats") / "photographs")
    (folder / "cats.csv").write_text("path,label\n" + "\n".join(rows))
    return folder / "cats.csv"


@pytest.fixture(scope="module")
def cats(manifest, tmp_path_factory):
    output = tmp_path_factory.mktemp("cats") / "boxes"
    assert _label(manifest, output, "--background", "no cat,nothing") == 0
    return output


def test_a_background_label_is_no_class_and_takes_no_pass(manifest, tmp_path, monkeypatch, capsys, rows, annotations):
    passed = []
    localize = Localizer.localize
    monkeypatch.setattr(Localizer, "localize", lambda *given: passed.extend(given[2]) or localize(*given))
    assert _label(manifest, tmp_path / "out", "--background", "no cat,nothing") == 0
    said = capsys.readouterr()
    assert passed == [[[285]]], "one image, of one label"
    assert "(background: no cat, nothing), 1 shard; one scale, CAM" in said.err
    assert "4 images: 1 with boxes, 0 without, 2 skipped (background 2), 1 rejected (contradiction 1)" in said.out
    assert "contradiction: an image with a background label and a class's label gets no box" in said.out
    found = {row["path"].rpartition("/")[2]: row for row in rows(tmp_path / "out")}
    assert {name: (row["status"], row["reason"], [label["label"] for label in row["labels"]], row["width"])
            for name, row in found.items()} == {
        "chelsea.png": ("ok", None, ["Egyptian cat"], 451),
        "coffee.png": ("skipped", "background: no cat", [], 600),
        "camera.png": ("skipped", "background: nothing", [], 512),
        "motorcycle_left.png": (
            "rejected",
            "contradiction: labelled Egyptian cat and also background (no cat); keep what is right",
            ["Egyptian cat"], None,
        ),
    }  # fmt: skip
    written = annotations(tmp_path / "out")
    assert [category["name"] for category in written["categories"]] == ["Egyptian cat"]
    assert {image["file_name"].rpartition("/")[2] for image in written["images"]} == found.keys() - {
        "motorcycle_left.png"
    }
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["input"]["background"] == ["no cat", "nothing"] and [*summary["categories"]] == ["Egyptian cat"]


def test_the_order_of_the_names_changes_nothing_and_other_names_are_another_run(manifest, cats, capsys, results):
    before = results(cats)
    assert _label(manifest, cats, "--background", 'nothing,"no cat"') == 0
    assert results(cats) == before
    assert _label(manifest, cats, "--background", "nothing", "--label-map", str(_mapped(manifest))) == 2
    assert "the call asks for background nothing instead of no cat,nothing" in capsys.readouterr().err


def _mapped(manifest):
    file = manifest.with_name("map.json")
    file.write_text('{"Egyptian cat": 285, "no cat": []}')
    return file


def test_wrong_names_are_told_before_anything_loads(manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("camboxes.pipeline.label_job._localizer", lambda *_: pytest.fail("the network is loaded"))
    assert _label(manifest, tmp_path / "out", "--background", "no cats") == 2
    expected = "background 'no cats' is the label of no image; expected one of the input's 3 labels, such as 'no cat'"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_names_it(manifest, tmp_path, capsys):
    assert _label(manifest, tmp_path / "out", "--background", "no cat,nothing", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "no cat is background: its images get no box and are not passed through the network" in said
    assert "labels    1 matched" in said


def test_rows_of_another_run_keep_the_reason_of_this_one(manifest, cats, tmp_path, rows):
    """There every image was seen with other labels: its rows of the same content and labels are taken over, only."""
    label_map = ["--label-map", str(_mapped(manifest)), "--background", "nothing"]
    assert _label(manifest, tmp_path / "before", *label_map) == 0
    assert {row["reason"] for row in rows(tmp_path / "before") if row["status"] == "skipped"} == {
        "background: nothing", "no_class: none of its labels stands for a class of the network"
    }  # fmt: skip
    again = ["--background", "no cat,nothing", "--reuse", str(tmp_path / "before")]
    assert _label(manifest, tmp_path / "again", *again) == 0
    assert rows(tmp_path / "again") == rows(cats)


def test_what_reads_a_run_takes_it(cats, tmp_path, rows, capsys):
    assert main(["rebox", "--run", str(cats), "--output", str(tmp_path / "again"), "--threshold", "0.5"]) == 0
    skipped = [[row for row in rows(run) if row["status"] == "skipped"] for run in (cats, tmp_path / "again")]
    assert skipped[0] == skipped[1] and len(skipped[0]) == 2
    truth = shutil.copy(cats / "annotations.json", tmp_path / "truth.json")
    assert main(["evaluate", "--run", str(cats), "--ground-truth", str(truth)]) == 0
    figures = json.loads((cats / "evaluation.json").read_text())["figures"]
    assert figures["gt_known_50"]["run"]["value"] == 100
    page = (cats / "report.html").read_text()
    assert "skipped: <bdi>background: no cat</bdi>" in page
    assert "background: 2 images without any of the classes, labelled no cat, nothing" in page
    assert PlannedRun.load(str(tmp_path / "again")).background == ("no cat", "nothing")


def _exported(run, output, kind, *options):
    call = ["export", "--run", str(run), "--output", str(output), "--format", kind, "--val", "0", *options]
    assert main(call) == 0
    record = json.loads((output / "export.json").read_text())
    return record["images"]["train"], record["images"]["left_out"], record["without_objects"]["background"]


def _objects(output, kind):
    """The number of objects on each exported image, by the beginning of its name."""
    if kind == "yolo":
        texts = {path: path.read_text().splitlines() for path in (output / "labels" / "train").iterdir()}
        assert {path.stem for path in texts} == {path.stem for path in (output / "images" / "train").iterdir()}
        return {path.stem.split("-")[0].rpartition("_")[2]: len(lines) for path, lines in texts.items()}
    if kind == "voc":
        files = (output / "VOCdevkit" / "VOC2012" / "Annotations").iterdir()
        return {path.stem.split("-")[0].rpartition("_")[2]: path.read_text().count("<object>") for path in files}
    if kind == "coco":
        data = json.loads((output / "annotations" / "instances_train.json").read_text())
        boxed = [annotation["image_id"] for annotation in data["annotations"]]
        return {i["file_name"].split("-")[0].rpartition("_")[2]: boxed.count(i["id"]) for i in data["images"]}
    boxes = pq.read_table(output / "boxes.parquet").to_pylist()
    return {row["path"].rpartition("/")[2].split(".")[0]: int(row["category"] is not None) for row in boxes}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
def test_export_of_empty_images(cats, tmp_path, capsys, kind):
    assert _exported(cats, tmp_path / "some", kind) == (1, {"background": 2, "rejected": 1}, 0)
    assert "left out: images of the background; --include-empty exports them, as images without objects" in (
        capsys.readouterr().out
    )
    assert _objects(tmp_path / "some", kind) == {"chelsea": 1}
    assert _exported(cats, tmp_path / "all", kind, "--include-empty") == (3, {"rejected": 1}, 2)
    assert "2 images of the background exported, without an object" in capsys.readouterr().out
    assert _objects(tmp_path / "all", kind) == {"chelsea": 1, "coffee": 0, "camera": 0}
    if kind == "yolo":
        assert yaml.safe_load((tmp_path / "all" / "data.yaml").read_text())["names"] == {0: "Egyptian cat"}


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """Red squares, and two folders of noise: background; each has ten images."""
    folder = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    for label in ("noise", "other", "red"):
        (folder / label).mkdir()
        for number in range(10):
            pixels = random.integers(90, 160, (64, 96, 3)).astype(np.uint8)
            if label == "red":
                y, x = random.integers(0, (32, 64))
                pixels[y : y + 32, x : x + 32] = (220, 30, 30)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")
    return folder


def _train(data, output, *options):
    return main(["train", "--input", str(data), "--output", str(output), "--size", "64", "--epochs", "3", *options])


@pytest.fixture(scope="module")
def red(squares, tmp_path_factory):
    output = tmp_path_factory.mktemp("red") / "classifier"
    assert _train(squares, output, "--background", "other,noise") == 0
    return output


def test_a_class_is_told_from_the_background(red, squares, tmp_path, capsys, annotations):
    """The checkpoint remembers what is background; `label` needs no option."""
    described = json.loads((red / "classifier.json").read_text())
    assert described["class_names"] == [["noise", "other"], ["red"]] and not described["multilabel"]
    assert described["training"]["settings"]["background"] == ["noise", "other"]
    assert described["training"]["metrics"]["mean_class_accuracy"] == 1.0
    assert main(["label", "--input", str(squares), "--output", str(tmp_path / "boxes"), "--model", str(red)]) == 0
    said = capsys.readouterr()
    assert "(background: noise, other), 1 shard;" in said.err
    assert "30 images: 10 with boxes, 0 without, 20 skipped (background 20), 0 rejected" in said.out
    assert [category["name"] for category in annotations(tmp_path / "boxes")["categories"]] == ["red"]
    assert _exported(tmp_path / "boxes", tmp_path / "data", "yolo", "--include-empty") == (30, {}, 20)
    assert yaml.safe_load((tmp_path / "data" / "data.yaml").read_text())["names"] == {0: "red"}


def test_what_train_says(squares, red, tmp_path, capsys):
    assert _train(squares, tmp_path / "c", "--background", "noise,other", "--epochs", "1") == 0
    assert ", one an image (softmax); 20 images of none of them (noise, other); " in (capsys.readouterr().err)
    assert _train(squares, red, "--background", "other") == 2
    assert "the call asks for background other instead of noise,other" in capsys.readouterr().err
    assert _train(squares, tmp_path / "d", "--background", "othr") == 2
    assert "background 'othr' is the label of no image" in capsys.readouterr().err


def test_a_class_has_the_weights_that_another_class_in_place_of_the_background_would_give_it(squares, tmp_path):
    rows = [f"{label}/{number}.png,{label}" for label in ("red", "other") for number in range(10)]
    (squares / "two.csv").write_text("path,label\n" + "\n".join(rows))
    for name, options in (("class", []), ("background", ["--background", "other"])):
        assert _train(squares / "two.csv", tmp_path / name, *options) == 0
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("class", "background")]
    assert weights[0] == weights[1]


def test_where_an_image_may_have_several_labels_the_background_has_none(squares, tmp_path, capsys):
    rows = [f"{label}/{number}.png,{label}" for label in ("red", "other") for number in range(10)]
    rows += ["red/0.png,square", "red/1.png,square", "other/0.png,red"]
    (squares / "several.csv").write_text("path,label\n" + "\n".join(rows))
    assert _train(squares / "several.csv", tmp_path / "c", "--background", "other") == 0
    said = capsys.readouterr().err
    assert ", any number of them an image (sigmoid); 9 images of none of them (other); " in said
    assert "images that cannot be used: 1 (1 contradiction)" in said
    rejected = (tmp_path / "c" / "rejected.csv").read_text()
    assert rejected == (
        'path,reason\nother/0.png,"contradiction: labelled red and also background (other); keep what is right"\n'
    ).replace('"', "")
    described = json.loads((tmp_path / "c" / "classifier.json").read_text())
    assert described["class_names"] == [["red"], ["square"]] and described["multilabel"]
    assert described["training"]["images"]["rejected"] == 1


def test_a_class_of_an_earlier_run_becomes_background(squares, tmp_path, capsys, rows):
    """Its boxes are not exported, the other classes' numbers close up, and its images are empty ones."""
    label_map = tmp_path / "map.json"
    label_map.write_text('{"noise": 0, "other": 1, "red": 2}')
    run = tmp_path / "run"
    assert _label(squares, run, "--label-map", str(label_map)) == 0
    boxed = {row["path"]: len(row["boxes"]) for row in rows(run)}
    assert sum(count for path, count in boxed.items() if path.startswith("other/")) > 0, "what is to be dropped"
    images, left_out, background = _exported(run, tmp_path / "out", "yolo", "--background", "other", "--include-empty")
    assert (images, background) == (30 - sum(left_out.values()), 10)
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert data["names"] == {0: "noise", 1: "red"}
    for path in (tmp_path / "out" / "labels" / "train").iterdir():
        label = path.stem.split("_")[0]
        classes = {line.split()[0] for line in path.read_text().splitlines()}
        assert classes == {"other": set(), "noise": {"0"}, "red": {"1"}}[label], path.name
    assert main(["export", "--run", str(run), "--output", str(tmp_path / "x"), "--background", "rad"]) == 2
    assert "background 'rad' is the label of no image; expected one of the input's 3 labels, such as 'red'" in (
        capsys.readouterr().err
    )
