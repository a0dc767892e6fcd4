import decimal
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.transforms.sources.label_values import (
    called_background,
    called_missing,
    cell_value,
    joined_labels,
    labels_of,
    near_twins,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("cat", ("cat",)),
        (" cat\t", ("cat",)),
        ("Egyptian  cat", ("Egyptian  cat",)),
        ("7", ("7",)),
        ("-1", ("-1",)),
        ("3.0", ("3.0",)),
        ("nan", ("nan",)),
        ("[unknown]", ("[unknown]",)),
        (b" cat ", ("cat",)),
        (b"\xff", ("\\xff",)),
        ("\ud800", ("\\ud800",)),
        (0, ("0",)),
        (7, ("7",)),
        (2**70, (str(2**70),)),
        (3.0, ("3",)),
        (1e16, ("10000000000000000",)),
        (-0.0, ("0",)),
        (decimal.Decimal("3.00"), ("3",)),
        (decimal.Decimal("NaN"), ()),
        (None, ()),
        ("", ()),
        ("  ", ()),
        (NAN, ()),
        ([], ()),
        (-1, ()),
        (-1.0, ()),
        (["cat", "dog", "cat"], ("cat", "dog", "cat")),
        (["cat", None, "", NAN, -1, 3, 3.0, " cat "], ("cat", "3", "3", "cat")),
        (("cat", "dog"), ("cat", "dog")),
        ("['cat', \"it's\"]", ("cat", "it's")),
        (' ["cat", "d\\u00f6g", 3, null] ', ("cat", "dög", "3")),
        ("[]", ()),
        ("[cat]", ("[cat]",)),
        ("[" * 5000 + "]", ("[" * 5000 + "]",)),
        (np.int64(7), ("7",)),
        (np.float32(3), ("3",)),
        (np.float64("nan"), ()),
        (np.str_("cat"), ("cat",)),
        (np.array([1, 2]), ("1", "2")),
        (np.array(["cat", None], dtype=object), ("cat",)),
    ],
)
def test_labels(value, labels):
    assert labels_of(value) == labels


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (3.5, "3.5"),
        (float("inf"), "inf"),
        (decimal.Decimal("0.5"), "0.5"),
        (True, "True"),
        (np.bool_(False), "False"),
        ([True], "True"),
        ({"name": "cat"}, "'name': 'cat'"),
        (["cat", ["dog"]], "dog"),
        (["cat", {"id": 3}], "id"),
        (1j, "1j"),
        ("['cat' 'dog']", "expected a list as JSON"),
        (["cat", '["dog"]'], "expected a list as JSON"),
        ('[["cat"]]', "[['cat']]"),
    ],
)
def test_what_is_no_label(value, shown):
    with pytest.raises(ValueError, match=r"^is .*; expected a ") as error:
        labels_of(value)
    assert shown in str(error.value)


def test_names_of_numbers():
    names = ["cat", "dog "]
    assert labels_of([1, 0.0, -1, None, "eel"], names) == ("dog", "cat", "eel")
    with pytest.raises(ValueError, match="is 2, but there are names for 0 to 1 only"):
        labels_of(2, names)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), (" 3.0 ", 3), ("3.00", 3), ("-1", -1), ("-1.0", -1), ("0", 0), ("03", "03"), ("3.5", "3.5"),
     ("1e3", "1e3"), ("cat ", "cat"), ("", ""), ("n02123045", "n02123045"),
     ("123456789012345678901", 123456789012345678901)],
)  # fmt: skip
def test_cells_of_formats_without_numbers(text, value):
    assert cell_value(text) == value
    assert type(cell_value(text)) is type(value)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=8))
def test_every_value_of_json_is_labels_or_an_error(value):
    """A label is a text with something in it, and reading it again gives itself, unless it looks like a list."""
    try:
        labels = labels_of(json.loads(json.dumps(value)))
    except ValueError:
        return
    assert all(label and label == label.strip() for label in labels)
    assert labels_of(list(labels)) == labels
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0:
        assert [int(label) for label in labels] == [value]


def test_near_twins():
    labels = ["Dog", "cat", "dog", "hot dog", "hot_dog", "hot  dog", "café", "cafe\u0301", "eel"]
    assert near_twins(labels) == [("Dog", "dog"), ("cafe\u0301", "café"), ("hot  dog", "hot dog", "hot_dog")]
    assert near_twins(["cat", "dog"]) == []


def test_labels_that_are_called_like_missing_ones():
    assert called_missing(["cat", "nan", "None", "N/A", "banana"]) == ["N/A", "None", "nan"]


def test_labels_that_others_make_together():
    labels = {"cat", "dog", "eel", "cat|dog", "dog, eel", "eel cat dog", "cat;fox", "cat|", "hot dog"}
    assert joined_labels(labels) == [("cat|dog", "|"), ("dog, eel", ","), ("eel cat dog", " ")]


def test_labels_that_are_called_like_a_background():
    labels = ["Other", "cat", "no cat", "not_a_Cat", "nocat", "no entry", "negatives", "another", "norm"]
    assert called_background(labels) == ["Other", "negatives", "no cat", "not_a_Cat"]
