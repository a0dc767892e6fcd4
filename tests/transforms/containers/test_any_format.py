"""What holds for every container, each written by its format's own library."""

import io
import posixpath
import tarfile
import tempfile

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tfrecord
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from camboxes.transforms import Plan, storage
from camboxes.transforms.containers import any_format
from camboxes.transforms.containers.members import ContainerError, Member, split
from camboxes.transforms.contents import shard_contents
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.sources.entries import PassedOver, SourceError

LABELS = ["Egyptian cat", "espresso", "military uniform", "moped", "tripod"]
NAMES = {
    "tar": ["0000.png", "0001.png", "0002.jpg", "0003.png", "0004.png"],
    "tfrecord": ["00000000.png", "00000001.png", "00000002.jpg", "00000003.png", "00000004.png"],
    "parquet": [
        "00000000-chelsea.png",
        "00000001-coffee.png",
        "00000002-grace_hopper.jpg",
        "00000003-motorcycle_left.png",
        "00000004-camera.png",
    ],
}
FORMATS = pytest.mark.parametrize("kind", NAMES)


@pytest.fixture(scope="module")
def files(photographs):
    """One photograph of each label."""
    return [next((photographs / label).iterdir()) for label in LABELS]


@pytest.fixture(scope="module")
def originals(files):
    return [file.read_bytes() for file in files]


@pytest.fixture(scope="module")
def paths(files, tmp_path_factory):
    """A container of each format, with the five photographs."""
    folder = tmp_path_factory.mktemp("containers")
    found = {
        "tar": str(folder / "train-000000.tar"),
        "tfrecord": str(folder / "train.tfrecord-00000-of-00001"),
        "parquet": str(folder / "train.parquet"),
    }
    with webdataset.ShardWriter(str(folder / "train-%06d.tar"), verbose=0) as tar:
        for number, file in enumerate(files):
            tar.write(
                {"__key__": f"{number:04d}", file.suffix[1:]: file.read_bytes(), "json": {"label": file.parent.name}}
            )
    record = tfrecord.TFRecordWriter(found["tfrecord"])
    for file in files:
        texts = {"image/class/text": file.parent.name, "image/format": file.suffix[1:]}
        features = {"image/encoded": (file.read_bytes(), "byte")}
        record.write(features | {name: (text.encode(), "byte") for name, text in texts.items()})
    record.close()
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [file.parent.name for file in files],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=LABELS)})
    datasets.Dataset.from_dict(rows, features).to_parquet(found["parquet"], batch_size=2)
    return found


@FORMATS
def test_names_labels_and_bytes(kind, paths, originals):
    assert any_format.is_container(paths[kind])
    members = list(any_format.members(paths[kind]))
    assert [member.name for member in members] == NAMES[kind]
    assert [member.labels for member in members] == [(label,) for label in LABELS]
    assert list(any_format.images(paths[kind], members)) == originals


@FORMATS
@given(wanted=st.sets(st.integers(0, 4)))
def test_any_members_are_read(kind, paths, originals, wanted):
    members = list(any_format.members(paths[kind]))
    found = any_format.images(paths[kind], [members[number] for number in sorted(wanted)])
    assert list(found) == [originals[number] for number in sorted(wanted)]


@FORMATS
def test_one_member_by_its_name(kind, paths, originals):
    assert [any_format.image(paths[kind], name) for name in NAMES[kind]] == originals
    with pytest.raises(BadImageError, match=r"missing: the container has no member 'nobody\.jpg'"):
        any_format.image(paths[kind], "nobody.jpg")


@FORMATS
def test_a_member_is_found_by_its_path_in_a_plan(kind, paths, originals):
    container, name = split(f"{paths[kind]}/{NAMES[kind][3]}")
    assert (container, any_format.image(container, name)) == (paths[kind], originals[3])


@FORMATS
def test_a_container_that_is_gone_is_a_reason_for_each_image(kind, paths):
    found = list(any_format.images(f"/nowhere/x.{kind}", [Member("a.jpg", (), place) for place in range(3)]))
    assert [str(error) for error in found] == ["missing: there is no container at this path"] * 3


@FORMATS
def test_a_reason_does_not_tell_where_the_container_lies(kind, tmp_path):
    (tmp_path / f"x.{kind}").mkdir()
    [reason] = any_format.images(str(tmp_path / f"x.{kind}"), [Member("a.jpg", (), 0)])
    assert str(reason) == "unreadable: IsADirectoryError: Is a directory"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Three small images in each format, whose every byte can be damaged; and where to write what was."""
    folder = tmp_path_factory.mktemp("small")
    images = [bytes([number]) * 40 for number in range(3)]
    with webdataset.TarWriter(str(folder / "x.tar")) as tar:
        for number, data in enumerate(images):
            tar.write({"__key__": str(number), "jpg": data, "cls": number})
    record = tfrecord.TFRecordWriter(str(folder / "x.tfrecord"))
    for number, data in enumerate(images):
        record.write({"image/encoded": (data, "byte"), "image/class/label": (number, "int")})
    record.close()
    rows = {"image": [{"bytes": data, "path": "a.jpg"} for data in images], "label": [0, 1, 2]}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    datasets.Dataset.from_dict(rows, features).to_parquet(str(folder / "x.parquet"), batch_size=1)
    return folder


@FORMATS
@given(data=st.data())
def test_no_damage_loses_an_image_or_ends_in_another_error(kind, small, data):
    content = bytearray((small / f"x.{kind}").read_bytes())
    place = data.draw(st.integers(0, len(content) - 1), label="place")
    cut = data.draw(st.booleans(), label="cut")
    if cut:
        del content[place:]
    else:
        content[place] ^= data.draw(st.integers(1, 255), label="flipped")
    (small / f"damaged.{kind}").write_bytes(content)
    path, listed = str(small / f"damaged.{kind}"), list(any_format.members(f"{small}/x.{kind}"))
    try:
        members = list(any_format.members(path))
    except ContainerError as error:
        assert path in str(error)
    else:
        assert all(isinstance(member, Member | PassedOver) for member in members)
        # Between two records a TFRecord file may end, and Parquet has no checksums unless its writer made them.
        assert len(members) == len(listed) or kind == "parquet" or (cut and kind == "tfrecord")
    for first in range(3):
        found = list(any_format.images(path, listed[first:]))
        assert len(found) == 3 - first
        assert all(isinstance(image, bytes | BadImageError) for image in found)
        assert not any(str(small) in str(image) for image in found if isinstance(image, BadImageError))


@pytest.mark.parametrize("kind", ["tar", "tfrecord"])
@given(data=st.data())
def test_a_container_that_was_cut_short_is_an_error(kind, small, data):
    content = (small / f"x.{kind}").read_bytes()
    ends = {member.place for member in any_format.members(f"{small}/x.{kind}")} if kind == "tfrecord" else set()
    # The zeros with which a tar file is filled up to whole blocks of 10 KiB say nothing but that it ends.
    length = data.draw(st.integers(1, len(content.rstrip(b"\0")) + 511 if kind == "tar" else len(content) - 1))
    if length in ends:  # TFRecords do not tell how many they are
        return
    (small / f"cut.{kind}").write_bytes(content[:length])
    with pytest.raises(ContainerError, match=rf"cut\.{kind}' (is broken or cut short|begins with)"):
        list(any_format.members(str(small / f"cut.{kind}")))


def _write_tar(path, samples):
    with tarfile.open(path, "w") as tar:
        for name, label, image in samples:
            for field, content in (("jpg", image), ("cls", label.encode())):
                info = tarfile.TarInfo(f"{name}.{field}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _write_tfrecord(path, samples):
    record = tfrecord.TFRecordWriter(path)
    for _, label, image in samples:
        record.write({"image/encoded": (image, "byte"), "image/class/text": (label.encode(), "byte")})
    record.close()


def _write_parquet(path, samples):
    names, labels, images = zip(*samples, strict=True)
    rows = {"image": [{"bytes": data, "path": name} for name, data in zip(names, images, strict=True)]}
    pq.write_table(pa.table(rows | {"label": labels}), path, row_group_size=2)


_WRITERS = {"tar": _write_tar, "tfrecord": _write_tfrecord, "parquet": _write_parquet}
# Names repeat, and so do labels; an image's content tells whose it is.
_SAMPLES = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["cat", "dog"]), st.sampled_from([9, 700])))
_SAMPLES = _SAMPLES.filter(len).map(
    lambda samples: [
        (name, label, f"{number} {name} {label}".encode().ljust(size, b"."))
        for number, (name, label, size) in enumerate(samples)
    ]
)


def _planned_contents(path, folder):
    """The rows of a plan, and what the step that infers reads of each one's image."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        planned = Plan(output, [("cat",), ("dog",)]).make(path)
        rows = [row for key in planned.shards for row in planned.planned_rows(key).to_pylist()]
    return rows, lambda: [*shard_contents.contents(rows)]


@FORMATS
@settings(deadline=None, max_examples=40)
@given(samples=_SAMPLES)
def test_every_row_gets_the_image_of_its_name_and_its_label(kind, samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    path = str(folder / f"x.{kind}")
    _WRITERS[kind](path, samples)
    rows, read = _planned_contents(path, folder)
    first = {name: image for name, _, image in reversed(samples)}
    expected = list(first.values()) if kind == "tar" else [image for *_, image in samples]
    assert sorted(read()) == sorted(expected)
    for row, image in zip(rows, read(), strict=True):
        _, name, label = image.decode().rstrip(".").split()
        assert [of_row["label"] for of_row in row["labels"]] == [label]
        assert kind == "tfrecord" or name in posixpath.basename(row["path"]).removesuffix(".jpg").split("-")


@FORMATS
@settings(deadline=None, max_examples=40)
@given(before=_SAMPLES, after=_SAMPLES)
def test_a_container_that_was_rewritten_gives_no_image_of_another_name_or_label(kind, before, after, tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    path = str(folder / f"x.{kind}")
    _WRITERS[kind](path, before)
    rows, read = _planned_contents(path, folder)
    _WRITERS[kind](path, after)
    for row, image in zip(rows, read(), strict=True):
        if isinstance(image, BadImageError):
            assert str(image).startswith("changed: the container changed since it was planned: ")
            continue
        _, name, label = image.decode().rstrip(".").split()
        if kind == "tar":  # its labels are not read again
            assert posixpath.basename(row["path"]) == f"{name}.jpg"
        else:
            assert [of_row["label"] for of_row in row["labels"]] == [label]


@FORMATS
def test_a_container_with_other_images_at_the_same_places(kind, tmp_path):
    path = str(tmp_path / f"x.{kind}")
    _WRITERS[kind](path, [("a", "cat", b"A"), ("b", "dog", b"B"), ("c", "cat", b"C")])
    listed = list(any_format.members(path))
    _WRITERS[kind](path, [("b", "dog", b"B"), ("a", "cat", b"A"), ("c", "cat", b"C")])
    first, second, third = any_format.images(path, listed)
    what = {
        "tar": "at byte 0 was 'a.jpg', and now is 'b.jpg'",
        "tfrecord": "at byte 0 is another record, with the labels dog",
        "parquet": "row 0 was '00000000-a.jpg', and now is '00000000-b.jpg' with the labels dog",
    }
    assert str(first) == f"changed: the container changed since it was planned: {what[kind]}"
    assert (second.code, third) == ("changed", b"C")
    _WRITERS[kind](path, [("a", "cat", b"A")])
    assert [getattr(image, "code", image) for image in any_format.images(path, listed)] == [b"A", "changed", "changed"]


def test_braces_as_webdataset_expands_them(tmp_path):
    for number in (0, 1, 9, 10):
        (tmp_path / f"train-{number:03d}.tar").touch()
    (tmp_path / "{a,b}.tar").touch()
    first, *rest = any_format.containers_of(f"{tmp_path}/train-{{000..001}}.tar")
    assert (first, rest) == (f"{tmp_path}/train-000.tar", [f"{tmp_path}/train-001.tar"])
    assert len(any_format.containers_of(f"{tmp_path}/train-{{{{000..001}},{{009..010}}}}.tar")) == 4
    assert len(any_format.containers_of(f"{tmp_path}/train-0{{0,1}}*.tar")) == 4
    assert any_format.containers_of(f"{tmp_path}/{{a,b}}.tar") == [f"{tmp_path}/{{a,b}}.tar"], "a file of this name"
    with pytest.raises(SourceError, match=r"not there: 7 of the 9 files that '.*train-\{001\.\.009\}\.tar' stands for"):
        any_format.containers_of(f"{tmp_path}/train-{{001..009}}.tar")
    assert any_format.containers_of(f"{tmp_path}/unbalanced-{{001.tar") == []


def test_containers_on_a_store(s3, small):
    for kind in NAMES:
        path = f"{s3}/deep/x.{kind}"
        storage.write_bytes(path, (small / f"x.{kind}").read_bytes())
        assert any_format.is_container(path)
        members = list(any_format.members(path))
        assert members == list(any_format.members(f"{small}/x.{kind}"))
        assert list(any_format.images(path, members[1:])) == [bytes([1]) * 40, bytes([2]) * 40]
