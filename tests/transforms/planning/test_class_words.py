import pytest

from camboxes.transforms.planning.class_words import ClassWords, Match
from camboxes.transforms.planning.wordnet.nouns import imagenet_names


@pytest.fixture(scope="module")
def words():
    return ClassWords(imagenet_names())


def _names(words, label):
    return [words.class_names[index][0] for index in words.find(label).classes]


@pytest.mark.parametrize(
    ("label", "count"),
    [("bird", 59), ("Dogs", 118), ("car", 10), ("cats", 7), ("BUSES", 3), ("bottle", 7), ("animals", 398)],
)
def test_everyday_words(words, label, count):
    assert len(words.find(label).classes) == count


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("diningtable", "dining table"), ("TrafficLight", "traffic light"), ("cell phone", "cellular telephone"),
        ("geese", "goose"), ("cow", "ox"), ("aeroplane", "airliner"), ("sofa", "studio couch"), ("tench", "tench"),
    ],
)  # fmt: skip
def test_words_for_one_class(words, label, name):
    assert _names(words, label) == [name]


def test_a_class_s_own_name_is_that_class_and_its_other_meanings_are_told(words):
    assert words.find("tench") == Match((0,))
    kite = words.find("kite")
    assert _names(words, "kite") == ["kite"] and kite.meaning is None
    assert [other.gloss for other in kite.others] == ["plaything consisting of a light frame covered with tissue paper"]


def test_what_a_word_was_read_as_and_what_it_means(words):
    match = words.find("Cats")
    assert (match.name, match.meaning.synset) == ("cat", "n02121620")
    assert [(other.synset, len(other.classes)) for other in match.others] == [("n02127808", 6)]


@pytest.mark.parametrize("label", ["seal", "bike", "plant", "match", "person", "object", "crane", "light"])
def test_what_is_not_clear_stands_for_nothing(words, label):
    assert words.find(label).classes == ()


def test_plurals_and_joined_words_of_a_network_of_other_classes():
    words = ClassWords(["stop sign", "bus", "glass"])
    assert [words.find(label).classes for label in ("Stop-Signs", "stopsigns", "buses", "glasses")] == [
        (0,), (0,), (1,), (2,),
    ]  # fmt: skip
    assert words.find("dog") is None


def test_whole_words_in_names(words):
    assert [words.class_names[index][0] for index in words.with_words("Cat")] == [
        "tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat", "Madagascar cat", "lesser panda",
    ]  # fmt: skip
    assert ClassWords(["Siamese cat", "catamaran"]).with_words("cat") == [0]


def test_a_name_that_stands_for_a_class_alone(words):
    assert [words.written(index) for index in (0, 134, 517)] == ["tench", "n02012849", "n03126707"]
    assert ClassWords([("a",), ("a",), ()]).written(1) == 1
