import numpy as np
import pytest

from camboxes.pipeline.formats.ground_truth import GroundTruthBuilder, TrueImage


def test_an_image_has_one_size():
    builder = GroundTruthBuilder("boxes.csv")
    builder.add_image("a.jpg", "8", "9.0", "line 2")
    builder.add_image("a.jpg", 8, 9, "line 3")
    builder.add_image("b.jpg", "", None, "line 4")
    with pytest.raises(ValueError, match=r"line 5: 'a.jpg' has 9 x 8 pixels, and before it had 8 x 9"):
        builder.add_image("a.jpg", 9, 8, "line 5")
    for side in (0, -1, 2.5, "wide", float("inf"), float("nan"), [1]):
        with pytest.raises(ValueError, match=r"line 6: a side of the image is .*; expected whole pixels, 1 or more"):
            builder.add_image("c.jpg", side, 8, "line 6")
    builder.add_box("b.jpg", "dog", [1, 2, 3, 4], False, "line 7")
    images = builder.build().images
    assert {path: (image.width, image.height) for path, image in images.items()} == {
        "a.jpg": (8, 9),
        "b.jpg": (None, None),
    }


def test_what_is_known_of_a_box():
    box = np.array([[0, 0, 4, 4.0]])
    image = TrueImage("a.jpg", None, None, {"cat": box}, {}, {"dog": box, "cow": None})
    half, less = [0, 0, 4, 2], [0, 0, 4, 1.9]
    assert [image.is_right("cat", half), image.is_right("cat", less)] == [True, False]
    assert [image.is_right("dog", half), image.is_right("dog", less)] == [False, None]
    assert [image.is_right("cow", half), image.is_right("yak", half)] == [False, None]
