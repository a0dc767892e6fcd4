"""The likeness of cells, and what it does to a map: by hand on two groups of cells, and on a photograph."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from camboxes.models import Localizer, MapSpec
from camboxes.models.localization.affinity import Affinity, coherence, refine

# Four cells in two rows; the upper two look alike, so do the lower two. Without their mean the groups point in opposite
# directions: cosine 1 inside, -1 and so 0 across.
FEATURES = torch.tensor([[[[3.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [3.0, 3.0]]]])

# Each of the four cells is half as wide and high as the image, of which 1/28 is border at each side.
INSIDE = (13 / 14) ** 2


def affinity(stages):
    """The whole of it, [n, cells, cells]: its columns are what it makes of one cell each."""
    n, cells = len(stages[0]), stages[0].shape[2:].numel()
    return torch.stack([Affinity(stages).spread(cell.expand(n, -1)) for cell in torch.eye(cells)], 2)


def test_cells_that_look_alike_share_their_row():
    half = [[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]
    torch.testing.assert_close(affinity([FEATURES])[0], torch.tensor(half))


def test_likeness_is_the_square_of_the_cosine():
    # Vectors at -30, 30 and 180 degrees, the last long enough for a mean of 0: cosines 1/2, and -0.87 and so 0.
    x = [math.cos(math.radians(30))] * 2 + [-2 * math.cos(math.radians(30))]
    features = torch.tensor([[[x], [[-0.5, 0.5, 0.0]]]])
    torch.testing.assert_close(
        affinity([features])[0], torch.tensor([[0.8, 0.2, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("height", "width"), [(9, 31), (16, 16), (1, 129)])
def test_blocks_of_rows_make_up_the_whole(height, width):
    random = torch.Generator().manual_seed(0)
    stages = [torch.randn(2, channels, height, width, generator=random) for channels in (5, 3)]
    expected = torch.ones(2, height * width, height * width)
    for maps in stages:
        vectors = (maps - maps.mean((2, 3), keepdim=True)).flatten(2)
        cosines = torch.cosine_similarity(vectors[:, :, :, None], vectors[:, :, None], dim=1)
        expected *= cosines.clamp(min=0) ** 2
    torch.testing.assert_close(affinity(stages), expected / expected.sum(2, keepdim=True), atol=1e-6, rtol=1e-4)


def test_a_map_that_follows_the_groups_stays():
    found = coherence(torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]]), FEATURES)
    assert [value.item() for value in found] == [pytest.approx(1), pytest.approx(1)]


def test_a_map_that_splits_a_group_flattens():
    # m = (1, 0, 0, 0) becomes (1/2, 1/2, 0, 0). Without their means: covariance 1/4, variances 3/4 and 1/4 (sums).
    found = coherence(torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]), FEATURES)
    assert [value.item() for value in found] == [pytest.approx(1 / 3), pytest.approx(1 / math.sqrt(3))]


def test_a_map_of_a_part_becomes_one_of_the_whole():
    # The upper two cells are alike, so that what one of them has is shared; nothing reaches the lower two.
    found = refine(torch.tensor([[[[8.0, 0.0], [0.0, 0.0]]]]), [FEATURES])
    torch.testing.assert_close(found, INSIDE * torch.tensor([[[[4.0, 4.0], [0.0, 0.0]]]]))


def test_what_is_like_the_border_goes_and_what_is_not_stays():
    # 28 x 28 cells, the outermost of which are the border. A square in the middle is like itself alone, and a bar is
    # like the background around it, where one cell in seven or so is border.
    groups = torch.zeros(28, 28)
    groups[10:18, 10:18] = 1
    features = torch.stack([groups, 1 - groups])[None]
    score_map = torch.zeros(1, 1, 28, 28)
    score_map[..., 10:18, 10:18] = 1
    score_map[..., 10:18, 2:6] = 0.9
    [[found]] = refine(score_map, [features])
    background, border = 28 * 28 - 64, 4 * 27
    torch.testing.assert_close(found[groups == 1], torch.ones(64))
    expected = 0.9 * 32 / background * (1 - border / background)
    torch.testing.assert_close(found[groups == 0], torch.full((background,), expected))


def test_a_border_of_a_twenty_eighth_of_each_side_whatever_the_grid():
    # Each cell is like itself alone, and so is border as far as it lies there.
    for height, width, corner in ((28, 28, 1), (14, 14, 3 / 4), (7, 7, 7 / 16), (14, 28, 1)):
        features = torch.zeros(1, height * width, height, width)
        features.view(height * width, -1).fill_diagonal_(1)
        [[found]] = refine(torch.ones(1, 1, height, width), [features])
        assert found.mean() == pytest.approx(INSIDE)
        assert found[0, 0] == pytest.approx(1 - corner, abs=1e-6)
        assert found[height // 2, width // 2] == pytest.approx(1, abs=1e-5)


def test_what_speaks_against_a_class_goes_on_doing_so_at_the_border():
    found = refine(torch.tensor([[[[-8.0, 0.0], [0.0, 0.0]]]]), [FEATURES])
    torch.testing.assert_close(found, torch.tensor([[[[-4.0, -4.0], [0.0, 0.0]]]]))


def test_two_steps_of_a_walk_between_cells():
    x = [math.cos(math.radians(30))] * 2 + [-2 * math.cos(math.radians(30))]
    features = torch.tensor([[[x], [[-0.5, 0.5, 0.0]]]])  # cosine 1/2 between the first two: 1/4 beside 1
    found = refine(torch.tensor([[[[25.0, 0.0, 5.0]]]]), [features])
    # One step gives 20 and 5, two give (4 * 20 + 5) / 5 and (20 + 4 * 5) / 5. Of the outer cells, a third of the width
    # each, 3/28 is border at the side, of all 1/14 above and below; two steps lead from the first to the second in 8 of
    # 25 walks.
    outer, middle = 25 / 28 * 13 / 14, 13 / 14
    expected = [17 * (17 * outer + 8 * middle) / 25, 8 * (8 * outer + 17 * middle) / 25, 5 * outer]
    torch.testing.assert_close(found, torch.tensor([[[expected]]]), atol=1e-5, rtol=0)


def test_a_finer_stage_tells_apart_what_the_first_takes_for_one():
    # Its four times as many cells are averaged to the first's: the upper left one from 6, 0, 0, 6 to 3, as the others
    # of its column; by columns, then, the finer stage says, and only a cell itself is alike in both.
    finer = torch.tensor([[[[6.0, 0, 0, 0], [0, 6, 0, 0], [3, 3, 0, 0], [3, 3, 0, 0]],
                           [[0.0, 0, 3, 3], [0, 0, 3, 3], [0, 0, 3, 3], [0, 0, 3, 3]]]])  # fmt: skip
    torch.testing.assert_close(affinity([FEATURES, finer])[0], torch.eye(4))


def test_a_signed_map_stays_in_its_range():
    score_map = torch.randn(1, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    random = torch.Generator().manual_seed(1)
    found = refine(score_map, [torch.randn(1, 5, 4, 6, generator=random), torch.randn(1, 3, 8, 12, generator=random)])
    assert found.shape == (1, 3, 4, 6)
    assert (found.amin((2, 3)) >= score_map.amin((2, 3)) - 1e-6).all()
    assert (found.amax((2, 3)) <= score_map.amax((2, 3)) + 1e-6).all()


def test_an_image_without_features_keeps_its_map_but_for_the_border():
    score_map = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(refine(score_map, [torch.ones(1, 3, 2, 2)]), INSIDE * score_map)


def test_a_run_is_refined_at_the_largest_scale(classifier):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    found = {}
    for name in ("none", "affinity"):
        localizer = Localizer(classifier, MapSpec("cam", (224, 320), refine=name))
        other, pixels = localizer.resize(image[:, ::-1].copy()), localizer.resize(image)
        [alone] = localizer.localize([pixels], [[[7]]])
        together = localizer.localize([other, other, pixels], [[[1], [2], [3]], [[4]], [[7]]])[2]
        np.testing.assert_array_equal(alone.maps, together.maps)
        found[name] = alone.maps[0]
    assert found["none"].shape == (10, 10)
    assert found["affinity"].shape == (20, 20)
    layers = [classifier.layer(stride) for stride in ("16", "8")]
    batch = torch.zeros((2, 3, 320, 320), dtype=torch.uint8)
    batch[0] = pixels[1]
    _, recorded = classifier.record(classifier.normalize(batch), frozenset(layers))
    stages = [recorded.maps[layer].detach()[:1] for layer in layers]
    expected = refine(torch.from_numpy(found["none"])[None, None], stages)[0, 0]
    np.testing.assert_allclose(found["affinity"], expected.numpy(), atol=1e-4)


def test_coherence_of_two_kinds_of_cells():
    # Cells of a kind are alike, of two kinds not at all. What follows the kinds stays as it is when it is spread; what
    # differs inside of a kind alone becomes constant.
    features = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]).reshape(1, 2, 2, 2).half()
    kinds, inside = torch.tensor([[1.0, 1], [0, 0]]), torch.tensor([[1.0, 0], [1, 0]])
    found = coherence(torch.stack([kinds, inside])[None], features)
    assert found.coherence[0].tolist() == [pytest.approx(1), pytest.approx(0, abs=1e-6)]
    assert found.agreement[0, 0].item() == pytest.approx(1)


def test_scale_and_offset_of_the_map_do_not_matter():
    score_map = torch.rand(1, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    straight, moved = (coherence(some, FEATURES) for some in (score_map, 7 * score_map - 3))
    torch.testing.assert_close(straight, moved)


def test_of_a_constant_map_nothing_is_known():
    found = coherence(torch.ones(1, 1, 2, 2), FEATURES)
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
    [look] = localizer._looks
    localizer._looks = [dataclasses.replace(look, layers=())]  # as of a network without a block at stride 16
    [found] = localizer.localize([localizer.resize(np.zeros((50, 50, 3), np.uint8))], [[[7]]])
    assert np.isnan(found.coherence).all()
    assert np.isnan(found.agreement).all()
