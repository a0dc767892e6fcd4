from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.pipeline.detection_data.datasets import class_list


def test_names_with_control_characters_are_refused():
    with pytest.raises(ValueError, match=r"labels 'two\\nlines', 'bell\\x07', 'next\\x85' hold control characters"):
        class_list(["cat", "two\nlines", "bell\x07", "next\x85"])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1)))
def test_a_name_that_is_not_refused_fits_into_a_line_and_into_xml(names):
    try:
        text = class_list(names)
    except ValueError:
        return
    assert text.splitlines() == names
    for name in names:
        element = ET.Element("name")
        element.text = name
        assert ET.fromstring(ET.tostring(element)).text == name
