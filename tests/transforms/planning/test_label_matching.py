import pytest

from camboxes.transforms.planning.label_matching import (
    Category,
    LabelMatcher,
    UnmatchedLabelsError,
    UnnamedClassesError,
)
from camboxes.transforms.planning.wordnet.nouns import imagenet_names

NAMES = [
    ("tench", "Tinca tinca", "n01440764"),
    ("crane", "n02012849"),
    ("crane", "n03126707"),
    ("projectile", "missile", "n04008634"),
    ("missile", "n03773504"),
]


@pytest.mark.parametrize(
    ("label", "index"),
    [("tench", 0), ("Tinca tinca", 0), ("tinca_tinca", 0), ("TINCA-TINCA", 0), ("n02012849", 1), ("missile", 4)],
)
def test_names_synonyms_and_synset_ids(label, index):
    assert LabelMatcher(NAMES).match(label) == (index,)


def test_every_wrong_label_is_listed_with_its_candidates():
    with pytest.raises(UnmatchedLabelsError) as error:
        LabelMatcher(NAMES).categories(["tench", "crane", "tensh"])
    lines = str(error.value).splitlines()
    assert lines[0].startswith("no single class of the network matches 2 of 3 labels; map them with --label-map FILE")
    assert lines[1] == "  'crane' is the name of 2 classes: 1: crane, n02012849; 2: crane, n03126707"
    assert lines[2] == "  'tensh' is not the name of a class; nearest: tench (0)"


def test_a_label_map_decides_and_may_stand_for_several_classes_or_none():
    label_map = {"crane": "n03126707", "fish": ["Tinca tinca", 3], "thing": [], "other": None, "tench": 1}
    matcher = LabelMatcher(NAMES, label_map)
    assert matcher.categories(["tench", "missile", *label_map]) == [
        Category(1, "crane", (2,)),
        Category(2, "fish", (0, 3)),
        Category(3, "missile", (4,)),
        Category(4, "other", ()),
        Category(5, "tench", (1,)),
        Category(6, "thing", ()),
    ]


def test_a_label_map_that_names_no_class():
    with pytest.raises(UnmatchedLabelsError, match="label map, 'dog': class index 5 is not in 0 to 4"):
        LabelMatcher(NAMES, {"dog": [5]})
    with pytest.raises(UnmatchedLabelsError, match="label map, 'dog': 'hound' is not the name of a class"):
        LabelMatcher(NAMES, {"dog": "hound"})
    for value in (True, 1.0, {"tench": 0}, [True], [[0]]):
        with pytest.raises(
            UnmatchedLabelsError, match=r"label map, 'dog': .* is no class; expected an index, a name, or a"
        ):
            LabelMatcher(NAMES, {"dog": value})


def test_the_name_of_a_split():
    with pytest.raises(UnmatchedLabelsError, match="'train' is no class but the name of a split; folders are read as"):
        LabelMatcher(NAMES).match("train")
    assert LabelMatcher([("train",), ("tench",)]).match("train") == (0,)


def test_accents_match_however_they_are_encoded():
    """macOS takes them apart in the names of folders."""
    assert LabelMatcher([("café",), ("tench",)]).match("cafe\u0301") == (0,)


def test_a_number_is_the_index_of_a_class_only_in_a_label_map():
    with pytest.raises(
        UnmatchedLabelsError, match=r"'2' is not the name of a class; if .* without quotes: \{\"2\": 2\}$"
    ):
        LabelMatcher(NAMES).match("2")
    with pytest.raises(
        UnmatchedLabelsError, match="label map, 'dog': '2' is not the name of a class; if it is a class index"
    ):
        LabelMatcher(NAMES, {"dog": "2"})


def test_folders_that_are_numbers_match_no_class_of_a_network_without_names():
    """As torchvision's ImageFolder sorts "1" to "12", folder "2" is class 4."""
    folders = [str(number) for number in range(1, 13)]
    with pytest.raises(UnnamedClassesError) as error:
        LabelMatcher([()] * 12).categories(folders)
    assert str(error.value) == (
        "the network has 12 classes without names, so no label can be matched with one: '1', '10', '11', '12', '2' and "
        "7 more. Name them with --classes FILE, one name a line in the order of the network's outputs (torchvision's "
        "ImageFolder sorts its folders as text: 1, 10, 2); or map each label to a class index with --label-map FILE, "
        'as in {"1": 0} (docs/how-to/own-networks.md)'
    )
    named = LabelMatcher(sorted(folders))
    assert [named.match(label)[0] for label in ("1", "10", "11", "12", "2", "9")] == [0, 1, 2, 3, 4, 11]


def test_a_label_map_serves_a_network_without_names():
    matcher = LabelMatcher([()] * 7, {"cat": 3, "dog": [4, 5], "none": []})
    assert [category.class_indices for category in matcher.categories(["cat", "dog", "none"])] == [(3,), (4, 5), ()]
    with pytest.raises(UnnamedClassesError, match=r"7 classes without names, .*: 'cow'"):
        matcher.categories(["cat", "cow"])


def test_a_class_without_a_name_among_others():
    matcher = LabelMatcher([(), ("cat",), ()])
    assert matcher.match("cat") == (1,)
    with pytest.raises(UnmatchedLabelsError, match="'class 0' is not the name of a class"):
        matcher.match("class 0")


def test_a_label_map_may_say_words():
    matcher = LabelMatcher(imagenet_names(), {"puppy": "dog", "pet": ["dog", "cats", 1], "Seal": "n02076196"})
    assert matcher.match("puppy") == tuple(range(151, 269))
    assert matcher.match("pet") == (1, *range(151, 269), *range(281, 288))
    assert matcher.match("Seal") == (150,)


def test_a_label_map_to_begin_with_has_all_labels_and_is_refused_until_it_is_edited():
    matcher = LabelMatcher(imagenet_names(), {"puppy": "dog", "thing": []})
    labels = ["puppy", "thing", "bird", "Cats", "tench", "crane", "bike", "qqqq"]
    with pytest.raises(UnmatchedLabelsError) as error:
        matcher.categories(labels)
    starter = error.value.starter
    assert starter == {
        "bike": ["?", "n03790512", "n02834778"],
        "crane": ["?", "n02012849", "n03126707"],
        "qqqq": ["?"],
        "Cats": ["tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat", "cougar", "lynx"],
        "bird": "bird",
        "puppy": "dog",
        "tench": "tench",
        "thing": [],
    }
    with pytest.raises(UnmatchedLabelsError, match="label map, 'bike': not decided yet: remove ") as refused:
        LabelMatcher(imagenet_names(), starter)
    assert len(str(refused.value).splitlines()) == 3
    edited = starter | {"bike": "n02834778", "crane": starter["crane"][1:], "qqqq": []}
    assert [category.class_indices for category in LabelMatcher(imagenet_names(), edited).categories(labels)] == [
        tuple(range(281, 288)), (444, 671), matcher.match("bird"), (134, 517), tuple(range(151, 269)), (), (0,), (),
    ]  # fmt: skip
