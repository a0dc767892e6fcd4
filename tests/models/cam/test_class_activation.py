import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from camboxes.models import class_activation_maps


def test_the_sum_of_weighted_features_by_hand():
    features = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    weight = torch.tensor([[1.0, 10.0], [-1.0, 2.0], [0.5, 0.0]])
    maps = class_activation_maps(features, weight, torch.tensor([[0, 1, 2]]))
    assert maps.tolist() == [[[[1, 12], [13, 4]], [[-1, 0], [-1, -4]], [[0.5, 1], [1.5, 2]]]]


def test_images_of_one_batch_may_ask_for_different_classes():
    features = torch.tensor([[[[1.0]], [[2.0]]], [[[3.0]], [[4.0]]]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    maps = class_activation_maps(features, weight, torch.tensor([[0, 1], [1, 1]]))
    assert maps.flatten(1).tolist() == [[1, 2], [4, 4]]


def test_no_labels_give_no_maps():
    maps = class_activation_maps(torch.ones(2, 3, 7, 5), torch.ones(4, 3), torch.zeros(2, 0, dtype=torch.int64))
    assert maps.shape == (2, 0, 7, 5)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_wrong_class_id_is_an_error_that_names_it(wrong):
    with pytest.raises(ValueError, match=rf"class id {wrong} is not among the network's 3 classes, 0 to 2"):
        class_activation_maps(torch.ones(1, 2, 2, 2), torch.ones(3, 2), torch.tensor([[0, wrong]]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))
def test_equation_1_the_mean_of_a_map_is_the_logit(seed, count, channels, height, width):
    generator = torch.Generator().manual_seed(seed)
    features = torch.rand(count, channels, height, width, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, channels, generator=generator, dtype=torch.float64)
    logits = features.mean((2, 3)) @ weight.T
    maps = class_activation_maps(features, weight, torch.arange(4).repeat(count, 1))
    np.testing.assert_allclose(maps.mean((2, 3)), logits, atol=1e-12)


def test_a_map_does_not_depend_on_its_neighbours_labels(classifier):
    features = torch.rand(8, 1280, 7, 7, generator=torch.Generator().manual_seed(0))
    features = features.contiguous(memory_format=torch.channels_last)
    alone = class_activation_maps(features, classifier.weight, torch.full((8, 1), 285))
    among = class_activation_maps(features, classifier.weight, torch.tensor([[3, 285, 9, 40, 7]] * 8))
    assert torch.equal(alone[:, 0], among[:, 1])
