import csv

import pytest

from camboxes.pipeline.reporter import Reporter
from camboxes.pipeline.training.copies import Print
from camboxes.pipeline.training.data import TrainingData
from camboxes.pipeline.training.inputs import Read
from camboxes.pipeline.training.selection import select

SETTINGS = {"validation": 0.25, "seed": 0}


class Listener(Reporter):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def _read(paths, same=(), rejected=()):
    """Pictures that nobody confuses, but for those that are the same."""
    digests = {path: f"{number:064x}" for number, path in enumerate(paths)}
    for path, other in same:
        digests[path] = digests[other]
    rejected = dict(rejected)
    return Read(rejected, {path: Print(digests[path], None) for path in paths if path not in rejected})


def test_what_is_left_out_is_listed_and_copies_stay_together(tmp_path):
    labels = {f"{label}{number}.jpg": (label,) for label in ("cat", "dog") for number in range(8)} | {
        "owl.jpg": ("owl",)
    }
    read = _read(labels, same=[("cat7.jpg", "cat6.jpg")], rejected={"owl.jpg": "empty: no bytes"})
    listener = Listener()
    found = select(TrainingData("/data", labels, multilabel=False), read, SETTINGS, tmp_path, listener)

    assert found.data.classes == ("cat", "dog") and "owl.jpg" not in found.data.labels
    assert sorted([*found.training, *found.validation]) == sorted(labels.keys() - {"owl.jpg"})
    assert ("cat6.jpg" in found.training) == ("cat7.jpg" in found.training)
    per_label = {label: sum(path.startswith(label) for path in found.validation) for label in ("cat", "dog")}
    assert per_label["dog"] == 2 and per_label["cat"] in (2, 3), "a quarter of seven and of eight pictures"
    assert found.counts["images"] == {
        "training": len(found.training), "validation": len(found.validation), "rejected": 1
    }  # fmt: skip
    assert found.counts["labels"]["dog"] == {"training": 6, "validation": 2}
    assert found.counts["copies"] == {"images": 1, "with_other_labels": 0}
    with (tmp_path / "copies.csv").open() as file:
        assert [*csv.reader(file)][1:] == [["cat7.jpg", "cat6.jpg", "same bytes"]]
    assert (tmp_path / "rejected.csv").read_text() == "path,reason\nowl.jpg,empty: no bytes\n"
    assert listener.said[0] == f"images that cannot be used: 1 (1 empty); see {tmp_path}/rejected.csv"
    assert listener.said[1] == "labels without a usable image are left out: owl"


def test_a_given_split_is_taken_and_what_would_flatter_is_left_out(tmp_path):
    labels = {f"{side}/{label}/{number}.jpg": (label,)
              for side in ("train", "val") for label in ("cat", "dog") for number in range(2)}  # fmt: skip
    data = TrainingData("/data", labels, multilabel=False, splits={"train": "train", "val": "val"})
    read = _read(labels, same=[("val/cat/0.jpg", "train/cat/1.jpg")])
    listener = Listener()
    found = select(data, read, {"validation": None, "seed": 0}, tmp_path, listener)
    assert found.training == [path for path in labels if path.startswith("train/")]
    assert found.validation == ["val/cat/1.jpg", "val/dog/0.jpg", "val/dog/1.jpg"]
    assert any("copies of images to train on: 1, such as val/cat/0.jpg of train/cat/1.jpg" in said
               for said in listener.said)  # fmt: skip


def test_where_nothing_can_be_told_apart_nothing_is_trained(tmp_path):
    labels = {"a.jpg": ("cat",), "b.jpg": ("dog",)}
    read = _read(labels, rejected={"b.jpg": "empty: no bytes"})
    with pytest.raises(ValueError, match="all images are labelled 'cat'"):
        select(TrainingData("/data", labels, multilabel=False), read, SETTINGS, tmp_path, Listener())
