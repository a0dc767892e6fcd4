"""Names that strangers gave, from label to review. As a script, this file is the process that loads FiftyOne."""

import collections
import hashlib
import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from camboxes.pipeline.cli import main
from camboxes.pipeline.review import load_dataset

PLAIN = ["--method", "cam", "--scales", "224", "--aspect", "squash", "--refine", "none", "--max-reject-rate", "1"]
NAMES = (
    "plain", "A", "a", "\u00e9", "e\u0301", "con", "aux.", "-rf", "~", "%2e%2e", "..", "*?<>|:", "quotes\"'`$(id)",
    "back\\slash", "\u202egnp", "\U0001f600", "<b>&amp;", "1e3", "- {a: [b", "#", "__proto__", "$set", "a.b", "=1+1",
)  # fmt: skip
CONTROL = ("line\nbreak", "tab\tand\rreturn", "\x1b[31m", "\x00nul", "a\u2028b")
LONG = "l" * 100_000


@pytest.fixture(scope="module")
def cat(photographs):
    """Makes a photograph of a cat, for each number another one."""
    [path] = photographs.glob("*/chelsea.png")
    photograph = Image.open(path).convert("RGB")
    return lambda number: photograph.resize((64 + number, 48))


def _labelled(folder, source, labels):
    """The run over a data set: every label stands for one class, be it right or not."""
    (folder / "map.json").write_text(json.dumps({label: [282] for label in labels}))
    call = ["label", "--input", str(source), "--output", str(folder / "run"), "--label-map", str(folder / "map.json")]
    assert main([*call, *PLAIN]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def files(cat, tmp_path_factory):
    """A run over files of such names in folders of such names, each with its name as its label; one label is long."""
    folder = tmp_path_factory.mktemp("files")
    rows = {}
    for number, name in enumerate((*NAMES, *CONTROL, "x" * 200)):
        path = f"{name}/{number}{name}.png".replace("../", "up/").replace("\0", "")
        (folder / path).parent.mkdir(exist_ok=True)
        cat(number).save(folder / path)
        rows[path] = LONG if name == "plain" else name if name in NAMES else "con"
    rows["missing." + "y" * 300] = "con"
    manifest = [json.dumps({"path": path, "label": label}) for path, label in rows.items()]
    (folder / "labels.jsonl").write_text("\n".join(manifest))
    return _labelled(folder, folder / "labels.jsonl", {*rows.values()})


@pytest.fixture(scope="module")
def members(cat, tmp_path_factory):
    """A run over images inside a Parquet file, where names may be longer than a file's; labels hold any characters."""
    folder = tmp_path_factory.mktemp("members")
    names = ["../../up", "/etc/passwd", "d/" * 500 + "x", "n" * 1000, "a." + "y" * 300, "b.png" + "\n" * 300]
    labels = [*NAMES, *CONTROL, *["con"] * len(names)]
    images = []
    for number, name in enumerate((*NAMES, *CONTROL, *names)):
        file = io.BytesIO()
        cat(number).save(file, "PNG")
        images.append({"bytes": file.getvalue(), "path": name})
    pq.write_table(pa.table({"image": images, "label": labels}), folder / "images.parquet")
    return _labelled(folder, folder / "images.parquet", {*labels})


@pytest.mark.parametrize("kind", ["coco", "yolo", "voc", "parquet"])
def test_every_format_holds_the_labels_and_files_of_names_of_its_own(kind, files, rows, tmp_path):
    expected = {row["path"]: [label["label"] for label in row["labels"]] for row in rows(files) if row["boxes"]}
    assert len(expected) == len(NAMES) + len(CONTROL) + 1
    output = tmp_path / "data"
    assert main(["export", "--run", str(files), "--output", str(output), "--format", kind]) == 0
    counts = collections.Counter(label for labels in expected.values() for label in labels)
    assert _exported(kind, output) == counts
    names = [path.name for path in output.rglob("*") if path.is_file()]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in names}) == len(names)
    assert all(name.isascii() and len(name) <= 110 and name[0].isalnum() for name in names)


def _exported(kind, output):
    """How many boxes an export has of each label, as a reader of the format finds them."""
    if kind == "parquet":
        return collections.Counter(pq.read_table(output / "boxes.parquet")["category"].to_pylist())
    if kind == "voc":
        found = [ET.parse(file).findall("object/name") for file in output.rglob("*.xml")]
        return collections.Counter(name.text for of_image in found for name in of_image)
    if kind == "yolo":
        names = yaml.safe_load((output / "data.yaml").read_text("utf-8"))["names"]
        assert (output / "classes.txt").read_text("utf-8").split("\n")[:-1] == [*names.values()]
        lines = [line for file in output.glob("labels/*/*.txt") for line in file.read_text().splitlines()]
        return collections.Counter(names[int(line.split()[0])] for line in lines)
    parts = [json.loads(part.read_text("utf-8")) for part in (output / "annotations").iterdir()]
    for part in parts:
        assert all((output / "images" / image["file_name"]).is_file() for image in part["images"])
    names = {category["id"]: category["name"] for category in parts[0]["categories"]}
    return collections.Counter(names[box["category_id"]] for part in parts for box in part["annotations"])


@pytest.mark.parametrize("kind", ["coco", "parquet"])
def test_control_characters_stand_where_the_format_has_room_for_them(kind, members, rows, tmp_path):
    assert main(["export", "--run", str(members), "--output", str(tmp_path / "data"), "--format", kind]) == 0
    expected = collections.Counter(label["label"] for row in rows(members) for label in row["labels"] if row["boxes"])
    assert _exported(kind, tmp_path / "data") == expected
    assert set(expected) == {*NAMES, *CONTROL}


@pytest.mark.parametrize("kind", ["yolo", "voc"])
def test_control_characters_are_refused_where_it_has_none(kind, members, tmp_path, capsys):
    assert main(["export", "--run", str(members), "--output", str(tmp_path / "data"), "--format", kind]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("rename them in the input, or export as coco or parquet")


def test_every_image_is_loaded_for_the_review(files, members, rows, database, tmp_path):
    told = os.environ | {"FIFTYONE_DATABASE_URI": database, "FIFTYONE_DATABASE_VALIDATION": "false"}
    told |= {"FIFTYONE_DO_NOT_TRACK": "1", "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    call = [sys.executable, __file__, str(tmp_path / "loaded.json"), str(files), str(members)]
    subprocess.run(call, env=told, check=True, timeout=120)
    for output, loaded in json.loads((tmp_path / "loaded.json").read_text()).items():
        assert len(loaded) == len(rows(output)) > len(NAMES) + len(CONTROL)
        for row in rows(output):
            labels, boxes, digest = loaded[row["path"]]
            assert labels == [label["label"] for label in row["labels"]]
            assert len(boxes) == len(row["boxes"]) and {*boxes} <= {*labels}
            assert digest == row["digest"], "the photograph is the one that the boxes were drawn on"


def _digest(place):
    try:
        return hashlib.sha256(Path(place).read_bytes()).hexdigest()
    except OSError:
        return None


def _load(file, *outputs):
    found = {}
    for output in outputs:
        dataset = load_dataset(output)
        fields = ["path", "labels.classifications.label", "boxes.detections.label", "filepath"]
        found[output] = {
            path: (labels, boxes or [], _digest(place))
            for path, labels, boxes, place in zip(*dataset.values(fields), strict=True)
        }
    Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    _load(*sys.argv[1:])
