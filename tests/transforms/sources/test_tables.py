import gzip

import pytest

from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.entries import SourceError

TEXT = b"path,label\n" + b"".join(b"%d.jpg,cat\n" % number for number in range(2000))


@pytest.mark.parametrize(
    "content", [TEXT, gzip.compress(TEXT)[:2000], gzip.compress(TEXT)[:50] + b"x" * 50 + gzip.compress(TEXT)[100:]]
)
def test_what_is_not_gzip(content, tmp_path):
    (tmp_path / "m.csv.gz").write_bytes(content)
    with pytest.raises(SourceError, match=r"m\.csv\.gz' cannot be decompressed .*; expected a whole gzip file"):
        read_source(str(tmp_path / "m.csv.gz"))


def test_utf_16_that_is_compressed(tmp_path):
    (tmp_path / "m.tsv.gz").write_bytes(gzip.compress("path\tlabel\na.jpg\tcafé\n".encode("utf-16")))
    assert [image.labels for image in read_source(str(tmp_path / "m.tsv.gz"))] == [("café",)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.json", "[1]", r"m\.json', row 0: expected an object with a path and labels, got 1"),
        ("m.json", '[{"path": "a"}', r"m\.json' is not JSON"),
        ("m.json", "[]", "has no columns"),
        ("m.jsonl", "[]", "line 1: expected an object with a path and labels, got "),
        ("m.json", '[{"path": {"bytes": 1}, "label": "cat"}]', "row 0: expected a path in 'path', got "),
        ("m.json", '[{"path": "a.jpg", "label": true}]', "row 0: label is True; expected a text"),
    ],
)
def test_json_that_is_no_table(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(SourceError, match=message):
        read_source(str(tmp_path / name))


def test_a_header_without_end(tmp_path):
    (tmp_path / "m.csv").write_text("path," + "x" * 200_000)
    for columns in (Columns(), Columns(label="x")):
        with pytest.raises(SourceError, match=r"not CSV .field larger than field limit"):
            read_source(str(tmp_path / "m.csv"), columns=columns)


def test_numbers_as_names(tmp_path):
    """Kaggle's ids are numbers in JSON, and texts with zeros in a CSV."""
    (tmp_path / "7.jpg").touch()
    (tmp_path / "007.jpg").touch()
    (tmp_path / "m.json").write_text('[{"image_id": 7, "label": "cat"}]')
    (tmp_path / "m.csv").write_text("image_id,label\n007,cat\n")
    assert [image.path for image in read_source(str(tmp_path / "m.json"))] == ["7.jpg"]
    assert [image.path for image in read_source(str(tmp_path / "m.csv"))] == ["007.jpg"]
