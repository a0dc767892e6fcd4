import os

import pytest

from camboxes.transforms import storage
from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.entries import SourceError


def _data(folder, names, *files):
    (folder / "train.csv").write_text("id,label\n" + "".join(f"{name},cat\n" for name in names))
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    return str(folder / "train.csv")


@pytest.mark.parametrize(
    ("name", "files", "path"),
    [
        ("0a", ["0a.jpg"], "0a.jpg"),
        ("0a", ["0a"], "0a"),
        ("0a", ["0a", "0a.jpg"], "0a"),
        ("0a", ["0a.JPG", "0a.txt", "0ab.jpg"], "0a.JPG"),
        ("0a", ["train/0a.png", "test/0b.png"], "train/0a.png"),
        ("0a", ["0a.jpg", "masks/0a.png"], "0a.jpg"),
        ("0a", ["train/deeper/0a.png"], "0a"),
        ("0a", [".thumbnails/0a.png", "@eaDir/0a.jpg"], "0a"),
        ("2024.05", ["2024.05.jpg"], "2024.05.jpg"),
        ("x/0a", ["x/0a.jpg", "0a.jpg"], "x/0a.jpg"),
        ("x/0a", ["x/y/0a.webp"], "x/y/0a.webp"),
        ("nowhere/0a", ["0a.jpg"], "nowhere/0a"),
        ("0a.jpg", ["train/0a.jpg"], "0a.jpg"),
        ("../0a", ["0a.jpg"], "../0a"),
        ("s3://b/0a", ["0a.jpg"], "s3://b/0a"),
        ("a\0b", ["ab.jpg"], "a\0b"),
    ],
)
def test_the_one_file_that_fits(name, files, path, tmp_path):
    source = read_source(_data(tmp_path, [name], *files))
    assert [image.path for image in source] == [path]
    said = f"names without an ending: 1, such as {name}, found as {path}"
    assert source.assumed[1:] == ([said] if path != name else [])


@pytest.mark.parametrize("files", [["0a.jpg", "0a.png"], ["train/0a.jpg", "masks/0a.jpg"]])
def test_several_files_that_fit(files, tmp_path):
    message = f"the image '0a' may be '{sorted(files)[0]}' or .*; write its ending .* or name the folder.*: --root DIR"
    with pytest.raises(SourceError, match=message):
        read_source(_data(tmp_path, ["0a"], *files))
    if "/" in files[0]:
        source = read_source(str(tmp_path / "train.csv"), root=str(tmp_path / "train"))
        assert [image.path for image in source] == ["0a.jpg"]


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    names = [f"{number:03d}" for number in range(100)]
    path, listed = _data(tmp_path, names, *(f"train/{name}.jpg" for name in names)), []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or real(folder))
    assert sorted(image.path for image in read_source(path)) == [f"train/{name}.jpg" for name in names]
    assert len(listed) == len({*listed}) + 1 == 3, "the root for its files and for its folders, and train"


def test_on_a_store(s3):
    for name in ("train/0a.jpg", "train/deeper/0b.jpg", "0c.png"):
        storage.write_bytes(f"{s3}/dogs/{name}", b"x")
    storage.write_bytes(f"{s3}/dogs/labels.csv", b"id,label\n0a,cat\n0b,cat\n0c,cat\n")
    source = read_source(f"{s3}/dogs/labels.csv")
    assert sorted(image.path for image in source) == ["0b", "0c.png", "train/0a.jpg"]
    storage.write_bytes(f"{s3}/split/train/metadata.csv", b"file_name,label\n1,cat\n")
    storage.write_bytes(f"{s3}/split/train/1.jpg", b"x")
    assert [image.path for image in read_source(f"{s3}/split/")] == ["train/1.jpg"]
