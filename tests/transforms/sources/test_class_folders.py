import os

import pytest

from camboxes.transforms import storage
from camboxes.transforms.containers.any_format import containers_of
from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.class_folders import EMPTY, HIDDEN, NO_FOLDER, NO_IMAGE, SYSTEM
from camboxes.transforms.sources.entries import SourceError
from camboxes.transforms.sources.passed_over import Count


def _tree(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def _labels(source):
    return {image.path: image.labels for image in source}


def test_class_folders(tmp_path):
    for name in (
        "cat/a.jpg",
        "cat/deep/b.JPEG",
        "dog/c.png",
        "dog/notes.txt",
        "loose.jpg",
        ".hidden/d.jpg",
        "cat/.e.jpg",
    ):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "f.webp").touch()
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    source = read_source(str(tmp_path / "data"))
    assert {image.path: image.labels for image in source} == {
        "cat/a.jpg": ("cat",),
        "cat/deep/b.JPEG": ("cat",),
        "dog/c.png": ("dog",),
        "linked/f.webp": ("linked",),
    }
    assert source.passed_over.kinds == {
        NO_IMAGE: {".txt": Count(1, "dog/notes.txt")},
        NO_FOLDER: {".jpg": Count(1, "loose.jpg")},
        HIDDEN: {".jpg": Count(2, ".hidden/d.jpg")},
    }
    assert source.splits == {}


def test_links_that_go_round_in_circles(tmp_path):
    """Each folder is listed once for each class folder: with two such links the listing would not end."""
    for name in ("cat/a.jpg", "dog/b.jpg", "shared/c.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    for name, target in (("cat/up", ".."), ("cat/self", "."), ("dog/cat", "../cat"), ("cat/dog", "../dog"),
                         ("cat/shared", "../shared"), ("dog/shared", "../shared"), ("dog/all", "/")):  # fmt: skip
        (tmp_path / "data" / name).symlink_to(target)
    listed = sorted(image.path for image in read_source(str(tmp_path / "data")))
    assert listed == [
        "cat/a.jpg", "cat/dog/b.jpg", "cat/dog/shared/c.jpg", "dog/b.jpg", "dog/cat/a.jpg", "dog/cat/shared/c.jpg",
        "shared/c.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "junk",
    [
        "dog/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "@eaDir/a.jpg", "#recycle/dog/b.jpg", "@Recycle/dog/b.jpg",
        "dog/.@__thumb/defaulta.jpg", "@Recently-Snapshot/monday/dog/a.jpg", "__MACOSX/dog/._a.jpg", "dog/._a.jpg",
        "dog/.AppleDouble/a.jpg", "$RECYCLE.BIN/S-1-5/b.jpg", "System Volume Information/b.jpg", "lost+found/b.jpg",
        "dog/.thumbnails/a.jpg", ".picasaoriginals/a.jpg", "dog/.ipynb_checkpoints/a-checkpoint.jpg", ".git/b.png",
        "dog/Previews.lrdata/0/a.jpg", "ipod photo cache/F00/a.jpg", "dog/@EADIR/a.jpg", "dog/THMBNL/a.jpg",
        ".Trash-1000/files/b.jpg", ".snapshot/hourly/dog/a.jpg", "dog/~snapshot/a.jpg", "dog/.stversions/a.jpg",
    ],
)  # fmt: skip
def test_what_systems_leave_among_photographs_is_no_image(junk, tmp_path):
    """At any depth, and neither a label of its own nor the photograph's twin."""
    source = read_source(_tree(tmp_path / "data", "dog/a.jpg", junk))
    assert _labels(source) == {"dog/a.jpg": ("dog",)}
    [(reason, endings)] = source.passed_over.kinds.items()
    assert reason in (HIDDEN, SYSTEM)
    assert list(endings.values()) == [Count(1, junk)]


def test_names_that_only_resemble_a_system_s_are_labels(tmp_path):
    names = ["thumbnails/a.jpg", "recycle/a.jpg", "#1/a.jpg", "@home/a.jpg", "previews/a.jpg", "lost/a.jpg"]
    assert set(_labels(read_source(_tree(tmp_path / "data", *names)))) == set(names)


def test_a_class_that_vanishes_is_known_by_its_folder(tmp_path):
    _tree(tmp_path / "data", "cat/a.jpg", "cat/b.heic", "dog/c.HEIC", "eel/@eaDir/d.jpg")
    (tmp_path / "data" / "fox").mkdir()
    source = read_source(str(tmp_path / "data"))
    assert source.passed_over.without(set(source.labels())).labels == {
        "dog": Count(1, "dog/c.HEIC"),
        "eel": Count(1, "eel/@eaDir/d.jpg"),
        "fox": Count(1, "fox/"),
    }
    assert source.passed_over.kinds[EMPTY] == {"": Count(1, "fox/")}


def test_folders_without_any_image_say_what_they_hold(tmp_path):
    source = _tree(tmp_path / "data", "dog/a.heic", "dog/b.heic", "loose.jpg")
    with pytest.raises(
        SourceError, match=r"no class folders with images, but .*2 \.heic \(dog/a\.heic\): no image by its"
    ):
        read_source(source)


def test_a_folder_of_containers_with_a_system_s_folder_among_them(tmp_path):
    source = _tree(tmp_path / "data", "a.tar", "b.tar", "@eaDir/a.tar/info.jpg", ".DS_Store")
    assert containers_of(source) == [f"{source}/a.tar", f"{source}/b.tar"]


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    """os.walk leaves it out without a word; a system's own is passed over."""
    source, scandir = _tree(tmp_path / "data", "cat/a.jpg", "dog/b.jpg", "lost+found/x"), os.scandir

    def refusing(path):
        if str(path).endswith(forbidden):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    forbidden = "lost+found"
    assert set(_labels(read_source(source))) == {"cat/a.jpg", "dog/b.jpg"}
    forbidden = "dog"
    with pytest.raises(SourceError, match=r"data/dog' cannot be listed \(Permission denied\)"):
        read_source(source)


def test_splits_with_class_folders(tmp_path):
    source = read_source(
        _tree(tmp_path / "data", "train/cat/a.jpg", "valid/cat/b.jpg", "valid/dog/deep/c.jpg", "test_set/dog/d.jpg",
              "labels.csv", "annotations/cat/a.xml", "train/loose.txt", ".git/x/y.jpg", "loose.jpg")
    )  # fmt: skip
    assert _labels(source) == {
        "train/cat/a.jpg": ("cat",), "valid/cat/b.jpg": ("cat",), "valid/dog/deep/c.jpg": ("dog",),
        "test_set/dog/d.jpg": ("dog",),
    }  # fmt: skip
    assert source.splits == {"train": "train", "valid": "val", "test_set": "test"}
    assert source.passed_over.kinds[NO_FOLDER] == {
        ".csv": Count(1, "labels.csv"),
        ".jpg": Count(1, "loose.jpg"),
        ".txt": Count(1, "train/loose.txt"),
    }


def test_splits_below_a_wider_root(tmp_path):
    source = read_source(_tree(tmp_path / "data", "train/cat/a.jpg", "val/cat/b.jpg"), root=str(tmp_path))
    assert source.splits == {"data/train": "train", "data/val": "val"}


def test_splits_on_a_store(s3):
    for name in ("train/cat/a.jpg", "val/cat/b.jpg", "val/@eaDir/c.jpg"):
        storage.write_bytes(f"{s3}/data/{name}", b"x")
    source = read_source(f"{s3}/data/")
    assert _labels(source) == {"train/cat/a.jpg": ("cat",), "val/cat/b.jpg": ("cat",)}
    assert set(source.splits.values()) == {"train", "val"}
