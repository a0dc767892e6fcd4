import pytest

from camboxes.transforms.sources.entries import SourceError
from camboxes.transforms.sources.splits import split_called, split_of, splits_among


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("train", "train"), ("Training", "train"), ("trainval", "train"), ("train2017", "train"),
        ("training_set", "train"), ("val", "val"), ("valid", "val"), ("validation", "val"), ("dev", "val"),
        ("VAL", "val"), ("test", "test"), ("test1", "test"), ("testing", "test"), ("eval", "test"),
        ("trains", None), ("train station", None), ("test tube", None), ("valley", None), ("device", None),
        ("tester", None), ("cat", None), ("", None), ("pretrain", None),
    ],
)  # fmt: skip
def test_names_of_splits(folder, split):
    assert split_called(folder) == split


def test_folders_of_splits():
    assert splits_among(["train/cat/a.jpg", "val/cat/b.jpg"]) == {"train": "train", "val": "val"}
    assert splits_among(["train/cat/a.jpg", "train/dog/b/c.jpg"]) == {"train": "train"}
    assert splits_among([]) == {}


@pytest.mark.parametrize(
    "images",
    [
        ["car/a.jpg", "train/b.jpg"],  # PASCAL VOC has a class "train"
        ["car/1/a.jpg", "train/1/b.jpg"],
        ["train/a.jpg"],
        ["train/a.jpg", "train/deep/b.jpg"],
    ],
)
def test_a_class_that_is_called_like_a_split(images):
    assert splits_among(images) == {}
    assert splits_among(reversed(images)) == {}


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["train/a.jpg", "val/b.jpg"], "the folders train, val are called like splits, and .* directly in train, val;"),
        (["train/cat/a.jpg", "test/b.jpg"], "images without a label lie directly in test;"),
        (["train/train/cat/a.jpg", "val/val/cat/b.jpg"], "and hold train, val, which are, too"),
    ],
)
def test_splits_without_labels(images, message):
    with pytest.raises(SourceError, match=message):
        splits_among(images)


def test_the_split_of_an_image():
    splits = {"data/train": "train", "data/val": "val"}
    assert split_of("data/val/cat/b.jpg", splits) == "val"
    assert split_of("data/value/b.jpg", splits) is None
    assert split_of("train/a.jpg", {}) is None
