import pytest

from camboxes.transforms.planning.class_words import ClassWords
from camboxes.transforms.planning.unmatched import explained
from camboxes.transforms.planning.wordnet.nouns import imagenet_names


@pytest.fixture(scope="module")
def words():
    return ClassWords(imagenet_names())


def _said(name, words):
    error = explained(name, words.find(name), words)
    return str(error), list(error.candidates)


def test_an_ambiguous_word_lists_its_meanings_and_how_to_write_each(words):
    said, candidates = _said("bike", words)
    assert said == (
        "'bike' may mean: n03790512, a motor vehicle with two wheels and a strong frame (1 class: moped); n02834778, a "
        "wheeled vehicle that has two wheels and is moved by foot pedals (2 classes: bicycle-built-for-two, mountain "
        'bike). Say which in the label map: {"bike": "n03790512"}, or {"bike": ["n03790512", "n02834778"]}'
    )
    assert candidates == ["n03790512", "n02834778"]
    assert "sea lion); fastener consisting of a resinous composition" in _said("seal", words)[0]


def test_a_word_for_more_than_the_network_knows(words):
    said, candidates = _said("person", words)
    assert said == (
        "'person' has 10,296 kinds in WordNet, and the network knows few of them: ballplayer, groom, scuba diver. If "
        'these are enough, say so in the label map: {"person": "n00007846"}'
    )
    assert candidates == ["ballplayer", "groom", "scuba diver"]


def test_a_word_for_nearly_everything(words):
    assert _said("object", words) == ("'object' stands for 958 of 1000 classes; use a narrower word", [])


def test_whole_words_come_before_spelling():
    words = ClassWords(["crate", "Siamese cat", ("tabby", "tabby cat"), "vat"])
    assert _said("cat", words) == (
        "'cat' is not the name of a class; classes with this word: Siamese cat (1), tabby (2)",
        ["Siamese cat", "tabby"],
    )
    assert _said("crates of", words)[0] == "'crates of' is not the name of a class; nearest: crate (0)"


def test_the_last_words_say_what_a_thing_is(words):
    said, candidates = _said("sports ball", words)
    assert said.startswith("'sports ball' is not the name of a class; nearest: ball (10 classes), ")
    assert candidates[0] == "ball"


def test_a_name_of_two_classes(words):
    said, candidates = _said("crane", words)
    assert said == "'crane' is the name of 2 classes: 134: crane, n02012849; 517: crane, n03126707"
    assert candidates == ["n02012849", "n03126707"]
