"""The likeness of cells, and what it does to a map: by hand on two groups of cells, and on a photograph."""

import math

import numpy as np
import pytest
import torch

from camboxes.models import Localizer
from camboxes.models.affinity import affinity, coherence

# Four cells in two rows; the upper two look alike, so do the lower two. Without their mean the groups point in opposite
# directions: cosine 1 inside, -1 and so 0 across.
FEATURES = torch.tensor([[[[3.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 3.0]]]])


def test_cells_that_look_alike_share_their_row():
    half = [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]
    torch.testing.assert_close(affinity(FEATURES)[0], torch.tensor(half))


def test_likeness_is_the_square_of_the_cosine():
    # Vectors at -30, 30 and 180 degrees, the last long enough for a mean of 0: cosines 1/2, and -0.87 and so 0.
    x = [math.cos(math.radians(30))] * 2 + [-2 * math.cos(math.radians(30))]
    features = torch.tensor([[[x], [[-0.5, 0.5, 0.0]]]])
    torch.testing.assert_close(
        affinity(features)[0], torch.tensor([[0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]), atol=1e-6, rtol=0
    )


def test_a_map_that_follows_the_groups_stays():
    found = coherence(torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]), affinity(FEATURES), (2, 2))
    assert [value.item() for value in found] == [pytest.approx(1), pytest.approx(1)]


def test_a_map_that_splits_a_group_flattens():
    # m = (1, 0, 0, 0) becomes (1/2, 1/2, 0, 0). Without their means: covariance 1/4, variances 3/4 and 1/4 (sums).
    found = coherence(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]), affinity(FEATURES), (2, 2))
    assert [value.item() for value in found] == [pytest.approx(1 / 3), pytest.approx(1 / math.sqrt(3))]


def test_scale_and_offset_of_the_map_do_not_matter():
    score_map = torch.rand(1, 2, 2, generator=torch.Generator().manual_seed(0))
    straight, moved = (coherence(some, affinity(FEATURES), (2, 2)) for some in (score_map, 7 * score_map - 3))
    torch.testing.assert_close(straight, moved)


def test_of_a_constant_map_nothing_is_known():
    found = coherence(torch.ones(1, 2, 2), affinity(FEATURES), (2, 2))
    assert all(torch.isnan(value).all() for value in found)


def test_neighbours_in_the_batch_and_other_labels_change_nothing(classifier):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    localizer = Localizer(classifier)
    pixels, other = localizer.resize(image), localizer.resize(image[::-1].copy())
    [alone] = localizer.localize([pixels], [[[7]]])
    together = localizer.localize([other, pixels], [[[1], [2], [3]], [[7]]])[1]
    assert 0 < alone.coherence[0] < 1
    assert (alone.coherence, alone.agreement) == (together.coherence, together.agreement)


def test_a_stage_of_another_stride_leaves_nothing_known():
    from camboxes.models import ModelSpec, load_classifier

    one_stage = load_classifier(ModelSpec("efficientnet_lite0"))
    localizer = Localizer(one_stage)
    localizer._alike = frozenset()  # as of a network without a block at stride 16
    [found] = localizer.localize([localizer.resize(np.zeros((50, 50, 3), np.uint8))], [[[7]]])
    assert np.isnan(found.coherence).all()
    assert np.isnan(found.agreement).all()
