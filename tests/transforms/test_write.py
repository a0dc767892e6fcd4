import collections

import pytest

from camboxes.transforms import coco, write


def _failure(rejected, planned, rate):
    counts = coco.Counts()
    counts.images["rejected"], counts.images["planned"] = rejected, planned
    counts.rejected = collections.Counter(missing=rejected)
    return write._failure(counts, rate)


@pytest.mark.parametrize("planned", [1, 2, 3, 7, 10, 100, 1000])
def test_a_job_fails_above_the_rate_and_not_at_it(planned):
    """Of 100 images 29 are no more than 0.29, although 0.29 * 100 is 28.999999999999996."""
    for rejected in range(planned + 1):
        rate = float(repr(rejected / planned))
        assert _failure(rejected, planned, rate) is None
        assert rejected == planned or _failure(rejected + 1, planned, rate)
    for percent in range(101):
        assert _failure(percent, 100, float(f"0.{percent:02d}") if percent < 100 else 1.0) is None
    assert _failure(0, 0, 0.0) is None
