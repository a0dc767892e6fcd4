import pytest

from camboxes.models.counts import counted


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "image", "1 image"),
        (0, "image", "0 images"),
        (2, "box", "2 boxes"),
        (3, "class", "3 classes"),
        (1, "category", "1 category"),
        (2, "category", "2 categories"),
        (12_345, "repeated row", "12,345 repeated rows"),
    ],
)
def test_the_noun_agrees_with_its_number(number, noun, expected):
    assert counted(number, noun) == expected
