import pytest
import torch
from torch import nn

from camboxes.models.introspection.parts import LinearHead, linear_head

FEATURES = torch.tensor([[[[1.0, 3.0]], [[0.0, 2.0]]]])  # means of two channels: 2 and 1


def _layer(bias):
    layer = nn.Linear(2, 3, bias=bias)
    layer.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
    if bias:
        layer.bias.data = torch.tensor([0.5, 0.0, -1.0])
    return layer


@pytest.mark.parametrize(("bias", "logits"), [(True, [[2.5, 1.0, 2.0]]), (False, [[2.0, 1.0, 3.0]])])
def test_a_layer_behind_the_pooled_maps_by_hand(bias, logits):
    found = linear_head(_layer(bias), FEATURES, torch.tensor(logits))
    assert isinstance(found, LinearHead)
    assert found.logits(FEATURES).tolist() == logits
    assert not found.weight.requires_grad and not found.bias.requires_grad


def test_maps_of_the_classes_themselves():
    found = linear_head(None, FEATURES, torch.tensor([[2.0, 1.0]]))
    assert found.weight is None and found.logits(FEATURES).tolist() == [[2.0, 1.0]]


def test_logits_of_another_kind_are_told_by_how_far_they_are():
    found = linear_head(_layer(bias=True), FEATURES, torch.tensor([[2.5, 1.0, 4.0]]))
    assert found.endswith("they differ by up to 2 where the largest is 4")


@pytest.mark.parametrize(("head", "classes"), [(None, 3), (nn.Linear(5, 3), 3)], ids=["no layer", "a hidden layer"])
def test_a_head_of_another_shape(head, classes):
    assert linear_head(head, FEATURES, torch.ones(1, classes)).startswith("a hidden layer, a norm or another kind")
