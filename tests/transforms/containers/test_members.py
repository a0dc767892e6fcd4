import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.transforms.containers.members import safe, split


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("root/train-0001.tar/cat.jpg", ("root/train-0001.tar", "cat.jpg")),
        ("s3://bucket/a.tar/deep/er/cat.jpg", ("s3://bucket/a.tar", "deep/er/cat.jpg")),
        ("/data/x.TFRecord-00000-of-00010/00000003.png", ("/data/x.TFRecord-00000-of-00010", "00000003.png")),
        ("x-00000-of-00010.tfrecords/00000003.png", ("x-00000-of-00010.tfrecords", "00000003.png")),
        ("x.tfrec/1.jpg", ("x.tfrec", "1.jpg")),
        ("x.tgz/1.jpg", ("x.tgz", "1.jpg")),
        ("x.tar.gz/1.jpg", ("x.tar.gz", "1.jpg")),
        ("set.parquet/part-0.parquet/00000001-a.jpg", ("set.parquet/part-0.parquet", "00000001-a.jpg")),
        ("root/cat/a.jpg", None),
        ("root/train.tar", None),
        ("root/tar/a.jpg", None),
        ("root/train.tar.jpg", None),
        ("x.tfrecordings/a.jpg", None),
    ],
)
def test_a_path_is_split_by_names_alone(path, parts):
    assert split(path) == parts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat/a.jpg", "cat/a.jpg"),
        ("./cat//a.jpg", "cat/a.jpg"),
        ("/etc/passwd.jpg", "etc/passwd.jpg"),
        ("../../etc/a.jpg", "_/_/etc/a.jpg"),
        ("..\\a.jpg", "_/a.jpg"),
        ("a\0b.jpg", "a_b.jpg"),
        ("a\udcff.jpg", "a\\udcff.jpg"),
        ("s3://bucket/a.jpg", "s3:/bucket/a.jpg"),
        ("old.tar/a.jpg", "old.tar_/a.jpg"),
        ("", ""),
        ("..", "_"),
    ],
)
def test_names_are_made_safe(name, expected):
    assert safe(name) == expected


_PARTS = st.sampled_from(["..", ".", "", "a", "b.tar", "c.parquet", "d.tfrecord-1-of-2", "\\", "é", "\udcff", "x.jpg"])


@given(st.lists(_PARTS | st.text(max_size=4), min_size=1).map("/".join))
def test_no_name_leads_elsewhere(name):
    found = safe(name + "/y.jpg")
    assert posixpath.normpath(posixpath.join("/root/set.tar", found)) == f"/root/set.tar/{found}"
    assert split(f"/root/set.tar/{found}") == ("/root/set.tar", found)
    assert found.encode()
