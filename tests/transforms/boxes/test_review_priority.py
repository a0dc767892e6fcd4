"""Which images come first, by hand."""

import pytest

from camboxes.transforms.boxes.review_priority import review


def label(name, category_id, probability=0.9):
    return {"label": name, "category_id": category_id, "probability": probability}


def box(category_id, score, calibrated_score=None):
    return {"category_id": category_id, "score": score, "calibrated_score": calibrated_score}


CAT, DOG = label("cat", 1), label("dog", 2)


def test_a_good_box_needs_no_look():
    assert review([CAT], [box(1, 0.8)], {1: (0.3,)}) == {"priority": 0.2, "reasons": []}


def test_priority_is_the_expected_number_of_corrections():
    # The cat's better box is wrong with probability 0.4, the dog has none for certain.
    found = review([CAT, DOG], [box(1, 0.1), box(1, 0.6)], {1: (0.3,), 2: ()})
    assert found == {"priority": 1.4, "reasons": ["no_box: dog"]}


def test_calibrated_scores_count_where_there_are_any():
    found = review([CAT], [box(1, 0.9, 0.3)], {1: (0.3,)})
    assert found == {"priority": 0.7, "reasons": ["uncertain_box: cat"]}


@pytest.mark.parametrize(("areas", "several"), [((0.4, 0.1), True), ((0.4, 0.09), False), ((0.4,), False)])
def test_a_second_component_of_a_quarter_may_be_an_object(areas, several):
    assert ("several_components: cat" in review([CAT], [box(1, 0.8)], {1: areas})["reasons"]) is several


def test_a_tiny_probability_speaks_against_the_label():
    doubtful = label("cat", 1, 0.009)
    assert review([doubtful], [box(1, 0.005)], {1: (0.3,)})["reasons"] == ["unlikely_label: cat", "uncertain_box: cat"]


def test_a_label_without_a_class_has_no_box():
    assert review([label("tool", 3, None)], [], {}) == {"priority": 1, "reasons": ["no_box: tool"]}
