import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camboxes.transforms.containers import any_format
from camboxes.transforms.containers.members import ContainerError, Member

ANIMALS = datasets.ClassLabel(names=["cat", "dog"])


@pytest.fixture
def stored(tmp_path):
    """Stores a data set of Hugging Face's with three images, and gives the file's path."""

    def store(rows, **features):
        rows = {"image": [{"bytes": bytes([number]), "path": f"{number}.png"} for number in range(3)]} | rows
        features = datasets.Features({"image": datasets.Image(), **features})
        datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "x.parquet"))
        return str(tmp_path / "x.parquet")

    return store


@pytest.mark.parametrize(
    ("columns", "features", "labels"),
    [
        ({"label": [1, 0, -1]}, {"label": ANIMALS}, [("dog",), ("cat",), ()]),
        ({"labels": [[1, 0, 1], [], [0]]}, {"labels": datasets.List(ANIMALS)}, [("dog", "cat"), (), ("cat",)]),
        ({"labels": [[1], [0], []]}, {"labels": datasets.LargeList(ANIMALS)}, [("dog",), ("cat",), ()]),
        ({"fine": [1, 0, 1], "size": [1, 2, 3]}, {"fine": ANIMALS, "size": datasets.Value("int64")},
         [("dog",), ("cat",), ("dog",)]),
        ({"label": [3, 0, None]}, {"label": datasets.Value("int32")}, [("3",), ("0",), ()]),
        ({"label": ["a", "", None]}, {"label": datasets.Value("string")}, [("a",), (), ()]),
        ({"labels": [["a", "b", "a"], None, []]}, {"labels": datasets.List(datasets.Value("string"))},
         [("a", "b"), (), ()]),
        ({"labels": [["a"], ["b"], []], "label": [0, 1, 0]},
         {"labels": datasets.List(datasets.Value("string")), "label": ANIMALS}, [("a",), ("b",), ()]),
    ],
)  # fmt: skip
def test_labels(columns, features, labels, stored):
    path = stored(columns, **features)
    assert any_format.is_container(path)
    assert [member.labels for member in any_format.members(path)] == labels
    assert list(any_format.images(path, list(any_format.members(path))[1:])) == [b"\1", b"\2"]


def test_names_as_older_releases_of_datasets_wrote_them(tmp_path):
    features = {
        "labels": {"feature": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "length": -1, "_type": "Sequence"}
    }
    older = {"labels": [{"names": ["cat", "dog"], "_type": "ClassLabel"}]}
    for kind in (features, older):
        metadata = {"huggingface": json.dumps({"info": {"features": kind}})}
        table = pa.table({"image": [b"1"], "labels": [[1]]}).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "x.parquet")
        assert [member.labels for member in any_format.members(str(tmp_path / "x.parquet"))] == [("dog",)]


@pytest.mark.parametrize("metadata", [b"", b"{", b"[]", b'{"info": null}', b'{"info": {"features": {"label": 3}}}'])
def test_metadata_that_says_nothing(metadata, tmp_path):
    table = pa.table({"image": [b"1"], "label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [member.labels for member in any_format.members(str(tmp_path / "x.parquet"))] == [("1",)]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (pa.array([b"1", b"2"]), True),
        (pa.array([b"1", b"2"], pa.large_binary()), True),
        (pa.array([{"bytes": b"1", "path": None}, None]), True),
        (pa.array([{"bytes": b"1"}, None]), True),
        (pa.array(["a.jpg", "b.jpg"]), False),
        (pa.array([{"path": "a.jpg"}, None]), False),
        (pa.array([[1, 2], [3]]), False),
    ],
)
def test_a_manifest_is_no_container(image, expected, tmp_path):
    pq.write_table(pa.table({"image": image, "label": ["a", "b"]}), tmp_path / "x.parquet")
    assert any_format.is_container(str(tmp_path / "x.parquet")) is expected


def test_a_manifest_without_images_is_no_container(tmp_path):
    pq.write_table(pa.table({"path": ["a.jpg"], "label": ["a"]}), tmp_path / "x.parquet")
    assert not any_format.is_container(str(tmp_path / "x.parquet"))


def test_rows_without_bytes_and_names_that_lead_elsewhere(tmp_path):
    paths = ["../../a.jpg", "deep/b.PNG", "c.txt", "", None, "/x/d.jpg", None]
    given = [b"0", b"1", b"2", b"3", b"4", None, None]
    images = [{"bytes": data, "path": path} for data, path in zip(given, paths, strict=True)]
    pq.write_table(pa.table({"image": [*images, None], "label": ["a"] * 8}), tmp_path / "x.parquet")
    path = str(tmp_path / "x.parquet")
    names = ["00000000-a.jpg", "00000001-b.PNG", "00000002-c.txt.jpg", "00000003.jpg", "00000004.jpg",
             "00000005-d.jpg", "00000006.jpg", "00000007.jpg"]  # fmt: skip
    assert [member.name for member in any_format.members(path)] == names
    found = list(any_format.images(path, list(any_format.members(path))))
    assert found[:5] == given[:5]
    assert [str(reason) for reason in found[5:]] == [
        "missing: the row has no bytes, only the path '/x/d.jpg', which is not followed; embed them",
        *["missing: the row has no image"] * 2,
    ]


def test_a_group_of_rows_that_is_damaged_costs_its_own_rows(tmp_path):
    images = [bytes([number]) * 1000 for number in range(6)]
    table = pa.table({"image": images, "label": list("abcdef")})
    path = str(tmp_path / "x.parquet")
    pq.write_table(table, path, row_group_size=2, compression="zstd", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    with Path(path).open("r+b") as file:
        file.seek(column.data_page_offset + column.total_compressed_size - 20)
        file.write(bytes(20))
    found = list(any_format.images(path, list(any_format.members(path))[1:]))
    assert [image for image in found if isinstance(image, bytes)] == [images[1], *images[4:]]
    assert [image.code for image in found[1:3]] == ["unreadable"] * 2
    assert [member.labels for member in any_format.members(path)] == [(label,) for label in "abcdef"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"caption": ["a"]}, "has the columns image, caption; expected label or labels, or one ClassLabel"),
        ({"label": [0.5]}, r"cannot be understood in row 0: label is 0.5; expected a text, a whole number, or a list"),
        ({"labels": [[{"x": 1}]]}, r"in row 0: labels is \[{'x': 1}\]; expected a text"),
    ],
)
def test_labels_that_cannot_be_understood(columns, message, tmp_path):
    pq.write_table(pa.table({"image": [b"1"], **columns}), tmp_path / "x.parquet")
    with pytest.raises(ContainerError, match=message):
        list(any_format.members(str(tmp_path / "x.parquet")))


def test_numbers_without_names_and_names_without_order(stored):
    path = stored({"label": [0, 1, 1]}, label=ANIMALS)
    table = pq.read_table(path)
    table = table.set_column(table.schema.get_field_index("label"), "label", pa.array([0, 2, 1]))
    pq.write_table(table, path)
    with pytest.raises(ContainerError, match="in row 1: label is 2, but there are names for 0 to 1 only"):
        list(any_format.members(path))
    path = stored({"coarse": [0, 1, 1], "fine": [0, 1, 1]}, coarse=ANIMALS, fine=ANIMALS)
    with pytest.raises(ContainerError, match="has the columns image, coarse, fine; expected label or labels"):
        list(any_format.members(path))


def test_what_is_no_parquet(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    for call in (any_format.is_container, lambda path: list(any_format.members(path))):
        with pytest.raises(ContainerError, match=r"x\.parquet' is not readable as Parquet"):
            call(str(tmp_path / "x.parquet"))
    [reason] = any_format.images(str(tmp_path / "x.parquet"), [Member("00000000.jpg", (), 0)])
    assert reason.code == "changed"


def test_a_file_without_images_among_those_that_have_some(tmp_path):
    pq.write_table(pa.table({"picture": [b"1"], "label": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(ContainerError, match=r"x\.parquet.* has the columns picture, label; expected one called image"):
        list(any_format.members(str(tmp_path / "x.parquet")))
