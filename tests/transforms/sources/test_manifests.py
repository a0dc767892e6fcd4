"""The same rows in each form that tables come in give the same images and labels."""

import csv
import gzip
import json
import re
import tempfile
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.manifests import READERS

# What none of the forms takes for a sign of its own: a number, a list, a separator, space at an end.
_LABELS = st.text(st.characters(codec="utf-8", categories=["L", "P", "S"], exclude_characters='|[]"'), min_size=1)
_LABELS = _LABELS.filter(lambda label: label == label.strip())
_IMAGES = st.text("abcdefgh", min_size=1, max_size=4).map("{}.jpg".format)
_ROWS = st.dictionaries(_IMAGES, st.sets(_LABELS, max_size=3), min_size=1, max_size=4)
_ROWS = _ROWS.filter(lambda rows: any(rows.values()))


def _delimited(path, header, rows, sign=","):
    text = path.with_suffix(".text")
    with text.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=sign).writerows([header, *rows])
    path.write_bytes(gzip.compress(text.read_bytes()) if path.suffix == ".gz" else text.read_bytes())


def _pairs(rows):
    return [(path, label) for path, labels in rows.items() for label in (sorted(labels) or [""])]


def _csv(folder, rows):
    _delimited(folder / "m.csv", ("path", "label"), _pairs(rows))
    return folder / "m.csv", Columns()


def _csv_with_other_names(folder, rows):
    table = [(number, label, path) for number, (path, label) in enumerate(_pairs(rows))]
    _delimited(folder / "m.csv", ("id", "Category", " File-Name "), table)
    return folder / "m.csv", Columns()


def _tsv(folder, rows):
    _delimited(folder / "m.tsv", ("image", "class"), _pairs(rows), "\t")
    return folder / "m.tsv", Columns()


def _gzip(folder, rows):
    _delimited(folder / "m.csv.gz", ("filename", "label"), _pairs(rows))
    return folder / "m.csv.gz", Columns()


def _named_columns(folder, rows):
    _delimited(folder / "m.csv", ("photo", "image", "species"), [(path, "x", label) for path, label in _pairs(rows)])
    return folder / "m.csv", Columns(path="photo", label="species")


def _separator(folder, rows):
    table = [(path, " | ".join(sorted(labels))) for path, labels in rows.items()]
    _delimited(folder / "m.csv", ("image_id", "labels"), table)
    return folder / "m.csv", Columns(separator="|")


def _list_in_a_cell(folder, rows):
    _delimited(folder / "m.csv", ("file", "labels"), [(path, json.dumps(sorted(its))) for path, its in rows.items()])
    return folder / "m.csv", Columns(separator="|")


def _classes(folder, rows):
    names = sorted(set().union(*rows.values()))
    table = [(path, *(int(name in labels) for name in names)) for path, labels in rows.items()]
    _delimited(folder / "m.csv", ("filename", *(f" {name}" for name in names)), table)
    return folder / "m.csv", Columns()


def _classes_in_parquet(folder, rows):
    columns = {name: [name in labels for labels in rows.values()] for name in set().union(*rows.values())}
    pandas.DataFrame({"filename": [*rows]} | columns).to_parquet(folder / "m.parquet")
    return folder / "m.parquet", Columns()


def _jsonl(folder, rows):
    lines = [json.dumps({"file_name": path, "labels": sorted(labels)}) for path, labels in rows.items()]
    (folder / "m.jsonl").write_text("\n".join(lines))
    return folder / "m.jsonl", Columns()


def _json(folder, rows):
    found = [{"file_name": path, "category": label} for path, label in _pairs(rows)]
    (folder / "m.json.gz").write_bytes(gzip.compress(json.dumps(found, indent=2).encode("utf-8-sig")))
    return folder / "m.json.gz", Columns()


def _parquet(folder, rows):
    pq.write_table(
        pa.table({"image": [*rows], "classes": [sorted(its) for its in rows.values()]}), folder / "m.parquet"
    )
    return folder / "m.parquet", Columns()


def _metadata(folder, rows):
    _delimited(folder / "metadata.csv", ("file_name", "label"), _pairs(rows))
    return folder, Columns()


_FORMS = [
    _csv, _csv_with_other_names, _tsv, _gzip, _named_columns, _separator, _list_in_a_cell, _classes,
    _classes_in_parquet, _jsonl, _json, _parquet, _metadata,
]  # fmt: skip


@pytest.mark.parametrize("write", _FORMS)
@settings(max_examples=25, deadline=None)
@given(_ROWS)
@example({"a.jpg": {"cat", "dog"}, "b.jpg": set(), "c.jpg": {"Egyptian cat"}})
@example({"a.jpg": {"label"}, "b.jpg": {"it's", "a, b; c"}})
def test_each_form_gives_the_same_images(write, rows):
    if "classes" in write.__name__ and not _can_be_columns(set().union(*rows.values())):
        return
    with tempfile.TemporaryDirectory() as folder:
        path, columns = write(Path(folder), rows)
        found = {image.path: image.labels for image in read_source(str(path), columns=columns)}
    assert found == {path: tuple(sorted(labels)) for path, labels in rows.items()}


# What the names of columns with another meaning begin with.
_TAKEN = re.compile("path|file|image|img|label|class|tag|categor|split|fold|width|height|unnamed|index|is|$")


def _can_be_columns(labels):
    """Whether no label is called like a column that means something else."""
    return not any(_TAKEN.match(re.sub("[-_]", "", label).casefold()) for label in labels)


def test_a_json_file_is_told_apart_by_its_content(tmp_path):
    rows = [{"file_name": "a.jpg", "label": "cat"}]
    coco = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "category_id": 1}],
            "categories": [{"id": 1, "name": "cat"}]}  # fmt: skip
    for number, content in enumerate((rows, coco)):
        (tmp_path / f"{number}.json").write_text(json.dumps(content))
        source = read_source(f"{tmp_path}/{number}.json")
        assert [(image.path, image.labels) for image in source] == [("a.jpg", ("cat",))]


def test_rows_are_read_as_they_are_needed(tmp_path):
    """Of JSON Lines the keys are those of all rows: a class that comes late is one."""
    lines = [{"image": f"{number}.jpg", "cat": 1} for number in range(50)] + [{"image": "x.jpg", "dog": True}]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = read_source(str(tmp_path / "m.jsonl"))
    assert {image.path: image.labels for image in source}["x.jpg"] == ("dog",)
    assert source.assumed == ["images from the column image, labels from the columns cat, dog (0 and 1)"]


def test_all_endings_that_may_be_compressed_are():
    assert {ending.removesuffix(".gz") for ending in READERS} - {".parquet"} == {
        ending for ending in READERS if f"{ending}.gz" in READERS
    }
