"""Labels of one image that compete for its cells, by hand."""

import numpy as np
import torch

from camboxes.models import Localizer, MapSpec
from camboxes.models.localization.fusion import claims, compete, fuse


def test_each_label_keeps_its_share_of_a_cell():
    maps = torch.tensor([[[1.0, 0.5, 0.0]], [[0.0, 0.5, 1.0]]])
    # 1 · 1 / (1 + 1/24) alone in a cell; 1/2 · 1/16 / (1/16 + 1/16 + 1/24) where both claim a half.
    expected = torch.tensor([[[24 / 25, 3 / 16, 0.0]], [[0.0, 3 / 16, 24 / 25]]])
    torch.testing.assert_close(compete(maps, maps), expected)


def test_the_share_is_that_of_the_claim():
    maps = torch.tensor([[[1.0, 0.5, 0.0]], [[1.0, 1.0, 0.0]]])
    claimed = torch.tensor([[[2.0, 0.0, 0.0]], [[0.0, 3.0, 3.0]]])  # scaled: 1 0 0 and 0 1 1
    expected = torch.tensor([[[24 / 25, 0.0, 0.0]], [[0.0, 24 / 25, 0.0]]])
    torch.testing.assert_close(compete(maps, claimed), expected)


def test_the_first_map_of_a_product_claims_twice():
    first, second = torch.tensor([[[[0.0, 0.5, 1.0]]]]), torch.tensor([[[[1.0, 0.25, 0.0]]]])
    torch.testing.assert_close(claims([(1, [first, second])])[0, 0, 0] ** 3, torch.tensor([0.0, 1 / 16, 0.0]))
    both = claims([(1, [first, second]), (3, [second])])[0, 0, 0]
    torch.testing.assert_close(both, torch.tensor([0.75, (0.25 ** (2 / 3) + 3 * 0.25) / 4, 0.0]))


def test_maps_are_scaled_before_they_compete():
    # The first is 2 to 6, the second -1 to 1: both 0, 1/2, 1 and 1, 0, 0 when scaled.
    maps = torch.tensor([[[2.0, 4.0, 6.0]], [[1.0, -1.0, -1.0]]])
    torch.testing.assert_close(compete(maps, maps), torch.tensor([[[0.0, 0.3, 24 / 25]], [[24 / 25, 0.0, 0.0]]]))


def test_a_map_that_speaks_against_its_class_takes_nothing():
    maps = torch.tensor([[[0.0, 1.0]], [[-2.0, -1.0]]])
    torch.testing.assert_close(compete(maps, maps), torch.tensor([[[0.0, 24 / 25]], [[0.0, 0.0]]]))


def test_one_label_has_no_rival():
    alone = torch.tensor([[[-3.0, 5.0]]])
    assert compete(alone, alone) is alone


def test_only_labels_of_the_same_image_compete(classifier):
    image = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    plain, competing = (Localizer(classifier, MapSpec(compete=some)) for some in (False, True))
    pixels = plain.resize(image)
    labels = [[[7]], [[7], [8], [9]]]
    before, after = (some.localize([pixels, pixels], labels) for some in (plain, competing))
    np.testing.assert_array_equal(after[0].maps, before[0].maps)
    own = torch.from_numpy(before[1].maps)
    np.testing.assert_allclose(after[1].maps, compete(own, own).numpy(), atol=1e-6)
    assert not np.allclose(after[1].maps, before[1].maps)


def test_where_labels_compete_a_scale_counts_by_its_size(classifier):
    photograph = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)
    labels = [[[7]], [[1], [2]]]
    found = {}
    for scales in ((224,), (448,), (224, 448)):
        localizer = Localizer(classifier, MapSpec(scales=scales, compete=len(scales) > 1))
        found[scales] = localizer.localize([localizer.resize(photograph)] * 2, labels)
    for image, weight in ((0, 1), (1, 2)):
        small, large = (torch.from_numpy(found[scale,][image].maps)[None] for scale in (224, 448))
        fused = fuse([(1, [small]), (weight, [large])])[0]
        expected = compete(fused, fused)
        np.testing.assert_allclose(found[224, 448][image].maps, expected.numpy(), atol=1e-4)
