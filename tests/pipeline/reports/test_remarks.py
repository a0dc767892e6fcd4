from camboxes.pipeline.reports import remarks
from camboxes.transforms.planning.label_matching import LabelMatcher
from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.planning.wordnet.nouns import imagenet_names
from camboxes.transforms.sources.entries import PassedOver
from camboxes.transforms.sources.passed_over import Tally


def _tally(*items):
    tally = Tally()
    for item in items:
        tally.add(PassedOver(*item))
    return tally


def test_an_input_of_which_nothing_is_to_be_said():
    assert list(remarks.of_input(Tally(), ["cat", "dog"], {})) == []


def test_a_class_of_photographs_that_are_not_read():
    tally = _tally(
        ("dog/b.heic", "no image by its name", "dog"), ("dog/a.heic", "no image by its name", "dog"),
        ("cat/notes.txt", "no image by its name", "cat"), ("cat/video.mp4", "no image by its name", "cat"),
    )  # fmt: skip
    assert list(remarks.of_input(tally, ["cat"], {})) == [
        "WARNING: labels without an image, because no file in their folders is read: dog (2, such as dog/a.heic)",
        "4 files passed over, no image by its name: "
        "2 .heic (dog/a.heic), 1 .txt (cat/notes.txt), 1 .mp4 (cat/video.mp4)",
        "WARNING: 2 .heic: convert them to JPEG: ImageMagick's magick mogrify -format jpg *.heic, or pillow-heif",
        "1 .mp4: take frames out of them: ffmpeg -i FILE %05d.jpg",
    ]


def test_of_many_kinds_and_labels_the_first_are_told():
    tally = _tally(*((f"{number:02d}/a.e{number}", "no image by its name", f"{number:02d}") for number in range(12)))
    gone, kinds = remarks.of_input(tally, [], {})
    assert gone.endswith("09 (1, such as 09/a.e9) and 2 more")
    assert kinds.startswith("12 files passed over") and kinds.endswith("4 (04/a.e4), 7 more kinds")


def test_labels_that_may_be_one_and_labels_that_may_be_none():
    first, second, third = remarks.of_input(Tally(), ["Dog", "dog", "hot dog", "hot_dog", "nan", "cat"], {})
    assert first.startswith("WARNING: 'Dog' and 'dog' are different labels that differ only in case")
    assert second.startswith("WARNING: 'hot dog' and 'hot_dog' are different labels")
    assert third.startswith("WARNING: 'nan' is read as a label, but programs write it for a missing value")


def test_a_label_map_that_misses_a_label_by_its_case():
    [remark] = remarks.of_label_map({"Dog": 3, "cat": 1, "eel": 2, "Cat": 1}, ["dog", "cat", "fox"])
    assert remark == "WARNING: the label map has 'Dog', and the label is 'dog': it is not mapped; write them alike"


def test_what_was_assumed_and_a_label_that_may_be_several():
    first, second, third = remarks.of_input(Tally(), ["cat", "dog", "cat|dog"], {"train": "train"}, ["labels\x1b of x"])
    assert first == r"labels\x1b of x"
    assert second == "folders of splits: train (train)"
    assert third.startswith("WARNING: 'cat|dog' is read as one label") and third.endswith("--label-separator '|'")


def test_labels_that_are_called_like_splits():
    [remark] = remarks.of_input(Tally(), ["train", "val", "unlabeled"], {})
    assert remark.startswith("WARNING: train, val are read as labels, and are named like splits; if they are")
    assert list(remarks.of_input(Tally(), ["train", "car"], {})) == [], "a class of PASCAL VOC"


def test_splits():
    assert list(remarks.of_input(Tally(), ["cat"], {"train": "train", "valid": "val"})) == [
        "folders of splits: train (train), valid (val); labels are the folders inside them"
    ]


def test_files_that_are_looked_up(tmp_path):
    """Where a path leads outside of the root, the file is there and rejected for another reason."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").touch()
    (tmp_path / "data" / "m.csv").write_text("path,label\na.jpg,cat\nb.jpg,cat\n../c.jpg,cat\n")
    found = remarks.look_up(read_source(str(tmp_path / "data" / "m.csv")))
    assert (found.images, found.missing) == (3, ["b.jpg"])
    assert found.remark().startswith("WARNING: not there: 1 of 3 images that were looked up, such as b.jpg; paths are")
    (tmp_path / "data" / "b.jpg").touch()
    assert remarks.look_up(read_source(str(tmp_path / "data" / "m.csv"))).remark() is None


def test_a_thousand_images_are_looked_up(tmp_path):
    rows = "".join(f"{number}.jpg,cat\n" for number in range(1500))
    (tmp_path / "m.csv").write_text("path,label\n" + rows)
    found = remarks.look_up(read_source(str(tmp_path / "m.csv")))
    assert (found.images, len(found.missing)) == (1000, 1000)


def test_a_label_that_is_called_like_a_background():
    told = [*remarks.of_input(Tally(), ["no cat", "cat"], {})]
    assert told == ["'no cat' is read as a class; if its images show none of the other classes: --background 'no cat'"]


def test_labels_that_were_matched_by_their_meaning():
    matcher = LabelMatcher(imagenet_names(), {"pet": ["dog"]})
    labels = ["tench", "Dogs", "pet", "bird", "aeroplane"]
    assert list(remarks.of_assumed(labels, matcher)) == [
        "labels matched by their meaning (--dry-run lists all): Dogs = 118 classes, aeroplane = airliner, "
        "bird = 59 classes"
    ]
    assert not list(remarks.of_assumed(["tench", "pet"], matcher)) and not list(remarks.of_doubtful(labels, matcher))


def test_labels_that_may_mean_something_else():
    matcher = LabelMatcher(imagenet_names())
    assert list(remarks.of_doubtful(["kite", "tench", "ball"], matcher)) == [
        "WARNING: ball is taken for baseball, basketball, croquet ball and 7 more; the word may also mean: n13899404, "
        "an object with a spherical shape (1 class: bubble)",
        "WARNING: kite is taken for kite; the word may also mean: plaything consisting of a light frame covered with "
        "tissue paper (no class)",
    ]
    many = ["barrel", "bow", "cannon", "castle", "cup", "hook", "kite", "mouse", "nail", "organ", "plane", "wing"]
    assert list(remarks.of_doubtful(many, matcher))[10:] == [
        "WARNING: other words may mean something else, too: plane, wing"
    ]
