import pytest

from camboxes.models.networks.class_names import known_names, names_from_json, names_from_lines, shown


def test_names_by_the_number_of_classes():
    assert known_names(1000)[285] == ("Egyptian cat", "n02124075")
    assert known_names(21841)[0][-1] == "n00004475"  # the first synset of timm's imagenet22k_synsets.txt
    assert known_names(12) == ((),) * 12


def test_what_is_shown_of_a_class_without_a_name():
    assert [shown((("cat", "kitty"), ()), index) for index in (0, 1)] == ["cat", "class 1"]


@pytest.mark.parametrize("text", ["1\n10\n2\n", "1\r\n10\r\n2", " 1 \n10\n2\n\n  \n"])
def test_a_name_a_line(text):
    assert names_from_lines(text) == (("1",), ("10",), ("2",))


def test_a_line_is_one_name():
    assert names_from_lines("sofa, large\n7: chair") == (("sofa, large",), ("7: chair",))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["cat", "dog"], (("cat",), ("dog",))),
        ([["cat", "kitty"], [], "dog"], (("cat", "kitty"), (), ("dog",))),
        ({"1": 0, "10": 1, "2": 2}, (("1",), ("10",), ("2",))),  # class_to_idx of ImageFolder
        ({"dog": 1, "cat": 0, "kitty": 0}, (("cat", "kitty"), ("dog",))),
        ({"1": "dog", "0": "cat"}, (("cat",), ("dog",))),
        ({"0": ["n02124075", "Egyptian_cat"]}, (("n02124075", "Egyptian_cat"),)),  # imagenet_class_index.json
    ],
)
def test_names_from_json(values, names):
    assert names_from_json(values) == names


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("cat", "str 'cat'; expected a list of names"),
        (7, "int '7'; expected a list of names"),
        ({"cat": 1, "dog": 2}, "the indices are 1, 2; expected each from 0 to 1 once"),
        ({"0": "cat", "2": "dog"}, "the indices are 0, 2; expected"),
        ({"cat": True}, "an object of other things; expected"),
        ({"cat": "dog"}, "an object of other things; expected"),
        (["cat", ""], "class 1 has an empty name"),
        (["cat", None], "class 1 is None; expected"),
        (["cat", ["dog", 1]], r"class 1 is \['dog', 1\]; expected"),
    ],
)
def test_values_that_name_no_classes(values, message):
    with pytest.raises(ValueError, match=message):
        names_from_json(values)


def test_an_empty_line_between_names():
    with pytest.raises(ValueError, match="class 1 has an empty name; expected a name for each output"):
        names_from_lines("cat\n\ndog\n")
