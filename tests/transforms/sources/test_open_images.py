import tracemalloc

import pytest

from camboxes.transforms.sources.datasets import SourceError
from camboxes.transforms.sources.open_images import read_open_images

# As published, for the images of train and for those of validation.
HEADER = "ImageID,Source,LabelName,Confidence\n"


@pytest.fixture
def manifest(tmp_path):
    def write(rows, header=HEADER):
        (tmp_path / "labels.csv").write_text(header + rows, encoding="utf-8")
        return str(tmp_path / "labels.csv")

    return write


def test_labels_are_given_and_denied(manifest):
    path = manifest(
        "0a,verification,/m/01yrx,1\n0b,machine,/m/0bt9lr,0.8\n0a,verification,/m/0bt9lr,0\n"
        "0a,machine,/m/0bt9lr,0.9\n\n0c,machine,/m/01yrx,0.5\n0c,machine,/m/04rky,0.4\n0d,crowdsource-verification,/m/01yrx,0.0\n"
    )
    assert list(read_open_images(path)) == [
        ("0a.jpg", ("/m/01yrx",), ()),
        ("0b.jpg", ("/m/0bt9lr",), ()),
        ("0a.jpg", (), ("/m/0bt9lr",)),
        ("0a.jpg", ("/m/0bt9lr",), ()),
        ("0c.jpg", ("/m/01yrx",), ()),
        ("0c.jpg", (), ()),
        ("0d.jpg", (), ("/m/01yrx",)),
    ]


@pytest.mark.parametrize(
    ("name", "header"), [("class-descriptions.csv", ""), ("oidv7-class-descriptions.csv", "LabelName,DisplayName\n")]
)
def test_names_lie_beside_the_manifest(name, header, manifest, tmp_path):
    (tmp_path / name).write_text(f'\ufeff{header}/m/01yrx,Cat\n/m/0bt9lr,"Dog, domestic"\n/m/0\n', encoding="utf-8")
    path = manifest("0a,verification,/m/01yrx,1\n0a,verification,/m/0bt9lr,0\n0a,machine,/m/09,0.6\n")
    assert [(labels, denied) for _, labels, denied in read_open_images(path)] == [
        (("Cat",), ()),
        ((), ("Dog, domestic",)),
        (("/m/09",), ()),
    ]


def test_columns_in_another_order(manifest):
    path = manifest("1,x,0a,0.7,/m/1\n", "IsOccluded,Source,ImageID,Confidence,LabelName\n")
    assert list(read_open_images(path)) == [("0a.jpg", ("/m/1",), ())]


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ("", "path,label\n", "begins with 'path,label'; expected ImageID, LabelName, Confidence"),
        ("", "", "begins with ''; expected ImageID"),
        ("0a,x,/m/1,1\n0a,x,/m/1\n", HEADER, "line 3: expected an ImageID, a LabelName and a Confidence from 0 to 1"),
        ("0a,x,/m/1,sure\n", HEADER, "line 2: expected .*, got '0a,x,/m/1,sure'"),
        ("0a,x,/m/1,1.5\n", HEADER, "line 2"),
        ("0a,x,/m/1,-0.5\n", HEADER, "line 2"),
        ("0a,x,/m/1,nan\n", HEADER, "line 2"),
        (",x,/m/1,1\n", HEADER, "line 2"),
        ("0a,x,,1\n", HEADER, "line 2"),
    ],
)
def test_files_that_cannot_be_understood(rows, header, message, manifest):
    with pytest.raises(SourceError, match=message):
        list(read_open_images(manifest(rows, header)))


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "labels.csv").write_bytes(HEADER.encode() + b"0a,x,\xff,1\n")
    with pytest.raises(SourceError, match=r"labels\.csv', line \d, is not UTF-8"):
        list(read_open_images(str(tmp_path / "labels.csv")))


def test_rows_are_not_held(manifest):
    path = manifest("".join(f"{number:016x},machine,/m/01yrx,0.9\n" for number in range(20_000)))
    tracemalloc.start()
    assert sum(1 for _ in read_open_images(path)) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 18
