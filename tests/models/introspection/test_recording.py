import pytest
import torch
from torch import nn

from camboxes.models.introspection.parts import take_apart
from camboxes.models.introspection.probing import noise
from camboxes.models.introspection.recording import Recorder


class Halving(nn.Module):
    """Blocks that add 1 and halve the maps: two at stride 1, one at stride 2."""

    def __init__(self):
        super().__init__()
        self.early = nn.ModuleList([_block(1), _block(1)])
        self.late = _block(2)
        self.fc = nn.Linear(3, 2)

    def forward(self, images):
        for block in self.early:
            images = block(images)
        return self.fc(self.late(images).mean((2, 3)))


def _block(stride):
    """Two convolutions that copy their input; the second one adds 1."""
    block = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1, stride))
    for convolution in block:
        convolution.weight.data = torch.eye(3)[:, :, None, None]
    block[1].bias.data.fill_(1)
    return block


@pytest.fixture
def recorder():
    network = Halving().eval()
    return Recorder(network, take_apart(network, "halving", noise(network, 8)), 8)


def test_blocks_by_stride(recorder):
    assert recorder.blocks == {1: ["early.0", "early.1"], 2: ["late"]}
    assert [recorder.layer(wanted) for wanted in ("1", "1[-2]", "2", "late.0")] == [
        "early.1", "early.0", "late", "late.0",
    ]  # fmt: skip
    assert recorder.names == {"1": "early.1", "1[-2]": "early.0", "2": "late", "late.0": "late.0"}


def test_maps_and_gradients_by_hand(recorder):
    """d (5 x) / d x, where the maps of a block are changed no more than by adding numbers."""
    names = frozenset([recorder.layer("early.0"), recorder.layer("late")])
    images = torch.rand(1, 3, 8, 8)
    with recorder.recording(names, images.shape[2:], names) as found:
        last = recorder.features(images)
        (gradient,) = torch.autograd.grad(5 * last.sum(), found.maps["early.0"])
    torch.testing.assert_close(found.maps["early.0"].detach(), images + 1)
    torch.testing.assert_close(found.maps["late"].detach(), images[:, :, ::2, ::2] + 3)
    expected = torch.zeros(1, 3, 8, 8)
    expected[:, :, ::2, ::2] = 5
    torch.testing.assert_close(gradient, expected)


def test_a_layer_that_cannot_be_recorded_changes_nothing(recorder):
    features = recorder.features
    for wanted, message in [
        ("fc", "lies behind the last feature maps"),
        ("nothing", "the network has none of this name"),
        ("4", "no layer at stride 4; this network has layers at 1, 2"),
        ("1[-3]", r"layer 1\[-3\]: at this stride the network has early.0, early.1 alone"),
    ]:
        with pytest.raises(ValueError, match=message):
            recorder.layer(wanted)
    assert recorder.features is features and not recorder.names


def test_modes_of_training_are_restored(recorder):
    recorder.network.early[1].train()
    name = recorder.layer("early.1")
    with recorder.recording(frozenset([name]), (8, 8)):
        assert not any(part.training for part in recorder.modules())
    training = {name for name, part in recorder.network.named_modules() if part.training}
    assert training == {"early.1", "early.1.0", "early.1.1"}
