import struct
from pathlib import Path

import pytest
import tfrecord

from camboxes.transforms.containers import any_format
from camboxes.transforms.containers.members import ContainerError
from camboxes.transforms.sources.entries import PassedOver


@pytest.fixture
def written(tmp_path):
    """Writes Examples, each by its features, and gives the file's path."""

    def write(*examples, name="x.tfrecord"):
        writer = tfrecord.TFRecordWriter(str(tmp_path / name))
        for features in examples:
            kinds = {bytes: "byte", int: "int", float: "float"}
            writer.write(
                {
                    key: (value, kinds[type(value[0] if isinstance(value, list) else value)])
                    for key, value in features.items()
                }
            )
        writer.close()
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ({"image/class/text": b"cat", "image/class/label": 3}, ("cat",)),
        ({"image/class/text": b"", "image/class/label": 3}, ("3",)),
        ({"image/object/class/text": [b"dog", b"cat", b"dog"], "image/object/class/label": [1, 2, 1]}, ("dog", "cat")),
        ({"image/object/class/label": [2, 1, 2]}, ("2", "1")),
        ({"image/class/text": b"cat", "image/object/class/text": [b"dog"]}, ("cat",)),
        ({"label": 0}, ("0",)),
        ({"label": -1}, ()),
        ({"image/class/text": "Müßiggang".encode()}, ("Müßiggang",)),
        ({"image/class/text": b"\xff"}, ("\\xff",)),
        ({"image/class/label": -1, "image/class/text": b""}, ()),
    ],
)
def test_labels(features, labels, written):
    [member] = any_format.members(written({"image/encoded": b"x", **features}))
    assert member.labels == labels


@pytest.mark.parametrize(
    ("format", "name"),
    [(b"JPEG", "00000000.jpeg"), (b"png", "00000000.png"), (b"../x", "00000000.jpg"), (b"\xff", "00000000.jpg")],
)
def test_names(format, name, written):
    [member] = any_format.members(written({"image/encoded": b"x", "image/format": format, "label": 1}))
    assert member.name == name


def test_images_as_tensorflow_datasets_names_them(written):
    path = written({"image": b"x", "label": 4})
    assert [member.labels for member in any_format.members(path)] == [("4",)]
    assert any_format.image(path, "00000000.jpg") == b"x"


def _damaged(path, place, content):
    with Path(path).open("r+b") as file:
        file.seek(place)
        file.write(content)


def test_a_damaged_record_costs_one_image(written):
    path = written(*({"image/encoded": bytes([number]) * 100, "label": number} for number in range(3)))
    first, second, third = any_format.members(path)
    _damaged(path, second.place + 60, b"\xff")
    damaged = list(any_format.members(path))
    assert damaged == [first, second._replace(labels=()), third]
    before, reason, after = any_format.images(path, damaged)
    assert (before, after) == (bytes(100), b"\2" * 100)
    assert str(reason) == "unreadable: the record's checksum is not that of its bytes"


def test_a_damaged_length_ends_the_file(written):
    path = written(*({"image/encoded": bytes([number]) * 100, "label": number} for number in range(3)))
    listed = list(any_format.members(path))
    second = listed[1]
    _damaged(path, second.place, b"\x01")
    with pytest.raises(ContainerError, match=f"broken or cut short at byte {second.place}: no record begins there"):
        list(any_format.members(path))
    before, reason, after = any_format.images(path, listed)
    assert (before, after) == (bytes(100), b"\2" * 100)
    assert str(reason).startswith(
        "changed: the container changed since it was planned: it is broken or cut short at byte"
    )


def test_a_length_that_lies_reserves_no_memory(tmp_path):
    length = struct.pack("<Q", 1 << 60)
    (tmp_path / "x.tfrecord").write_bytes(length + tfrecord.TFRecordWriter.masked_crc(length) + bytes(100))
    with pytest.raises(ContainerError, match=f"at byte 0: {1 << 60} bytes should follow, and the file has 112"):
        list(any_format.members(str(tmp_path / "x.tfrecord")))


def test_records_of_something_else(written, tmp_path):
    path = written({"text": b"no image"}, {"text": b"none either"})
    with pytest.raises(ContainerError, match=r"holds no image .* its features: text\)"):
        list(any_format.members(path))
    some = written({"text": b"no image"}, {"image/encoded": b"x", "label": 1}, {"image/encoded": 5})
    assert [member.name for member in any_format.members(some)] == ["00000000.jpg", "00000001.jpg", "00000002.jpg"]
    first, second, third = any_format.images(some, list(any_format.members(some)))
    assert second == b"x"
    assert str(first) == "missing: the Example has no bytes in image/encoded or image; its features: text"
    assert str(third) == "missing: the Example has no bytes in image/encoded or image; its features: image/encoded"


def test_records_that_are_no_examples(tmp_path):
    record = b"not a protocol buffer"
    length = struct.pack("<Q", len(record))
    crc = tfrecord.TFRecordWriter.masked_crc
    (tmp_path / "x.tfrecord").write_bytes(length + crc(length) + record + crc(record))
    [member] = any_format.members(str(tmp_path / "x.tfrecord"))
    [reason] = any_format.images(str(tmp_path / "x.tfrecord"), [member])
    assert str(reason) == "unreadable: the record is no tf.train.Example"


def test_compressed_and_empty_files(tmp_path):
    (tmp_path / "x.tfrecord.gz").write_bytes(b"\x1f\x8b\x08" + bytes(50))
    with pytest.raises(ContainerError, match=r"is compressed \(gzip\), .* decompress it"):
        list(any_format.members(str(tmp_path / "x.tfrecord.gz")))
    (tmp_path / "y.tfrecord").write_bytes(b"")
    assert list(any_format.members(str(tmp_path / "y.tfrecord"))) == []
    (tmp_path / "z.tfrecord").write_bytes(b"abc")
    with pytest.raises(ContainerError, match=r"begins with b'abc'; expected a TFRecord"):
        list(any_format.members(str(tmp_path / "z.tfrecord")))


def test_an_image_without_a_feature_for_labels(written):
    """Not one that is known to show nothing."""
    found = list(any_format.members(written({"image": b"x", "class": 1}, {"image": b"y", "label": 1})))
    assert [item.path if isinstance(item, PassedOver) else item.labels for item in found] == ["00000000.jpg", ("1",)]
    assert found[0].reason == "its record has no label"


def test_what_a_file_holds(written, tmp_path):
    expected = "; expected labels in one of image/class/text, image/object/class/text, image/class/label, "
    expected += "image/object/class/label, label"
    path = written({"image": b"x", "class": 1})
    assert any_format.described(path) == f"container {path!r} has records with the features class, image{expected}"
    (tmp_path / "y.tfrecord").touch()
    assert any_format.described(str(tmp_path / "y.tfrecord")).endswith("is empty, or its first record is damaged")
