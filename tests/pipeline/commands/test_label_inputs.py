"""`camboxes label` on the five photographs in each form that data sets come in: the same boxes from all of them."""

import hashlib
import html
import io
import json
import shutil
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from camboxes.pipeline import cli
from camboxes.transforms import PlannedRun
from camboxes.transforms.planning.listing import read_source

PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--boxes", "largest"]


@pytest.fixture(scope="module")
def samples(photographs):
    """Path, label and bytes of each photograph."""
    files = sorted(photographs.glob("*/*"))
    return [(file.relative_to(photographs).as_posix(), file.parent.name, file.read_bytes()) for file in files]


def _tar(folder, samples, photographs):
    import webdataset

    with webdataset.TarWriter(str(folder / "train.tar")) as tar:
        for path, label, image in samples:
            key, suffix = path.rsplit(".", 1)
            tar.write({"__key__": key.replace(".", "_"), suffix: image, "json": {"label": label}})
    return folder / "train.tar"


def _tfrecord(folder, samples, photographs):
    import tfrecord

    writer = tfrecord.TFRecordWriter(str(folder / "train.tfrecord"))
    for _, label, image in samples:
        writer.write({"image/encoded": (image, "byte"), "image/class/text": (label.encode(), "byte")})
    writer.close()
    return folder / "*.tfrecord"


def _hugging_face(folder, samples, photographs):
    import datasets

    names = sorted({label for _, label, _ in samples})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    rows = [{"image": {"bytes": image, "path": path}, "label": label} for path, label, image in samples]
    datasets.Dataset.from_list(rows, features=features).to_parquet(str(folder / "train.parquet"))
    return folder


def _coco(folder, samples, photographs):
    names = sorted({label for _, label, _ in samples})
    data = {
        "images": [{"id": number, "file_name": path} for number, (path, _, _) in enumerate(samples)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": names.index(label), "bbox": [0, 0, 1, 1]}
            for number, (_, label, _) in enumerate(samples)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(data))
    return folder / "instances.json"


def _classes(folder, samples, photographs):
    """Roboflow's table in a split, with a column of 0 and 1 for each class; names without an ending."""
    names = sorted({label for _, label, _ in samples})
    rows = ["filename, " + ", ".join(names)]
    (folder / "split" / "train").mkdir(parents=True)
    for number, (path, label, image) in enumerate(samples):
        (folder / "split" / "train" / f"{number}.{path.rpartition('.')[2]}").write_bytes(image)
        rows.append(", ".join([str(number), *(str(int(name == label)) for name in names)]))
    (folder / "split" / "train" / "_classes.csv").write_text("\n".join(rows))
    return folder / "split"


def _boxes(output):
    data = json.loads((output / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    return sorted((names[box["category_id"]], box["bbox"], box["score"]) for box in data["annotations"])


@pytest.mark.parametrize("write", [_tar, _tfrecord, _hugging_face, _coco, _classes])
def test_each_form_gives_the_boxes_of_class_folders(write, samples, photographs, plain_run, tmp_path):
    source, output = write(tmp_path, samples, photographs), tmp_path / "boxes"
    root = ["--root", str(photographs)] if write == _coco else []
    assert cli.main(["label", "--input", str(source), "--output", str(output), *root, *PLAIN]) == 0
    assert _boxes(output) == _boxes(plain_run)
    assert "could not" not in (output / "report.html").read_text()
    planned = PlannedRun.load(str(output))
    exported = tmp_path / "data"
    assert cli.main(["export", "--run", str(output), "--output", str(exported), "--format", "coco"]) == 0
    files = [path for path in exported.rglob("*") if path.suffix in (".png", ".jpg", ".jpeg")]
    sizes = sorted(Image.open(io.BytesIO(image)).size for _, _, image in samples)
    assert sorted(Image.open(file).size for file in files) == sizes
    assert planned.images == 5


def test_a_member_that_is_damaged_costs_itself_alone(samples, photographs, tmp_path, rows):
    """In the middle of a tar file, where reading goes on behind it."""
    source = _tar(tmp_path, [*samples[:2], ("0/broken.jpg", "tripod", b"no image"), *samples[2:]], photographs)
    output = tmp_path / "boxes"
    assert cli.main(["label", "--input", str(source), "--output", str(output), *PLAIN]) == 0
    found = {row["path"]: (row["status"], (row["reason"] or "").partition(":")[0]) for row in rows(output)}
    assert found.pop("train.tar/0/broken.jpg") == ("rejected", "not_an_image")
    assert set(found.values()) == {("ok", "")}


def test_a_number_of_shards_is_not_for_containers(samples, photographs, tmp_path, capsys):
    call = ["label", "--input", str(_tar(tmp_path, samples, photographs)), "--output", str(tmp_path / "boxes")]
    assert cli.main([*call, *PLAIN, "--shards", "3"]) == 2
    assert "leave --shards out" in capsys.readouterr().err


def test_an_archive_beside_class_folders_is_no_data_set(photographs, tmp_path):
    shutil.copytree(photographs, tmp_path / "data")
    shutil.make_archive(str(tmp_path / "data" / "photographs"), "tar", photographs)
    labels = {path.parent.name for path in photographs.glob("*/*")}
    assert {image.path.split("/")[0] for image in read_source(str(tmp_path / "data"))} == labels


def test_a_repeated_name_gives_no_image_the_picture_of_another(tmp_path, rows):
    """a, b, a, c, each of one colour in a frame: read as neighbours, c would have the second a's picture."""
    colours = [("a", "red"), ("b", "green"), ("a", "blue"), ("c", "white")]
    pictures = []
    for _, colour in colours:
        file = io.BytesIO()
        ImageOps.expand(Image.new("RGB", (60, 60), colour), 2, "black").save(file, "PNG")
        pictures.append(file.getvalue())
    samples = zip(colours, pictures, strict=True)
    _plain_tar(
        tmp_path / "train.tar",
        [entry for (name, _), image in samples for entry in ((f"{name}.png", image), (f"{name}.cls", b"tripod"))],
    )
    output = tmp_path / "boxes"
    assert cli.main(["label", "--input", str(tmp_path / "train.tar"), "--output", str(output), *PLAIN]) == 0
    digests = {row["path"].removeprefix("train.tar/"): row["digest"] for row in rows(output)}
    digest_of = [hashlib.sha256(picture).hexdigest() for picture in pictures]
    assert digests == {"a.png": digest_of[0], "b.png": digest_of[1], "c.png": digest_of[3]}
    passed_over = PlannedRun.load(str(output)).passed_over.kinds["repeats the key of a sample before it"]
    assert passed_over == {".png": (1, "train.tar/a.png")}


def test_a_class_that_vanishes_is_told_in_the_terminal_the_summary_and_the_report(photographs, tmp_path, capsys):
    shutil.copytree(photographs, tmp_path / "data")
    (tmp_path / "data" / "beagle").mkdir()
    (tmp_path / "data" / "beagle" / "a.heic").touch()
    (tmp_path / "data" / "moped" / "@eaDir").mkdir()
    shutil.copy(next((photographs / "moped").iterdir()), tmp_path / "data" / "moped" / "@eaDir" / "thumb.jpg")
    call = ["label", "--input", str(tmp_path / "data"), "--output", str(tmp_path / "out"), *PLAIN]
    assert cli.main([*call, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "5 images looked up, missing: 0" in said
    remarks = [
        "WARNING: labels without an image, because no file in their folders is read: beagle (1, such as beagle/a.heic)",
        "1 file passed over, no image by its name: 1 .heic (beagle/a.heic)",
        "WARNING: 1 .heic: convert them to JPEG: ImageMagick's magick mogrify -format jpg *.heic, or pillow-heif",
        "1 file passed over, made by the system: a name on its path is one of a file manager's, a camera's or a NAS's: "
        "1 .jpg (moped/@eaDir/thumb.jpg)",
    ]
    assert all(f"\n{remark}\n" in said for remark in remarks)
    assert cli.main(call) == 0
    printed = capsys.readouterr()
    assert all(remark in printed.err.splitlines() for remark in remarks)
    assert "draw again: " in printed.out
    found = json.loads((tmp_path / "out" / "summary.json").read_text())["input"]["passed_over"]
    assert found["files"] == 2
    assert found["labels_without_images"] == {"beagle": {"files": 1, "example": "beagle/a.heic"}}
    assert {"reason": "no image by its name", "ending": ".heic", "files": 1, "example": "beagle/a.heic"} in found[
        "kinds"
    ]
    report = html.unescape((tmp_path / "out" / "report.html").read_text())
    assert all(remark in report for remark in remarks)


def test_images_that_are_not_there_are_told_before_and_after(photographs, tmp_path, capsys):
    """As where paths are relative to another folder; a failed run is not to be drawn again."""
    rows = [f"{path.parent.name}/{path.name},{path.parent.name}" for path in sorted(photographs.glob("*/*"))]
    (tmp_path / "m.csv").write_text("\n".join(["path,label", *rows]))
    call = ["label", "--input", str(tmp_path / "m.csv"), "--output", str(tmp_path / "out"), *PLAIN]
    assert cli.main([*call, "--dry-run"]) == 2
    printed = capsys.readouterr()
    assert "          5 images looked up, missing: 5 (" in printed.out
    assert "this run would fail: WARNING: not there: 5 of 5 images that were looked up" in printed.err
    assert "name it with --root DIR" in printed.err
    assert cli.main([*call, "--dry-run", "--root", str(photographs)]) == 0
    assert "5 images looked up, missing: 0" in capsys.readouterr().out
    assert cli.main(call) == 1
    printed = capsys.readouterr()
    assert "WARNING: not there: 5 of 5 images that were looked up" in printed.err
    assert f"missing: paths are looked up below {tmp_path};" in printed.out
    assert "draw again" not in printed.out


def test_splits_with_class_folders(photographs, tmp_path, rows, capsys):
    for split in ("train", "val"):
        shutil.copytree(photographs, tmp_path / "data" / split)
    output = tmp_path / "out"
    assert cli.main(["label", "--input", str(tmp_path / "data"), "--output", str(output), "--dry-run", *PLAIN]) == 0
    said = capsys.readouterr().out
    assert "folders of splits: train (train), val (val); labels are the folders inside them" in said
    assert "10 images" in said and "5 matched" in said


def _plain_tar(path, entries):
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def test_all_images_then_all_labels(samples, plain_run, tmp_path):
    entries = [(path, image) for path, _, image in samples]
    entries += [(f"{path.rpartition('.')[0]}.cls", label.encode()) for path, label, _ in samples]
    _plain_tar(tmp_path / "train.tar", entries)
    output = tmp_path / "boxes"
    assert cli.main(["label", "--input", str(tmp_path / "train.tar"), "--output", str(output), *PLAIN]) == 0
    assert _boxes(output) == _boxes(plain_run)


def _records(path, *records):
    import tfrecord

    writer = tfrecord.TFRecordWriter(str(path))
    for features in records:
        writer.write({name: (value, "byte") for name, value in features.items()})
    writer.close()


_UNLABELLED = {
    "folders.tar": (
        lambda path: _plain_tar(path, [("train/cat/1.jpg", b"x"), ("train/dog/2.jpg", b"x")]),
        "holds train/cat/1.jpg, train/dog/2.jpg; expected beside NAME.jpg its labels, in NAME.cls (a text) or in "
        "NAME.json (under label or labels); if its folders are the labels, unpack it and give that folder: tar -xf ",
    ),
    "img2dataset.tar": (
        lambda path: _plain_tar(
            path, [("0.jpg", b"x"), ("0.json", b'{"caption": "a cat", "url": "u"}'), ("0.txt", b"")]
        ),
        "holds 0.jpg, 0.json, 0.txt; expected beside NAME.jpg its labels, in NAME.cls (a text) or in NAME.json (under",
    ),
    "empty.tar": (lambda path: _plain_tar(path, []), "empty.tar' is empty"),
    "x.tfrecord": (
        lambda path: _records(path, {"image/encoded": b"x", "class": b"cat"}),
        "has records with the features class, image/encoded; expected labels in one of image/class/text, image/object/",
    ),
    "no.tfrecord": (
        lambda path: _records(path, {"jpeg": b"x", "label": b"cat"}),
        "the Example has no bytes in image/encoded or image; its features: jpeg, label",
    ),
    "empty.tfrecord": (lambda path: path.touch(), "empty.tfrecord' is empty"),
    "empty.parquet": (
        lambda path: pq.write_table(pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], "str")}), path),
        "has no label in the column label of its 0 rows",
    ),
    "none.parquet": (
        lambda path: pq.write_table(pa.table({"image": [b"x", b"x"], "label": pa.array([None, ""], "str")}), path),
        "has no label in the column label of its 2 rows",
    ),
    "none.csv": (
        lambda path: path.write_text("path,label\na.jpg,\nb.jpg,-1\n"),
        "no image of the input has a label; expected LABEL/IMAGE.jpg in folders, or labels in a table (docs",
    ),
    "none.jsonl": (
        lambda path: path.write_text('{"path": "a.jpg", "text": "cat"}\n'),
        "has the columns path, text, and none called label, class, category or the like; name the one with the labels",
    ),
    "empty.csv": (
        lambda path: path.write_text("path,label\n"),
        "no image of the input has a label; expected LABEL/IMAGE.jpg in folders, or labels in a table (docs",
    ),
}


@pytest.mark.parametrize("command", ["label", "train"])
@pytest.mark.parametrize("name", _UNLABELLED)
def test_a_source_without_any_label_is_a_wrong_call(command, name, tmp_path, capsys):
    write, message = _UNLABELLED[name]
    write(tmp_path / name)
    assert cli.main([command, "--input", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
