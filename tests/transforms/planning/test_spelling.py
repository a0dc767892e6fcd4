import pytest

from camboxes.transforms.planning.spelling import plain, singulars


@pytest.mark.parametrize("name", ["Dining Table", "dining_table", "DINING-TABLE", " dining  table "])
def test_case_and_kinds_of_spaces_do_not_matter(name):
    assert plain(name) == "dining table"


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("dogs", "dog"), ("buses", "bus"), ("boxes", "box"), ("benches", "bench"), ("brushes", "brush"),
        ("ponies", "pony"), ("firemen", "fireman"), ("dining tables", "dining table"),
    ],
)  # fmt: skip
def test_regular_plurals(plural, singular):
    assert singular in [*singulars(plural)]


@pytest.mark.parametrize("word", ["dog", "glass", "brass", "sheep"])
def test_words_that_are_no_plurals(word):
    assert not [*singulars(word)]
