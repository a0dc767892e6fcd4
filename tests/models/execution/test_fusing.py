import copy
import gc

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from camboxes.models.execution import kernels
from camboxes.models.execution.executor import fast_layers, resolve
from camboxes.models.execution.fusing import fold, fuse
from camboxes.models.execution.kernels import FusedConvolution
from camboxes.models.introspection.recording import Tap, tapped
from camboxes.models.spec import Execution


def random_norm(norm):
    generator = torch.Generator().manual_seed(0)
    for values in (norm.weight, norm.bias, norm.running_mean):
        values.data.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm.eval()


class Block(nn.Module):
    """Layers as networks have them: an activation used twice, one of timm's norms, a sum around a convolution."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 40, 3, padding=1, bias=False)
        self.norm = random_norm(nn.BatchNorm2d(40))
        self.relu = nn.ReLU(inplace=True)
        self.inner = nn.Conv2d(40, 40, 3, padding=1, groups=40)
        self.both = random_norm(BatchNormAct2d(40, act_layer=nn.SiLU))
        self.lone = nn.Conv2d(40, 8, 1)
        self.late = nn.ReLU6()

    def forward(self, images):
        before = self.relu(self.norm(self.stem(images)))
        return self.late(self.lone(self.relu(before + self.both(self.inner(before)))))


IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def test_the_layers_of_a_block_are_fused_and_give_the_same():
    network = Block().eval()
    fused = copy.deepcopy(network)
    with torch.no_grad():
        fuse(fused, IMAGES, torch.float32)
        torch.testing.assert_close(fused(IMAGES), network(IMAGES), rtol=1e-4, atol=1e-4)
    kinds = {name: type(layer) for name, layer in fused.named_children()}
    assert [name for name, kind in kinds.items() if kind is FusedConvolution] == ["stem", "inner", "lone"]
    assert [name for name, kind in kinds.items() if kind is nn.Identity] == ["norm", "both", "late"]
    assert kinds["relu"] is nn.ReLU  # the sum needs it still


def test_gradients_go_through_layers_that_change_their_input_in_place():
    network = Block().eval()
    fused = copy.deepcopy(network)
    with torch.no_grad():
        fuse(fused, IMAGES, torch.float32)
    found = []
    for run in (network, fused):
        images = IMAGES.clone().requires_grad_()
        run(images).square().sum().backward()
        found.append(images.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-3)


class SameBlock(Block):
    """Whose first convolution is padded as it runs."""

    def __init__(self):
        super().__init__()
        self.stem = Conv2dSame(3, 40, 3, stride=2, bias=False)


@pytest.mark.parametrize("kind", [Block, SameBlock])
def test_folded_norms_leave_values_and_gradients_as_they_were(kind):
    network = kind().eval()
    folded = copy.deepcopy(network)
    with torch.no_grad():
        fold(folded, IMAGES)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    assert [type(folded.stem), type(folded.both)] == [type(network.stem), nn.SiLU]
    values, gradients = [], []
    for run in (network, folded):
        images = IMAGES.clone().requires_grad_()
        values.append(run(images))
        gradients.append(torch.autograd.grad(values[-1].square().sum(), images)[0])
    torch.testing.assert_close(values[1], values[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-4)


def test_on_a_gpu_norms_are_folded_and_nothing_else():
    """The device "meta", where nothing is computed, stands for it."""
    network = fast_layers(Block().eval().to("meta"), IMAGES.to("meta"), Execution("fp16", "on"))
    assert network(IMAGES.to("meta")).dtype == torch.float16
    kinds = {type(layer) for layer in network.modules()}
    assert nn.Conv2d in kinds and not kinds & {FusedConvolution, nn.BatchNorm2d, BatchNormAct2d}


@pytest.mark.parametrize("layer", ["stem", "norm", "relu", "inner", "both", "both.act", "lone", "late"])
def test_a_tap_shows_what_the_layer_gives(layer):
    network = Block().eval()
    features = nn.Module()
    features.network = network
    expected, found = [], []
    hook = network.get_submodule(layer).register_forward_hook(lambda *told: expected.append(told[2].clone()))
    network(IMAGES)
    hook.remove()
    shown = tapped(features, layer)
    with torch.no_grad():
        run = fast_layers(shown.network, IMAGES, Execution("fp32", "on"))
    [tap] = [part for part in run.modules() if isinstance(part, Tap)]
    tap.register_forward_hook(lambda *told: found.append(told[2].clone()))
    with torch.inference_mode():
        run(IMAGES)
    assert len(expected) == len(found) > 0
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class Residual(nn.Module):
    """Blocks as ResNet has them: one rectifier for all of a block, and maps that are added to a convolution's."""

    def __init__(self, spread=False):
        super().__init__()
        self.first, self.second, self.beside = (nn.Conv2d(64, 64, 3, padding=1) for _ in range(3))
        self.first_norm, self.second_norm = (random_norm(nn.BatchNorm2d(64)) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)
        self.spread = spread

    def forward(self, images):
        images = self.relu(self.first_norm(self.first(images)))
        beside = self.beside(images).mean((2, 3), keepdim=True) if self.spread else self.beside(images)
        found = self.second_norm(self.second(images))
        found += beside
        return self.relu(found)


class TimmResidual(Residual):
    """As timm has them, which are not traced: a rectifier each, and something behind a norm that does nothing."""

    def __init__(self):
        super().__init__()
        self.nothing, self.late = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, images):
        images = self.relu(self.nothing(self.first_norm(self.first(images))))
        found = self.second_norm(self.second(images))
        found += self.beside(images)
        return self.late(found)


def test_a_sum_in_place_stands_between_a_convolution_and_a_rectifier():
    """Though the rectifier gets the very tensor that the norm gave."""
    torch.manual_seed(0)
    images = torch.randn(2, 64, 9, 7).contiguous(memory_format=torch.channels_last)
    network = TimmResidual().eval()
    fused = copy.deepcopy(network)
    fuse(fused, images, torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), network(images), rtol=1e-4, atol=1e-4)
    assert [type(fused.first.activation), type(fused.second.activation)] == [nn.ReLU, nn.Identity]
    assert [type(fused.relu), type(fused.late)] == [nn.Identity, nn.ReLU]


class Doubling(nn.Module):
    """What a rectifier gives is changed in place, of which gradients of fused layers would know nothing."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 40, 3), nn.Conv2d(40, 40, 1)
        self.norm, self.both = random_norm(nn.BatchNorm2d(40)), random_norm(BatchNormAct2d(40, act_layer=nn.ReLU6))
        self.relu = nn.ReLU6()

    def forward(self, images):
        images = self.relu(self.norm(self.first(images)))
        images *= 2
        images = self.both(self.second(images))
        images *= 2
        return images


def test_a_rectifier_whose_output_is_changed_in_place_is_not_fused():
    torch.manual_seed(0)
    network = Doubling().eval()
    fused = copy.deepcopy(network)
    fuse(fused, IMAGES, torch.float32)
    assert [type(fused.first.activation), type(fused.second.activation)] == [nn.Identity, nn.Identity]
    gradients = []
    for run in (network, fused):
        images = IMAGES.clone().requires_grad_()
        gradients.append(torch.autograd.grad(run(images).square().sum(), images)[0])
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


def test_padding_that_kernels_do_not_have_is_left_as_it_is():
    """Of 2 x 2 in steps of 2 a line more behind the maps would take two more in front, where kernels reach one."""
    network = nn.Sequential(Conv2dSame(3, 8, 2, stride=2), nn.ReLU())
    fused = copy.deepcopy(network)
    fuse(fused, IMAGES, torch.float32)
    assert [type(layer) for layer in fused] == [Conv2dSame, nn.ReLU]


def traced(network, images):
    module = fx.symbolic_trace(network)
    ShapeProp(module).propagate(images)
    return module


@pytest.mark.parametrize("spread", [False, True])
def test_a_traced_network_with_one_rectifier_gives_the_same(spread):
    torch.manual_seed(0)
    images = torch.randn(2, 64, 9, 7).contiguous(memory_format=torch.channels_last)
    network = Residual(spread).eval()
    fused = traced(copy.deepcopy(network), images)
    fuse(fused, images, torch.float32)
    assert [type(getattr(fused, name)) for name in ("first", "second", "beside")] == [FusedConvolution] * 3
    theirs, ours = (images.clone().requires_grad_() for _ in range(2))
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), network(images), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(fused(images), fused(ours.detach()))
    for given, run in ((theirs, network), (ours, fused)):
        run(given).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-2)


def test_networks_that_are_tried_are_freed_at_once():
    """Traced ones are circles, and the collector of garbage may rest."""

    def packed():
        return sum(type(each) is kernels._Packed for each in gc.get_objects())

    images = torch.randn(2, 64, 9, 7)
    network = traced(Residual().eval(), images)
    gc.collect()
    gc.disable()
    try:
        before = packed()
        assert resolve(network, images, Execution("fp32", "auto")) == ("fp32", "on")
        assert packed() == before
        run = fast_layers(network, images, Execution("fp32", "on"))
        assert packed() > before
    finally:
        gc.enable()
    assert run(images).shape == images.shape
