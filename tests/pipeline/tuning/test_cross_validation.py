import numpy as np
import pytest

from camboxes.pipeline.tuning.cross_validation import folds, interval, standard_error


def test_images_are_never_on_both_sides():
    image = np.repeat(np.arange(13), 3)
    seen = np.zeros((4, len(image)), int)
    for repeat, train, test in folds(image):
        assert not set(image[train]) & set(image[test])
        assert len(train) + len(test) == len(image)
        seen[repeat, test] += 1
    assert (seen == 1).all()
    assert list(folds(np.zeros(9))) == []


def test_errors_are_over_images():
    values = np.array([0.0, 1, 1, 0, 1, 1])
    deviation = values.std(ddof=1)
    assert standard_error(values, np.arange(6)) == pytest.approx(deviation / np.sqrt(6))
    # The same values three times an image: three times the pairs, and not a bit more is known.
    assert standard_error(np.repeat(values, 3), np.repeat(np.arange(6), 3)) == pytest.approx(deviation / np.sqrt(6))
    # Two images with sums of deviations 1 and -1: sqrt(2 / 1 * (1 + 1)) / 4.
    assert standard_error(np.array([1.0, 1, 0, 0]), np.array([5, 5, 9, 9])) == pytest.approx(0.5)


def test_intervals_as_in_the_books():
    # Wilson's interval of 15 of 20, and of 20 of 20: 20 / (20 + 1.96²).
    assert interval(0.75, np.sqrt(0.75 * 0.25 / 20), 20) == pytest.approx((0.5313, 0.8881), abs=1e-4)
    assert interval(1.0, 0.0, 20) == pytest.approx((20 / (20 + 1.96**2), 1))
    assert interval(0.0, 0.0, 20) == pytest.approx((0, 1.96**2 / (20 + 1.96**2)))
