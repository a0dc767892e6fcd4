import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camboxes.transforms.contents.image_files import locate, read_image
from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.datasets import SourceError
from camboxes.transforms.sources.passed_over import Count
from camboxes.transforms.sources.tables import EMPTY_ROW

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


def _csv_of(folder, value):
    import pandas

    pandas.DataFrame({"path": ["a.jpg"], "label": [value]}).to_csv(folder / "x.csv", index=False)
    return str(folder / "x.csv")


def _jsonl_of(folder, value):
    (folder / "x.jsonl").write_text(json.dumps({"path": "a.jpg", "label": value}))
    return str(folder / "x.jsonl")


def _parquet_of(folder, value, **columns):
    pq.write_table(pa.table({"path": ["a.jpg"], "label": [value]} | columns), folder / "x.parquet")
    return str(folder / "x.parquet")


def _images_in_parquet(folder, value):
    return _parquet_of(folder, value, image=[b"x"])


def _tar_of(folder, fields):
    import webdataset

    with webdataset.TarWriter(str(folder / "x.tar")) as tar:
        tar.write({"__key__": "a", "jpg": b"x"} | fields)
    return str(folder / "x.tar")


def _tar_of_json(folder, value):
    return _tar_of(folder, {"json": {"label": value}})


def _tar_of_cls(folder, value):
    return _tar_of(folder, {"cls": str(value).encode()})


def _tfrecord_of(folder, value):
    import tfrecord

    writer = tfrecord.TFRecordWriter(str(folder / "x.tfrecord"))
    writer.write({"image/encoded": (b"x", "byte"), "image/class/label": (value, "int")})
    writer.close()
    return str(folder / "x.tfrecord")


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
    "content",
    [
        "path,label\na.jpg,cat\nb.jpg,dog\n",
        "Path,Label\r\na.jpg,cat\r\nb.jpg,dog\r\n",
        " PATH , Labels \na.jpg, cat \nb.jpg,dog",
        "path ;label\na.jpg;cat\nb.jpg; dog\n",
        "label\tpath\ncat\ta.jpg\ndog\tb.jpg\n",
        "path|label\na.jpg|cat\nb.jpg|dog\n",
        "sep=;\npath;label\na.jpg;cat\nb.jpg;dog\n",
        'path, label\na.jpg, "cat"\nb.jpg, dog\n',
        "id,path,label,\n1,a.jpg,cat,\n2,b.jpg,dog,\n",
        "path,label,note\na.jpg,cat\nb.jpg,dog,late\n",
        "path,label\n\na.jpg,cat\n\nb.jpg,dog\n\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_as_people_have_it(content, encoding, tmp_path):
    (tmp_path / "m.csv").write_bytes(content.encode(encoding))
    source = read_source(str(tmp_path / "m.csv"))
    assert {image.path: image.labels for image in source} == {"a.jpg": ("cat",), "b.jpg": ("dog",)}
    assert source.passed_over.files == 0


def test_rows_of_a_csv_without_content_are_counted(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.jpg,cat\nb.jpg,\n,\n , \n,\n")
    source = read_source(str(tmp_path / "m.csv"))
    assert {image.path: image.labels for image in source} == {"a.jpg": ("cat",), "b.jpg": ()}
    assert source.passed_over.kinds == {EMPTY_ROW: {".csv": Count(3, "m.csv")}}


@pytest.mark.parametrize(
    "write", [_csv_of, _jsonl_of, _parquet_of, _images_in_parquet, _tar_of_json, _tar_of_cls, _tfrecord_of]
)
@pytest.mark.parametrize(("number", "label"), [(3, ("3",)), (0, ("0",)), (-1, ())])
def test_a_number_is_the_same_label_in_every_format(write, number, label, tmp_path):
    assert [image.labels for image in read_source(write(tmp_path, number))] == [label]


@pytest.mark.parametrize("write", [_csv_of, _jsonl_of, _parquet_of, _images_in_parquet, _tar_of_json, _tar_of_cls])
@pytest.mark.parametrize(
    ("value", "label"), [(3.0, ("3",)), (-1.0, ()), (" cat ", ("cat",)), ("", ()), ("007", ("007",))]
)
def test_a_value_is_the_same_label_in_every_format(write, value, label, tmp_path):
    assert [image.labels for image in read_source(write(tmp_path, value))] == [label]


@pytest.mark.parametrize("write", [_jsonl_of, _parquet_of, _images_in_parquet, _tar_of_json])
@pytest.mark.parametrize(
    ("value", "label"), [(float("nan"), ()), (None, ()), ([], ()), (["cat", None], ("cat",)), ([2.0, -1.0], ("2",))]
)
def test_a_value_is_the_same_label_in_every_format_that_has_it(write, value, label, tmp_path):
    assert [image.labels for image in read_source(write(tmp_path, value))] == [label]


@pytest.mark.parametrize("write", [_jsonl_of, _parquet_of, _images_in_parquet, _tar_of_json])
@pytest.mark.parametrize("value", [0.5, True, {"name": "cat"}, [["cat"]], "['cat' 'dog']"])
def test_what_is_no_label_is_an_error_in_every_format(write, value, tmp_path):
    with pytest.raises(SourceError, match=r"x\.(jsonl|parquet|tar)'.*label is .*; expected a .*list"):
        read_source(write(tmp_path, value))


def test_labels_of_parquet_as_pandas_writes_it(tmp_path):
    """Numbers with a gap are floats, and categories are dictionary-encoded."""
    import pandas

    for number, column in enumerate(
        [pandas.Series([3, None, 0]), pandas.Series(["cat", None, "dog"], dtype="category"),
         pandas.Series([3, None, 0], dtype="Int64")]
    ):  # fmt: skip
        pandas.DataFrame({"path": ["a", "b", "c"], "label": column}).to_parquet(tmp_path / f"{number}.parquet")
    found = [sorted((image.path, *image.labels) for image in read_source(f"{tmp_path}/{number}.parquet"))
             for number in range(3)]  # fmt: skip
    numbers, animals = [("a", "3"), ("b",), ("c", "0")], [("a", "cat"), ("b",), ("c", "dog")]
    assert found == [numbers, animals, numbers]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", b"path,label\na.jpg,cat,dog\n", "line 2: 3 cells below a header of 2: 'a.jpg,cat,dog'; put a text"),
        ("m.csv", b"path;label\na.jpg;cat;dog\n", "line 2: 3 cells below a header of 2: .* holds ';' in double quotes"),
        ("m.csv", b"sep=;\npath;label\na.jpg;cat;dog\n", "line 3: 3 cells"),
        (
            "m.csv",
            b"path,label,Label\na.jpg,cat,dog\n",
            "has the columns label, Label, each of which may hold the labels",
        ),
        ("m.csv", b"path.label\n", "has the column path.label, and none called path"),
        ("m.jsonl", b'{"path": "a", "label": 1.5}', "line 1: label is 1.5; expected a text, a whole number"),
        ("m.jsonl", b'{"path": "a", "label": ' + b"[" * 100_000, "line 1: not JSON .maximum recursion depth"),
        ("m.jsonl", b'{"path": "a", "label": ' + b"1" * 5000, "line 1: not JSON .Exceeds the limit"),
        ("m.csv", b'path,label\n"a.jpg,cat\nb.jpg,cat\n', "not CSV .unexpected end of data"),
        ("m.csv", b"path,label\na.jpg," + b"x" * 1_000_000, "not CSV .field larger than field limit"),
        ("m.csv", b"path,label\n,cat\n", "line 2: expected a path in 'path', got "),
        ("m.csv", b"path,label\n\xff,cat\n", "line 2, is not UTF-8 .*; save it as UTF-8"),
        ("m.jsonl", b'{"path": "a", "label": "b"}\n{', "line 2: not JSON"),
        ("m.jsonl", b"[1]", "line 1: expected an object"),
        ("m.parquet", b"PAR1", "is not readable as Parquet"),
        (
            "m.txt",
            b"",
            "is none of these; expected a folder of class folders, a table ending in .csv, .json, .jsonl, ",
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
