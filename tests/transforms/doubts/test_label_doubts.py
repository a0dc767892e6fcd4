import pytest

from camboxes.transforms.doubts.label_doubts import Doubts


def _row(labels, first=0.9):
    """A row whose labels have these probabilities; None of one that stands for no class."""
    found = [{"label": label, "probability": probability} for label, probability in labels.items()]
    return {"labels": found, "top5": [{"probability": first}, {"probability": first / 2}]}


def _doubts(rows, **model):
    doubts = Doubts.about({"model": model})
    for row in rows:
        doubts.add(row)
    return doubts


def test_an_image_is_in_doubt_by_all_of_its_labels():
    """Of four classes chance is 0.25."""
    rows = [
        _row({"cat": 0.24}),
        _row({"cat": 0.25}),
        _row({"cat": 0.1, "dog": 0.6}),
        _row({"cat": 0.1, "dog": 0.2, "thing": None}),
        _row({"thing": None}),
        {"labels": [{"label": "cat"}], "top5": []},  # rejected
    ]
    assert _doubts(rows, classes=4).to_json() == {
        "images": 2,
        "of": 4,
        "labels": {"cat": {"images": 2, "of": 4}, "dog": {"images": 1, "of": 2}},
    }


def test_sigmoids_are_compared_with_the_first_guess():
    rows = [_row({"cat": 0.02}, first=0.03), _row({"cat": 0.02}, first=0.02), _row({"cat": 0.6})]
    assert _doubts(rows, classes=4, multilabel=True).to_json()["images"] == 2


def test_a_single_output_is_never_in_doubt():
    assert _doubts([_row({"cat": 0.001}, first=0.001)], classes=1, multilabel=True).to_json()["images"] == 0


@pytest.mark.parametrize(("doubted", "of", "warned"), [(4, 10, True), (9, 9, False), (10, 30, False), (11, 30, True)])
def test_more_than_a_third_of_ten_images_or_more(doubted, of, warned):
    rows = [
        _row({"dog": 0.0009}),
        *[_row({"cat" * 100: 0.0009})] * (doubted - 1),
        *[_row({"cow": 0.5})] * (of - doubted),
    ]
    warnings = _doubts(rows, classes=1000).warnings
    assert bool(warnings) == warned
    for warning in warnings:
        assert f"on {doubted} of {of} images the network gives every label less than chance (1 of 1,000)" in warning
        assert f"most often {'cat' * 10}… ({doubted - 1} of {doubted - 1}), dog (1 of 1)" in warning


def test_nothing_is_said_of_a_network_that_is_not_known():
    doubts = _doubts([_row({"cat": 0.0})] * 20, name="timm:resnet18")
    assert doubts.columns == [] and doubts.warnings == [] and doubts.to_json() == {"images": 0, "of": 0, "labels": {}}
