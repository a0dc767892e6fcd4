import runpy
from pathlib import Path

import pytest

from camboxes.models.networks.class_names import known_names
from camboxes.transforms.planning.wordnet import nouns
from camboxes.transforms.planning.wordnet.nouns import Nouns, imagenet_names

SCRIPT = Path(__file__).parents[4] / "docs" / "make_nouns.py"
CLASSES = imagenet_names()


def test_the_names_of_imagenets_classes_are_those_that_timm_has():
    assert imagenet_names() == known_names(1000)


def test_the_licence_lies_beside_the_words():
    licence = Path(nouns.__file__).with_name("LICENSE").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in licence


def test_a_word_stands_for_the_classes_of_all_synsets_below_it():
    """The dogs are 118 in a row, from the Chihuahua to the Mexican hairless."""
    dog = Nouns(CLASSES).find("dog")
    assert dog.meant.classes == tuple(range(151, 269)) and not dog.others
    assert CLASSES[151][0] == "Chihuahua" and CLASSES[268][0] == "Mexican hairless"
    assert Nouns(CLASSES).find("n02084071") == dog
    assert Nouns(CLASSES).find("raccoon") is None


def test_classes_are_known_by_their_synsets_wherever_they_stand():
    own = Nouns([("house cat", "n02123045"), ("n02085620",), ("toaster",)])
    assert own.find("cat").meant.classes == (0,) and own.find("dog").meant.classes == (1,)
    assert own.find("bird") is None


def test_a_thousand_classes_with_imagenets_names_need_no_synsets():
    assert len(Nouns([names[:1] for names in CLASSES]).find("dog").meant.classes) == 118
    assert Nouns([names[:1] for names in CLASSES[:900]]).find("dog") is None
    assert Nouns([(f"class {number}",) for number in range(1000)]).find("dog") is None


def test_of_a_network_with_other_synsets_a_word_would_stand_for_a_part():
    """The first is the raccoon, a class of ImageNet-21k."""
    assert Nouns([("raccoon", "n02507649"), *CLASSES]).find("dog") is None


def test_a_meaning_of_which_the_network_has_no_class_is_not_meant():
    """Of the leopard alone a cat may be, but WordNet's texts speak of other cats."""
    cat = Nouns([CLASSES[288]]).find("cat")
    assert cat.meant is None and [other.synset for other in cat.others] == ["n02127808"]


@pytest.mark.parametrize(("word", "usable"), [("dog", True), ("animal", True), ("person", False), ("object", False)])
def test_words_that_say_too_little_or_more_than_the_network_knows(word, usable):
    assert Nouns(CLASSES).find(word).meant.is_usable is usable


def test_irregular_plurals():
    assert {word: Nouns(CLASSES).singular(word) for word in ("geese", "people", "oxen", "dogs")} == {
        "geese": "goose", "people": "person", "oxen": "ox", "dogs": None,
    }  # fmt: skip
    assert Nouns([("goose",)]).singular("geese") is None


class TestDecisions:
    """What docs/make_nouns.py decides, of nouns that are made up: a and b are classes, above them ab and all."""

    @pytest.fixture
    def meanings(self):
        script = runpy.run_path(str(SCRIPT))
        above = {"a": ["ab"], "b": ["ab"], "ab": ["all"], "c": ["cs"], "cs": ["all"], "all": [], "pipe": [], "idea": []}
        synsets = {
            name: script["Synset"]([name], parents, f"what {name} is", {}, name == "pipe")
            for name, parents in above.items()
        }
        return script["Meanings"](synsets, ["a", "b", "c"])

    def test_one_meaning(self, meanings):
        assert meanings.of("word", {"ab": 0}) == ["ab"]

    def test_what_no_picture_shows_does_not_count(self, meanings):
        assert meanings.of("word", {"idea": 99, "ab": 0}) == ["ab"]

    def test_something_that_is_no_class_and_more_common(self, meanings):
        assert meanings.of("word", {"pipe": 1, "ab": 0}) == [None, "what pipe is", "ab"]
        assert meanings.of("word", {"ab": 1, "pipe": 0}) == ["ab"]

    def test_another_name_of_a_class_stands_for_it_all_the_same(self, meanings):
        assert meanings.of("word", {"pipe": 1, "a": 0}) == ["a", "what pipe is"]

    def test_a_main_meaning_occurs_ten_times_as_often_as_the_rest(self, meanings):
        assert meanings.of("word", {"ab": 20, "cs": 2}) == ["ab", "cs"]
        assert meanings.of("word", {"ab": 19, "cs": 2}) == [None, "ab", "cs"]

    def test_a_class_of_that_name_is_never_passed_over(self, meanings):
        assert meanings.of("word", {"ab": 99, "c": 0}) == [None, "ab", "c"]

    def test_the_wider_meaning_has_the_classes_of_the_narrower(self, meanings):
        assert meanings.of("word", {"ab": 20, "all": 0}) == ["all"]

    def test_the_first_name_of_a_class_is_that_class(self, meanings):
        assert meanings.of("a", {"pipe": 9, "c": 8, "a": 1}) == ["a", "what pipe is", "c"]
