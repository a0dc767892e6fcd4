import pytest

from camboxes.transforms.sources.background import check_background, contradiction, parted
from camboxes.transforms.sources.entries import SourceError

LABELS = ["other things", "raccoon", "red panda", "others"]


@pytest.mark.parametrize(
    ("background", "message"),
    [
        (["othr"], "background 'othr' is the label of no image; .* 4 labels, such as 'others', 'other things'"),
        (["others", "Raccoon"], "background 'Raccoon' is the label of no image; .* such as 'raccoon'"),
        (["xyz"], "background 'xyz' .* such as 'other things', 'others', 'raccoon'$"),
        (LABELS, r"all labels are background \('other things', 'others', 'raccoon', 'red panda'\)"),
        ("others", r"the background is the text 'others'; expected a list of labels: \['others'\]"),
    ],
)
def test_a_wrong_background_is_told_with_the_nearest_labels(background, message):
    with pytest.raises(SourceError, match=message):
        check_background(background, LABELS)


def test_any_label_may_be_background():
    check_background([], LABELS)
    check_background(["raccoon", "red panda"], LABELS)


def test_labels_of_both_kinds():
    assert parted(("dog", "none", "other"), {"none", "other", "unused"}) == (("dog",), ("none", "other"))
    assert parted(("dog",), ()) == (("dog",), ())
    assert (
        contradiction(("cat", "dog"), ("none",)) == "labelled cat, dog and also background (none); keep what is right"
    )
