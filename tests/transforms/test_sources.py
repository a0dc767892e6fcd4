import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camboxes.transforms.image_files import locate, read_image
from camboxes.transforms.listing import read_source
from camboxes.transforms.sources import SourceError

EXPECTED = {"a.jpg": ("cat",), "b/c.png": ("cat", "dog"), "../d.jpg": ("dog",), "e.jpg": ()}


def _csv(folder):
    rows = "path,label\na.jpg,cat\nb/c.png,cat\n./b//c.png,dog\nb/c.png,dog\n../d.jpg,dog\ne.jpg,\n"
    (folder / "m.csv").write_text("\ufeff" + rows, encoding="utf-8")
    return folder / "m.csv"


def _jsonl(folder):
    rows = [
        {"path": "a.jpg", "label": "cat"},
        {"path": "b/c.png", "labels": ["cat", "dog", "dog"]},
        {"path": "../d.jpg", "labels": ["dog"]},
        {"path": "e.jpg", "labels": []},
    ]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return folder / "m.jsonl"


def _parquet(folder):
    rows = {"path": ["a.jpg", "b/c.png", "b/c.png", "../d.jpg", "e.jpg"],
            "label": [["cat"], ["cat", "dog"], ["dog"], ["dog"], None], "other": [1, 2, 3, 4, 5]}  # fmt: skip
    pq.write_table(pa.table(rows), folder / "m.parquet")
    return folder / "m.parquet"


@pytest.mark.parametrize("write", [_csv, _jsonl, _parquet])
def test_manifests(write, tmp_path):
    source = read_source(str(write(tmp_path)))
    assert {image.path: image.labels for image in source} == EXPECTED
    assert source.root == str(tmp_path)
    assert source.repeated == 1


def test_a_manifest_of_absolute_paths_below_a_root(tmp_path):
    (tmp_path / "m.csv").write_text(f"path,label\n{tmp_path}/images/a.jpg,cat\n/etc/passwd,cat\n")
    source = read_source(str(tmp_path / "m.csv"), root=str(tmp_path / "images"))
    assert {image.path: image.labels for image in source} == {"a.jpg": ("cat",), "/etc/passwd": ("cat",)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"image,class\na,b\n", "begins with 'image,class'; expected a header with path and label"),
        ("m.csv", b'path,label\n"a.jpg,cat\nb.jpg,cat\n', "not CSV .unexpected end of data"),
        ("m.csv", b"path,label\na.jpg," + b"x" * 1_000_000, "not CSV .field larger than field limit"),
        ("m.csv", b"", "begins with ''; expected a header"),
        ("m.csv", b"path,label\n,cat\n", "line 2: expected a path and a label"),
        ("m.csv", b"path,label\n\xff,cat\n", "is no CSV in UTF-8"),
        ("m.jsonl", b'{"path": "a", "label": "b"}\n{', "line 2: not JSON"),
        ("m.jsonl", b"[1]", "line 1: expected an object"),
        ("m.parquet", b"PAR1", "is not readable as Parquet"),
        (
            "m.txt",
            b"",
            "is none of these; expected a folder of class folders, a manifest ending in .csv, .json, .jsonl, .parquet,",
        ),
    ],
)
def test_manifests_that_cannot_be_understood(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_source(str(tmp_path / name))


def test_inputs_that_are_not_there(tmp_path):
    with pytest.raises(SourceError, match=r"nowhere.csv' does not exist"):
        read_source(str(tmp_path / "nowhere.csv"))
    with pytest.raises(SourceError, match="holds no class folders with images"):
        read_source(str(tmp_path))


def test_class_folders_of_links_below_a_wider_root(tmp_path):
    """Where links lead out of the folder, the user says how far they may lead."""
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "1.jpg").write_bytes(b"x")
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.jpg").symlink_to(tmp_path / "photographs" / "1.jpg")
    source = read_source(str(tmp_path / "data"), root=str(tmp_path))
    assert (source.root, [(image.path, image.labels) for image in source]) == (
        str(tmp_path),
        [("data/cat/a.jpg", ("cat",))],
    )
    assert locate(str(tmp_path / "data"), "cat/a.jpg") is None
    assert read_image(locate(source.root, "data/cat/a.jpg")) == b"x"
