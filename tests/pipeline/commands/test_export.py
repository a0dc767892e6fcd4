import collections
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import supervision as sv
import yaml
from PIL import Image
from pycocotools.coco import COCO

from camboxes.pipeline.cli import main
from camboxes.pipeline.detection_data.selection import Selection
from camboxes.pipeline.formats.exported_names import stem
from camboxes.transforms import Plan, PlannedRun, storage
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision, read_decisions
from camboxes.transforms.write import merge

SPLITS = ("train", "val")
VOC = Path("VOCdevkit", "VOC2012")
ORIENTATION = 0x0112


def _export(run, output, *options):
    return main(["export", "--run", str(run), "--output", str(output), *map(str, options)])


def _encoded(form="JPEG", size=(64, 48), grey=90, **options):
    """A grey photograph, as the bytes of a file."""
    file = io.BytesIO()
    Image.new("RGB", size, (grey, grey, grey)).save(file, form, **options)
    return file.getvalue()


def _box(bbox, score=0.5, rank=1, calibrated=None, label=None):
    return {"bbox": bbox, "score": score, "rank": rank, "calibrated_score": calibrated, "label": label}


@pytest.fixture
def made(tmp_path):
    """Makes a finished run of a few images: for each path its file's bytes, labels, boxes, and what else differs."""

    def make(images, name="run", shards=2):
        root, output = tmp_path / f"{name}-photos", tmp_path / name
        root.mkdir()
        for path, (data, *_) in images.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        manifest = root / "labels.jsonl"
        manifest.write_text("".join(json.dumps({"path": p, "labels": i[1]}) + "\n" for p, i in images.items()))
        label_map = {label.strip(): 0 for _, labels, *_ in images.values() for label in labels}
        planned = Plan(str(output), [["thing"]], label_map, shards=shards).make(str(manifest))
        for key in planned.shards:
            rows = [_row(row, *images[row["path"]]) for row in planned.planned_rows(key).to_pylist()]
            settings = {"method": "cam", "model": {"name": "timm:net"}}
            storage.write_table(shard_file(str(output), key), table(rows, LABELED, settings))
        merge([], str(output))
        return output

    return make


def _row(planned, data, _, boxes, status=None, size=(64, 48)):
    ids = {label["label"]: label["category_id"] for label in planned["labels"]}
    labels = [
        {"label": label, "category_id": number, "class_index": 0, "logit": 1.0, "probability": 0.5}
        for label, number in ids.items()
    ]
    drawn = []
    for box in boxes:
        values = {name: value for name, value in box.items() if name != "label"}
        category = ids[box["label"] or next(iter(ids))]
        uid = hashlib.sha256(f"{planned['path']}{category}{box['bbox']}".encode()).hexdigest()[:16]
        drawn.append(values | {"category_id": category, "box_uid": uid, "component_area": 0.1, "threshold": 0.25})
    return {
        "image_id": planned["image_id"],
        "path": planned["path"],
        "digest": hashlib.sha256(data).hexdigest(),
        "width": size[0],
        "height": size[1],
        "status": status or ("ok" if boxes else "no_box"),
        "reason": "not_an_image: so it is" if status == "rejected" else None,
        "labels": labels,
        "top5": [],
        "maps": [],
        "boxes": drawn,
    }


def _of_run(run):
    """For each image of a run with boxes: the end of its exported name, and (label, corners) of its boxes."""
    coco = json.loads(Path(run, "annotations.json").read_text())
    labels = {category["id"]: category["name"] for category in coco["categories"]}
    boxes = collections.defaultdict(list)
    for a in coco["annotations"]:
        x, y, width, height = a["bbox"]
        boxes[a["image_id"]].append((labels[a["category_id"]], (x, y, x + width, y + height)))
    ends = {image["id"]: hashlib.sha256(image["file_name"].encode()).hexdigest()[:16] for image in coco["images"]}
    return {ends[number]: sorted(found) for number, found in boxes.items()}, [c["name"] for c in coco["categories"]]


def _read(kind, folder):
    """An export as supervision reads it: both sides' data sets."""
    if kind == "coco":
        for split in SPLITS:
            yield sv.DetectionDataset.from_coco(
                str(folder / "images"), str(folder / "annotations" / f"instances_{split}.json")
            )
    elif kind == "yolo":
        for split in SPLITS:
            yield sv.DetectionDataset.from_yolo(
                str(folder / "images" / split), str(folder / "labels" / split), str(folder / "data.yaml")
            )
    else:
        yield sv.DetectionDataset.from_pascal_voc(str(folder / VOC / "JPEGImages"), str(folder / VOC / "Annotations"))


def _boxes(dataset):
    """The same as _of_run, of what supervision has read; every image is decoded."""
    found = {}
    for path, pixels, detections in dataset:
        height, width = pixels.shape[:2]
        corners = detections.xyxy.astype(float)
        assert (corners >= 0).all() and (corners <= [width, height, width, height]).all()
        labels = [dataset.classes[number] for number in detections.class_id]
        found[Path(path).stem[-16:]] = sorted(zip(labels, map(tuple, corners), strict=True))
    return found


def _check(kind, folder, run, within):
    expected, classes = _of_run(run)
    found = {}
    for dataset in _read(kind, folder):
        if kind == "voc":  # it has no list of classes: supervision collects those that it meets
            assert set(dataset.classes) <= set(classes)
            assert (folder / VOC / "classes.txt").read_text().splitlines() == classes
        else:
            assert dataset.classes == classes
        of_split = _boxes(dataset)
        assert not of_split.keys() & found.keys(), "no image is on both sides"
        found |= of_split
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert [label for label, _ in found[name]] == [label for label, _ in boxes]
        for (_, there), (_, here) in zip(found[name], boxes, strict=True):
            assert there == pytest.approx(here, abs=within)


@pytest.mark.parametrize(("kind", "within"), [("coco", 0.001), ("yolo", 0.005), ("voc", 0.5)])
def test_supervision_reads_what_the_run_holds(run, tmp_path, kind, within):
    assert _export(run, tmp_path / "out", "--format", kind, "--val", 0.5) == 0
    _check(kind, tmp_path / "out", run, within)


def test_coco_keeps_ids_and_fields(run, tmp_path, annotations, rows):
    assert _export(run, tmp_path / "out", "--val", 0.5) == 0
    of_run = annotations(run)
    before = {a["box_uid"]: a for a in of_run["annotations"]}
    method = of_run["info"]["settings"]["method"]
    thresholds = {box["box_uid"]: box["threshold"] for row in rows(run) for box in row["boxes"]}
    read = [COCO(str(tmp_path / "out" / "annotations" / f"instances_{split}.json")) for split in SPLITS]
    ids = [number for coco in read for number in coco.getAnnIds()]
    assert sorted(ids) == [1, 2, 3, 4, 5]
    images = {number: coco.imgs[number] for coco in read for number in coco.getImgIds()}
    assert {i["id"]: (i["width"], i["height"]) for i in of_run["images"]} == {
        number: (i["width"], i["height"]) for number, i in images.items()
    }
    for coco in read:
        assert coco.loadCats(coco.getCatIds()) == of_run["categories"]
        for number in coco.getImgIds():
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[number])):
                uid = annotation["box_uid"]
                provenance = {"source": "machine", "model": "timm:tf_efficientnet_lite0", "method": method}
                provenance["threshold"] = thresholds[uid]
                assert annotation | {"id": 0} == before.pop(uid) | provenance | {"id": 0}
    assert before == {}


def test_parquet_has_a_row_for_each_box(run, tmp_path, annotations):
    assert _export(run, tmp_path / "out", "--format", "parquet", "--val", 0.5) == 0
    of_run = annotations(run)
    paths = {image["id"]: image for image in of_run["images"]}
    labels = {category["id"]: category["name"] for category in of_run["categories"]}
    rows = pq.read_table(tmp_path / "out" / "boxes.parquet").to_pylist()
    assert len(rows) == 5
    for row, a in zip(rows, of_run["annotations"], strict=True):
        image = paths[a["image_id"]]
        assert [row["x"], row["y"], row["box_width"], row["box_height"]] == a["bbox"]
        assert {name: row[name] for name in ("image_id", "category_id", "score", "rank", "box_uid")} == {
            name: a[name] for name in ("image_id", "category_id", "score", "rank", "box_uid")
        }
        assert (row["path"], row["width"], row["height"]) == (image["file_name"], image["width"], image["height"])
        assert row["category"] == labels[a["category_id"]]
        assert row["split"] == Selection(0.5, 0, 0).split(row)
        assert row["calibrated_score"] is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["boxes.parquet", "export.json"]


def test_torchvision_reads_voc_and_coco(run, tmp_path):
    from torchvision.datasets import CocoDetection, VOCDetection

    assert _export(run, tmp_path / "voc", "--format", "voc", "--val", 0.5) == 0
    assert _export(run, tmp_path / "coco", "--val", 0.5) == 0
    seen = 0
    for split in SPLITS:
        voc = VOCDetection(tmp_path / "voc", year="2012", image_set=split)
        coco = CocoDetection(
            tmp_path / "coco" / "images", tmp_path / "coco" / "annotations" / f"instances_{split}.json"
        )
        names = [coco.coco.imgs[number]["file_name"] for number in coco.ids]
        by_stem = {Path(path).stem: number for number, path in enumerate(voc.images)}
        assert sorted(by_stem) == sorted(Path(name).stem for name in names)
        for number, name in enumerate(names):
            photograph, [annotation] = coco[number]
            other, target = voc[by_stem[Path(name).stem]]
            [item] = target["annotation"]["object"]
            assert other.format is None and photograph.size == other.size
            assert target["annotation"]["size"]["width"] == str(photograph.width)
            assert item["name"] == coco.coco.cats[annotation["category_id"]]["name"]
            x, y, width, height = annotation["bbox"]
            corners = [int(item["bndbox"][edge]) for edge in ("xmin", "ymin", "xmax", "ymax")]
            assert corners == pytest.approx([x + 1, y + 1, x + width, y + height], abs=0.5)
            seen += 1
    assert seen == 5


HOSTILE = [
    "a/x.jpg",
    "b/x.jpg",
    "a/x.png",
    "A/x.jpg",
    "images/labels/images/x.jpg",
    "-rf.jpg",
    " lead and trail .jpg",
    "no suffix",
    "dots.in.the.name.jpg",
    "写真/猫 ñ.jpg",
    "<&>\"'%s{}#:!*?|\\.jpg",
    "new\nline\ttab.jpg",
    "long-" + 120 * "ü" + ".jpg",
]
LABELS = [
    "null",
    "yes",
    "12",
    "1e3",
    "- dash",
    "two  spaces",
    "cat: dog # <b> & \"q\" 'x'",
    "写真 😀",
    "!tag",
    "{a}",
    "]]>",
]


@pytest.mark.parametrize(("kind", "within"), [("coco", 0.001), ("yolo", 0.005), ("voc", 0.5)])
def test_hostile_names(made, tmp_path, kind, within):
    images = {
        path: (_encoded("PNG" if path.endswith("png") else "JPEG"), [label], [_box([5.25, 6.5, 20.13, 30.07])])
        for path, label in zip(HOSTILE, LABELS + LABELS, strict=False)
    }
    run = made(images)
    assert _export(run, tmp_path / "out", "--format", kind, "--val", 0.4) == 0
    _check(kind, tmp_path / "out", run, within)
    files = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".jpg", ".png")]
    assert len(files) == len(HOSTILE)
    assert all(path.name.isascii() and " " not in path.name and len(path.name) < 120 for path in files)
    if kind == "yolo":
        names = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())["names"]
        assert names == dict(enumerate(sorted(label.strip() for label in LABELS))), (
            "all of them text, none a number, null or a bool"
        )


def test_labels_that_fit_in_no_line(made, tmp_path, capsys):
    run = made({"x.jpg": (_encoded(), ["two\nlines", "bell\x07"], [_box([1, 2, 3, 4])])})
    for kind in ("yolo", "voc"):
        assert _export(run, tmp_path / "out", "--format", kind) == 2
        assert "labels 'bell\\x07', 'two\\nlines' hold control characters" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert _export(run, tmp_path / "out") == 0
    assert next(_read("coco", tmp_path / "out")).classes == ["bell\x07", "two\nlines"]


_STORED_FROM_UPRIGHT = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_boxes_fit_whether_a_reader_turns_images_or_not(made, tmp_path, kind):
    upright = np.full((48, 96, 3), 30, np.uint8)
    upright[8:24, 16:40] = (220, 20, 20)  # the box's pixels
    images = {}
    for form in ("jpeg", "png"):
        for orientation, turn in _STORED_FROM_UPRIGHT.items():
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            stored = Image.fromarray(upright) if turn is None else Image.fromarray(upright).transpose(turn)
            file = io.BytesIO()
            stored.save(file, form, exif=exif, **({"quality": 98, "subsampling": 0} if form == "jpeg" else {}))
            images[f"{orientation}.{form}"] = (file.getvalue(), ["red"], [_box([16, 8, 24, 16])], "ok", (96, 48))
    run = made(images)
    assert _export(run, tmp_path / "out", "--format", kind, "--val", 0) == 0
    files = [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".jpg", ".png")]
    assert len(files) == 16
    for path in files:
        unturned = np.array(Image.open(path).convert("RGB"))
        turned = cv2.imread(str(path))[:, :, ::-1]  # OpenCV applies EXIF orientation
        for pixels in (unturned, turned):
            assert pixels.shape == (48, 96, 3), path
            assert np.abs(pixels.astype(int) - upright).max() < 30, path
        linked = path.stat().st_nlink == 2
        as_it_was = path.name.startswith("1-") and (kind != "voc" or path.read_bytes() == images["1.jpeg"][0])
        assert linked == as_it_was, path
    for path, (data, *_) in images.items():
        assert (tmp_path / "run-photos" / path).read_bytes() == data, "originals stay as they were"


def test_formats_that_not_every_trainer_reads(made, tmp_path):
    forms = ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"]
    images = {f"{form}.xyz": (_encoded(form), ["a"], [_box([1, 2, 3, 4])]) for form in forms}
    run = made(images)
    assert _export(run, tmp_path / "out", "--format", "yolo", "--val", 0) == 0
    assert _export(run, tmp_path / "voc", "--format", "voc", "--val", 0) == 0
    files = {path.name.split("-")[0]: path for path in (tmp_path / "out" / "images" / "train").iterdir()}
    expected = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "WEBP": ".webp", "GIF": ".png", "TIFF": ".png"}
    assert {form: path.suffix for form, path in files.items()} == expected | {"PPM": ".png"}
    for form, path in files.items():
        assert Image.open(path).format == {"GIF": "PNG", "TIFF": "PNG", "PPM": "PNG"}.get(form, form)
        assert np.abs(cv2.imread(str(path)).astype(int) - 90).max() <= 2
    for path in (tmp_path / "voc" / VOC / "JPEGImages").iterdir():
        assert path.suffix == ".jpg" and Image.open(path).format == "JPEG", "loaders of VOC ask for .jpg by name"


def test_links_and_copies(made, tmp_path, monkeypatch):
    images = {
        "whole.jpg": (_encoded(), ["a"], [_box([1, 2, 3, 4])]),
        "trailer.jpg": (_encoded() + b"maker's notes", ["a"], [_box([1, 2, 3, 4])]),
        "real.png": (_encoded("PNG"), ["a"], [_box([1, 2, 3, 4])]),
    }
    run, photos = made(images), tmp_path / "run-photos"
    (photos / "real.png").rename(photos / "elsewhere")
    (photos / "real.png").symlink_to("elsewhere")

    def exported(name, *options):
        assert _export(run, tmp_path / name, "--val", 0, *options) == 0
        return {path.name.split("-")[0]: path for path in (tmp_path / name / "images").iterdir()}

    links = exported("links")
    assert links["whole"].samefile(photos / "whole.jpg")
    assert links["real"].samefile(photos / "elsewhere") and not links["real"].is_symlink()
    assert not links["trailer"].samefile(photos / "trailer.jpg"), "ultralytics would rewrite it in place"
    copies = exported("copies", "--copy")

    def no_link(*_, **__):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    for files in (copies, exported("refused")):
        for path, (data, *_) in images.items():
            file = files[path.split(".")[0]]
            assert file.read_bytes() == data and file.stat().st_nlink == 1
    assert links["trailer"].read_bytes() == images["trailer.jpg"][0]


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
def test_copies_are_on_one_side_and_told(made, tmp_path, kind, capsys):
    pictures = [_encoded("PNG", grey=number) for number in range(12)]
    run = made({f"{n:02d}{c}.png": (pictures[n], ["a"], [_box([1, 2, 3, 4])]) for n in range(12) for c in "abc"})
    assert _export(run, tmp_path / "out", "--format", kind, "--val", 0.4) == 0
    assert "copies of other images: 24, such as 00b.png of 00a.png" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "export.json").read_text())["copies"] == 24
    assert _export(run, tmp_path / "boxes", "--format", "parquet", "--val", 0.4) == 0
    sides = collections.defaultdict(set)
    for row in pq.read_table(tmp_path / "boxes" / "boxes.parquet").to_pylist():
        sides[row["digest"]].add(row["split"])
    assert sorted(map(len, sides.values())) == [1] * 12
    assert set().union(*sides.values()) == {"train", "val"}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
def test_an_input_that_comes_split_is_exported_so(made, tmp_path, kind, capsys):
    names = [f"{folder}/{number}.png" for folder in ("train", "valid", "test") for number in range(3)]
    images = {name: (_encoded("PNG", grey=number), ["a"], [_box([1, 2, 3, 4])]) for number, name in enumerate(names)}
    images["valid/again.png"] = images["train/0.png"]
    run = made(images)
    planned = PlannedRun.load(str(run))
    dataclasses.replace(planned, splits={"train": "train", "valid": "val", "test": "test"}).save()
    assert _export(run, tmp_path / "out", "--format", kind) == 0
    said = capsys.readouterr().out
    assert "10 exported (3 train, 4 val, 3 test)" in said
    assert "the split of the input's folders is kept: test, train, valid" in said
    assert "WARNING: copies of images on another side: 1, such as valid/again.png (val) of train/0.png (train)" in (
        said
    )
    out = tmp_path / "out"
    if kind == "coco":
        files = {path.stem: json.loads(path.read_text())["images"] for path in (out / "annotations").iterdir()}
        assert {name: len(of) for name, of in files.items()} == {
            "instances_train": 3, "instances_val": 4, "instances_test": 3
        }  # fmt: skip
    elif kind == "yolo":
        assert yaml.safe_load((out / "data.yaml").read_text())["test"] == "images/test"
        assert {path.parent.name for path in (out / "labels").rglob("test_*.txt")} == {"test"}
    elif kind == "voc":
        assert len((out / VOC / "ImageSets/Main/test.txt").read_text().split()) == 3
    else:
        rows = pq.read_table(out / "boxes.parquet").to_pylist()
        assert [row["split"] for row in rows if row["path"].startswith("test/")] == ["test"] * 3
    assert _export(run, tmp_path / "other", "--format", kind, "--val", 0.3) == 2
    assert "--val is 0.3, and the run's input comes split, in folders test, train, valid; leave --val out" in (
        capsys.readouterr().err
    )


def test_added_images_move_none(made, tmp_path):
    few = {f"a/{number}.jpg": (_encoded(grey=20 * number), ["a"], [_box([1, 2, 3, 4])]) for number in range(12)}
    many = {f"{letter}/{number}.jpg": few[f"a/{number}.jpg"] for letter in "0az" for number in range(12)}
    sides = []
    for name, images in (("few", few), ("many", many)):
        assert _export(made(images, name), tmp_path / f"out-{name}", "--format", "yolo", "--val", 0.4) == 0
        sides.append({path.name: path.parent.name for path in (tmp_path / f"out-{name}" / "images").rglob("*.jpg")})
    assert len(sides[0]) == 12 and len(sides[1]) == 36
    assert sides[0].items() <= sides[1].items()
    assert set(sides[0].values()) == set(SPLITS)


@pytest.fixture
def mixed(made):
    """One image of each kind, and two labels on the last."""
    jpeg = [_encoded(grey=25 * number) for number in range(9)]
    return made(
        {
            "ok.jpg": (jpeg[0], ["cat"], [_box([1, 2, 30, 40], 0.9), _box([3, 4, 5, 6], 0.2, rank=2)]),
            "low.jpg": (jpeg[1], ["cat"], [_box([1, 2, 3, 4], 0.1)]),
            "calibrated.jpg": (jpeg[2], ["cat"], [_box([5, 6, 7, 8], 0.1, calibrated=0.8)]),
            "overconfident.jpg": (jpeg[3], ["cat"], [_box([5, 6, 7, 8], 0.9, calibrated=0.3)]),
            "no_box.jpg": (jpeg[4], ["cat"], []),
            "skipped.jpg": (jpeg[5], ["dog"], [], "skipped"),
            "rejected.jpg": (b"no image", ["dog"], [], "rejected", (None, None)),
            "two.jpg": (jpeg[6], ["cat", "dog"], [_box([10, 11, 12, 13], 0.6, label="dog")]),
        }
    )


def test_images_without_a_known_box_are_left_out(mixed, tmp_path, capsys):
    assert _export(mixed, tmp_path / "all", "--val", 0) == 0
    said = capsys.readouterr().out
    assert "8 images: 5 exported (5 train, 0 val) with 6 boxes, 3 left out (1 no_box, 1 rejected, 1 skipped)" in said
    assert ", 0 unreadable" in said
    assert "left out: images without a known box, from which a trainer would learn that nothing is there" in said
    assert "1 of the exported images have a label without a box" in said
    assert f"wrote {tmp_path}/all/images, " in said
    assert f"{tmp_path}/all/annotations/instances_val.json, {tmp_path}/all/export.json" in said
    names = {path.name.split("-")[0] for path in (tmp_path / "all" / "images").iterdir()}
    assert names == {"ok", "low", "calibrated", "overconfident", "two"}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
def test_a_smallest_score(mixed, tmp_path, capsys, kind):
    assert _export(mixed, tmp_path / "out", "--format", kind, "--val", 0, "--min-score", 0.5) == 0
    assert (
        "8 images: 3 exported (3 train, 0 val) with 3 boxes, "
        "5 left out (2 below --min-score, 1 no_box, 1 rejected, 1 skipped), 0 unreadable"
    ) in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["images"] == {
        "planned": 8,
        "train": 3,
        "val": 0,
        "left_out": {"below --min-score": 2, "no_box": 1, "rejected": 1, "skipped": 1},
        "unreadable": 0,
    }
    expected = {
        "calibrated.jpg": [("cat", (5, 6, 12, 14))],
        "ok.jpg": [("cat", (1, 2, 31, 42))],
        "two.jpg": [("dog", (10, 11, 22, 24))],
    }
    if kind == "parquet":
        rows = pq.read_table(tmp_path / "out" / "boxes.parquet").to_pylist()
        found = {row["path"]: [(row["category"], (row["x"], row["y"]))] for row in rows}
        assert found == {path: [(label, corners[:2])] for path, [(label, corners)] in expected.items()}
        assert {row["path"]: row["calibrated_score"] for row in rows}["calibrated.jpg"] == 0.8
        return
    found = {}
    for dataset in _read(kind, tmp_path / "out"):
        found |= _boxes(dataset)
    assert found.keys() == {stem(path)[-16:] for path in expected}
    for path, [(label, corners)] in expected.items():
        [(its_label, its_corners)] = found[stem(path)[-16:]]
        assert its_label == label and its_corners == pytest.approx(corners, abs=1e-4)


def test_a_side_without_images_is_told(mixed, made, tmp_path, capsys):
    one = made({"a.jpg": (_encoded(), ["cat"], [_box([1, 2, 30, 40])])}, "one")
    assert _export(one, tmp_path / "drawn") == 0
    assert "WARNING: no image is in train: a detector needs both" in capsys.readouterr().out
    assert _export(one, tmp_path / "asked", "--val", 0) == 0
    assert _export(mixed, tmp_path / "both", "--val", 0.5) == 0
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
def test_classes_keep_their_numbers_over_parts(made, tmp_path, kind):
    """Two parts of a data set, the second without the first one's classes, under one list of classes."""
    box = [_box([1, 2, 30, 40])]
    parts = {"a": ["espresso", "tripod"], "b": ["moped", "tripod"]}
    (tmp_path / "names.txt").write_text("tripod\n\nespresso\nunicorn\nmoped\n")
    ids = {"tripod": 1, "espresso": 2, "unicorn": 3, "moped": 4}
    for name, labels in parts.items():
        images = {f"{label}.jpg": (_encoded(grey=30 * ids[label]), [label], box) for label in labels}
        run, out = made(images, name), tmp_path / f"{name}-{kind}"
        assert _export(run, out, "--format", kind, "--val", 0, "--classes", tmp_path / "names.txt") == 0
        assert json.loads((out / "export.json").read_text())["classes"] == list(ids)
        if kind == "coco":
            dataset = json.loads((out / "annotations" / "instances_train.json").read_text())
            assert {of["name"]: of["id"] for of in dataset["categories"]} == ids
            found = {image["id"]: Path(image["file_name"]).stem for image in dataset["images"]}
            boxes = {(found[box["image_id"]], box["category_id"]) for box in dataset["annotations"]}
            assert boxes == {(stem(f"{label}.jpg"), ids[label]) for label in labels}
        elif kind == "yolo":
            assert yaml.safe_load((out / "data.yaml").read_text())["names"] == dict(enumerate(ids))
            for label in labels:
                text = (out / "labels" / "train" / f"{stem(f'{label}.jpg')}.txt").read_text()
                assert text.startswith(f"{ids[label] - 1} ")
        elif kind == "voc":
            assert (out / "VOCdevkit" / "VOC2012" / "classes.txt").read_text().split() == list(ids)
        else:
            found = pq.read_table(out / "boxes.parquet").to_pylist()
            assert {(row["category"], row["category_id"]) for row in found} == {(of, ids[of]) for of in labels}


def test_classes_of_an_earlier_export(made, tmp_path, capsys):
    box = [_box([1, 2, 30, 40])]
    first = made({"a.jpg": (_encoded(), ["tripod"], box), "b.jpg": (_encoded(grey=9), ["moped"], box)}, "first")
    second = made({"c.jpg": (_encoded(grey=40), ["tripod"], box)}, "second")
    assert _export(first, tmp_path / "one", "--format", "yolo") == 0
    for name in ("data.yaml", "classes.txt"):
        out = tmp_path / f"of {name}"
        assert _export(second, out, "--format", "yolo", "--val", 0, "--classes", tmp_path / "one" / name) == 0
        assert yaml.safe_load((out / "data.yaml").read_text())["names"] == {0: "moped", 1: "tripod"}
        assert (out / "labels" / "train" / f"{stem('c.jpg')}.txt").read_text().startswith("1 ")
    capsys.readouterr()
    (tmp_path / "short.txt").write_text("tripod\n")
    assert _export(first, tmp_path / "out", "--classes", tmp_path / "short.txt") == 2
    assert "has no 'moped', as the run's labels do; add what is missing at the end" in capsys.readouterr().err
    assert _export(first, tmp_path / "out", "--classes", tmp_path / "short.txt", "--background", "moped") == 0


def test_without_images_for_validation_yolo_validates_on_train(mixed, tmp_path, capsys):
    assert _export(mixed, tmp_path / "none", "--format", "yolo", "--val", 0) == 0
    assert "data.yaml uses train's images for val, too" in capsys.readouterr().out
    assert _export(mixed, tmp_path / "some", "--format", "yolo", "--val", 0.5) == 0
    data = yaml.safe_load((tmp_path / "none" / "data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/train", "names": {0: "cat", 1: "dog"}}
    assert yaml.safe_load((tmp_path / "some" / "data.yaml").read_text())["val"] == "images/val"
    assert (tmp_path / "some" / "classes.txt").read_text() == "cat\ndog\n"
    for split in SPLITS:
        images, labels = (
            {path.stem for path in (tmp_path / "some" / kind / split).iterdir()} for kind in ("images", "labels")
        )
        assert images == labels and images


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc"])
def test_files_that_are_gone_or_changed(mixed, tmp_path, capsys, kind):
    photos = tmp_path / "run-photos"
    (photos / "ok.jpg").unlink()
    (photos / "two.jpg").write_bytes(_encoded(quality=10))
    (photos / "no_box.jpg").unlink()  # left out in any case
    assert _export(mixed, tmp_path / "out", "--format", kind, "--val", 0) == 1
    said = capsys.readouterr()
    assert "8 images: 3 exported (3 train, 0 val) with 3 boxes, 3 left out" in said.out
    assert ", 2 unreadable" in said.out
    assert "camboxes export: the job failed: not in the export: 2 of 8 images" in said.err
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["unreadable"] == {
        "ok.jpg": "missing: there is no file at this path",
        "two.jpg": "changed: the file is not the one that the run saw",
    }
    found = {}
    for dataset in _read(kind, tmp_path / "out"):
        found |= _boxes(dataset)
    assert found.keys() == {stem(name)[-16:] for name in ("low.jpg", "calibrated.jpg", "overconfident.jpg")}


def test_a_run_that_lost_a_row(mixed, tmp_path, capsys):
    file = next(path for path in (mixed / "shards").iterdir() if pq.read_table(path).num_rows > 1)
    rows = pq.read_table(file)
    pq.write_table(rows.slice(1), file)
    for kind in ("coco", "parquet"):
        assert _export(mixed, tmp_path / kind, "--format", kind) == 1
        assert "8 images were planned in " in (said := capsys.readouterr().err) and "7 are accounted for" in said


def test_wrong_calls(mixed, tmp_path, capsys):
    def refused(message, run=mixed, output=tmp_path / "out", *options):
        assert _export(run, output, *options) == 2
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("camboxes export: ") and message in line, line
        assert not (tmp_path / "out").exists()

    refused("holds no run; expected the --output of camboxes label", tmp_path)
    refused("lies in the run's own folder", mixed, mixed)
    refused("lies in the run's own folder", mixed, mixed / "export")
    refused("holds the run itself or its images", mixed, tmp_path, "--overwrite", "--format", "parquet")
    refused("holds the run itself or its images", mixed, tmp_path / "run-photos")
    refused("is no local folder", mixed, "gs://bucket/export")
    refused("val is 1.0; expected a share from 0", mixed, tmp_path / "out", "--val", 1)
    refused("val is -0.1; expected a share from 0", mixed, tmp_path / "out", "--val", "-0.1")
    refused("val is nan; expected a share from 0", mixed, tmp_path / "out", "--val", "nan")
    refused("min-score is 1.5; expected a score from 0 to 1", mixed, tmp_path / "out", "--min-score", 1.5)
    refused("unknown option --direct_num_workers=2", mixed, tmp_path / "out", "--direct_num_workers=2")
    (tmp_path / "file").write_text("")
    refused("is a file; expected a folder", mixed, tmp_path / "file")
    (tmp_path / "run-photos").rename(tmp_path / "moved")
    refused("the run's images are not at ", mixed)
    assert _export(mixed, tmp_path / "out", "--format", "parquet") == 0, "which needs no images"


def test_an_unfinished_run(mixed, tmp_path, capsys):
    next((mixed / "shards").iterdir()).unlink()
    assert _export(mixed, tmp_path / "out") == 2
    assert "is not finished: it lacks 1 of 2 shards" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_an_export_is_overwritten(mixed, tmp_path, capsys):
    out = tmp_path / "out"
    assert _export(mixed, out, "--format", "yolo") == 0
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert _export(mixed, out, "--format", "yolo") == 2
    assert "is not empty; choose another folder, or replace an export with --overwrite" in capsys.readouterr().err
    (out / "notes.txt").write_text("mine")
    (out / "labels" / "train.cache").write_text("of the last training")
    assert _export(mixed, out, "--format", "yolo", "--val", 2, "--overwrite") == 2
    assert (out / "labels" / "train.cache").exists(), "a wrong call costs nothing"
    assert _export(mixed, out, "--format", "yolo", "--overwrite") == 0
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == before | {
        Path("notes.txt"): b"mine"
    }
    assert _export(mixed, out, "--overwrite") == 0
    assert sorted(path.name for path in out.iterdir()) == ["annotations", "export.json", "images", "notes.txt"]
    (tmp_path / "own" / "images").mkdir(parents=True)
    (tmp_path / "own" / "images" / "only copy.jpg").write_text("dear")
    assert _export(mixed, tmp_path / "own", "--overwrite") == 2
    assert "holds images, which are not from an export" in capsys.readouterr().err
    assert (tmp_path / "own" / "images" / "only copy.jpg").read_text() == "dear"


def test_a_relative_root(mixed, tmp_path, monkeypatch, capsys):
    plan = mixed / "plan" / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"root": "run-photos"}))
    assert _export(mixed, tmp_path / "out") == 2
    assert "call export from the folder that the run was made from" in capsys.readouterr().err
    with contextlib.chdir(tmp_path):
        assert _export("run", "out") == 0


@pytest.fixture
def reviewed(mixed, rows):
    """Every kind of decision about the mixed images."""
    own = {row["path"]: row for row in rows(mixed)}
    ids = {"cat": 1, "dog": 2}

    def decide(path, verdict, *boxes):
        append_decision(str(mixed), Decision(path, own[path]["image_id"], verdict, boxes=boxes))

    def person(label, bbox):
        return DecidedBox(label, ids[label], bbox)

    weak = next(box for box in own["ok.jpg"]["boxes"] if box["rank"] == 2)
    machine = DecidedBox(label="cat", method="cam", **weak | {"source": "machine"})
    decide("ok.jpg", "rejected")
    decide("ok.jpg", "accepted", person("dog", (20, 20, 10, 5)), machine)
    decide("low.jpg", "accepted")
    decide("calibrated.jpg", "rejected")
    decide("overconfident.jpg", "skipped")
    decide("no_box.jpg", "accepted", person("cat", (1, 1, 8, 8)))
    decide("skipped.jpg", "accepted", person("dog", (2, 2, 8, 8)))
    decide("rejected.jpg", "accepted", person("dog", (3, 3, 8, 8)))  # nobody can have seen it
    return mixed


ACCEPTED = {
    "ok.jpg": [("cat", (3, 4, 8, 10)), ("dog", (20, 20, 30, 25))],
    "low.jpg": [],
    "no_box.jpg": [("cat", (1, 1, 9, 9))],
    "skipped.jpg": [("dog", (2, 2, 10, 10))],
}
REJECTED = {"calibrated.jpg": []}
UNDECIDED = {"overconfident.jpg": [("cat", (5, 6, 12, 14))], "two.jpg": [("dog", (10, 11, 22, 24))]}


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
@pytest.mark.parametrize(
    ("include", "expected", "left_out"),
    [
        ("accepted", ACCEPTED, {"not reviewed": 2, "rejected": 1, "rejected in review": 1}),
        ("reviewed", ACCEPTED | REJECTED, {"not reviewed": 2, "rejected": 1}),
        ("all", ACCEPTED | REJECTED | UNDECIDED, {"rejected": 1}),
    ],
)
def test_what_a_review_decided(reviewed, tmp_path, capsys, kind, include, expected, left_out):
    assert _export(reviewed, tmp_path / "out", "--format", kind, "--include", include, "--val", 0.4) == 0
    said = capsys.readouterr().out
    empty = sum(not boxes for boxes in expected.values())
    assert f"{empty} of the exported images have no box: a person found no object, or rejected the boxes" in said
    assert "without a known box" not in said, "those that are left out are so for other reasons"
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (record["include"], record["images"]["left_out"]) == (include, left_out)
    assert sum(record["boxes"].values()) == sum(map(len, expected.values()))
    if kind == "parquet":
        found = collections.defaultdict(list)
        for row in pq.read_table(tmp_path / "out" / "boxes.parquet").to_pylist():
            found[row["path"]] += [] if row["category"] is None else [_place(row)]
        assert {path: sorted(boxes) for path, boxes in found.items()} == expected
        return
    found = {}
    for dataset in _read(kind, tmp_path / "out"):
        found |= _boxes(dataset)
    assert found.keys() == {stem(path)[-16:] for path in expected}
    for path, boxes in expected.items():
        assert [label for label, _ in found[stem(path)[-16:]]] == [label for label, _ in boxes]
        for (_, there), (_, here) in zip(found[stem(path)[-16:]], boxes, strict=True):
            assert there == pytest.approx(here, abs=1e-4)


def _place(row):
    """A row of boxes.parquet as label and corners."""
    left, top = row["x"], row["y"]
    return row["category"], (left, top, left + row["box_width"], top + row["box_height"])


def test_where_boxes_come_from(reviewed, tmp_path):
    machine = {"source": "machine", "model": "timm:net", "method": "cam", "threshold": 0.25}
    person = {"source": "person", "model": None, "method": None, "threshold": None}
    for kind in ("coco", "voc", "parquet"):
        options = ["--format", kind, "--include", "accepted", "--val", 0]
        assert _export(reviewed, tmp_path / kind, *options) == 0
    coco = COCO(str(tmp_path / "coco" / "annotations" / "instances_train.json"))
    [image] = [number for number, image in coco.imgs.items() if image["file_name"] == f"{stem('ok.jpg')}.jpg"]
    by_category = {a["category_id"]: a for a in coco.loadAnns(coco.getAnnIds(imgIds=[image]))}
    assert machine.items() <= by_category[1].items() and person.items() <= by_category[2].items()
    rows = pq.read_table(tmp_path / "parquet" / "boxes.parquet").to_pylist()
    ok = {row["category"]: row for row in rows if row["path"] == "ok.jpg"}
    assert machine.items() <= ok["cat"].items() and person.items() <= ok["dog"].items()
    xml = (tmp_path / "voc" / VOC / "Annotations" / f"{stem('ok.jpg')}.xml").read_text()
    sources = re.findall("<source>(.*?)</source>", re.sub(r"\n\s*", "", xml))
    assert sources == [
        "<database>camboxes</database>",
        "<annotation>machine</annotation><model>timm:net</model><method>cam</method><threshold>0.25</threshold>",
        "<annotation>person</annotation>",
    ]


def test_a_smallest_score_is_for_what_nobody_accepted(reviewed, tmp_path, capsys):
    assert _export(reviewed, tmp_path / "out", "--min-score", 0.95) == 0
    assert "7 images" not in (said := capsys.readouterr().out)
    assert "5 exported" in said and "with 4 boxes, 3 left out (2 below --min-score, 1 rejected)" in said


def test_a_round_trip_loses_nothing(run, rows, tmp_path):
    shutil.copytree(run, tmp_path / "boxes")
    run = tmp_path / "boxes"
    data = json.loads((run / "annotations.json").read_text())
    names = [category["name"] for category in data["categories"]]
    method = data["info"]["settings"]["method"]
    for number, row in enumerate(rows(run)):
        drawn = [DecidedBox(names[b["category_id"] - 1], method=method, **b) for b in row["boxes"]]
        added = DecidedBox(names[number], number + 1, (0.25, 0, 100.5, 90 + number))
        verdict = ["accepted", "accepted", "accepted", "rejected", "skipped"][number]
        boxes = [(*drawn, added), (), (added,), drawn, drawn][number]
        append_decision(str(run), Decision(row["path"], row["image_id"], verdict, boxes=boxes))
    decisions = read_decisions(str(run))
    assert main(["rebox", "--run", str(run), "--output", str(tmp_path / "again"), "--threshold", "0.6"]) == 0
    assert read_decisions(str(tmp_path / "again")) == decisions
    for source in ("boxes", "again"):
        out = tmp_path / f"{source}-out"
        assert _export(tmp_path / source, out, "--include", "accepted", "--val", 0) == 0
        coco = COCO(str(out / "annotations" / "instances_train.json"))
        accepted = {path: decision for path, decision in decisions.items() if decision.verdict == "accepted"}
        assert {Path(image["file_name"]).stem for image in coco.imgs.values()} == set(map(stem, accepted))
        for decision in accepted.values():
            annotations = coco.loadAnns(coco.getAnnIds(imgIds=[decision.image_id]))
            assert sorted(map(repr, map(_facts, annotations))) == sorted(
                repr(_facts(vars(box) | {"bbox": list(box.bbox)})) for box in decision.boxes
            )


def _facts(box):
    """What an annotation and a decided box have in common; a person's box has a score and a rank in COCO alone."""
    names = ["category_id", "bbox", "source", "box_uid", "threshold", "method"]
    names += ["score", "rank"] if box["source"] == "machine" else []
    return {name: box[name] for name in names}
