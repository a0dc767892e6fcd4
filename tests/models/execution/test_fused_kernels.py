import copy
import gc
import math

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional

from camboxes.models import ModelSpec, class_maps, load_classifier
from camboxes.models.execution import executable, fused_kernels
from camboxes.models.execution.executable import resolve
from camboxes.models.execution.fused_kernels import FusedConvolution, FusedSameConvolution, FusedSum, fold, fuse
from camboxes.models.introspection.taps import Tap, tapped


def random_norm(norm):
    generator = torch.Generator().manual_seed(0)
    for values in (norm.weight, norm.bias, norm.running_mean):
        values.data.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm.eval()


def test_one_number_by_hand():
    convolution, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0).eval()
    with torch.no_grad():
        convolution.weight.fill_(3), convolution.bias.fill_(1)
        norm.weight.fill_(2), norm.bias.fill_(-4), norm.running_mean.fill_(5), norm.running_var.fill_(4)
    fused = FusedConvolution(convolution, norm, nn.ReLU6(), torch.float32)
    # 2 (3x + 1 - 5) / sqrt(4) - 4 = 3x - 8
    images = torch.tensor([[[[1.0, 3.0, 10.0]]]])
    assert fused(images).flatten().tolist() == [0, 1, 6]
    images.requires_grad_()
    fused(images).sum().backward()
    assert images.grad.flatten().tolist() == [0, 3, 0]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6(), nn.SiLU(), nn.Hardswish(), None], ids=str)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.Conv2d, {"padding": 1, "stride": 2}),
        (nn.Conv2d, {"padding": 2, "stride": 2, "dilation": 2}),
        (nn.Conv2d, {"padding": 1, "groups": 8, "bias": False}),
        (nn.Conv2d, {"groups": 4}),
        (nn.Conv2d, {"padding": (0, 1), "stride": (1, 2)}),
        (Conv2dSame, {"stride": 2, "groups": 8}),
        (Conv2dSame, {"stride": 2, "kernel_size": 2}),
        (Conv2dSame, {"stride": 3, "kernel_size": (5, 1)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [15, 16])
def test_values_and_gradients_are_those_of_the_three_layers(kind, options, activation, size):
    torch.manual_seed(0)
    convolution, norm = kind(8, 16, **{"kernel_size": 3, **options}), random_norm(nn.BatchNorm2d(16))
    fuse_layers = FusedSameConvolution if kind is Conv2dSame else FusedConvolution
    fused = fuse_layers(convolution, norm, activation, torch.float32)
    images = torch.randn(2, 8, size, size + 3).contiguous(memory_format=torch.channels_last)
    theirs, ours = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected = norm(convolution(theirs))
    expected = activation(expected) if activation else expected
    towards = torch.randn_like(expected)
    (expected * towards).sum().backward()
    found = fused(ours)
    (found * towards).sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), expected, rtol=1e-4, atol=1e-4)


def test_weights_are_laid_out_for_every_size_of_maps_but_not_kept_for_each():
    """Of so many channels oneDNN's layout depends on the size: with AVX-512 two serve these twelve sizes."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(1280, 320, 1).requires_grad_(False)
    fused = FusedConvolution(convolution, None, None, torch.float32)
    for images, side in [(1, 14), (4, 7), *((1, side) for side in range(5, 25, 2))]:
        maps = torch.randn(images, 1280, side, side).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(fused(maps), convolution(maps), rtol=1e-4, atol=1e-4)
    assert len(fused._packed._layouts) <= 4


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
    network = executable.executable(Block().eval().to("meta"), IMAGES.to("meta"), "fp16", "on")
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
        run = executable.executable(shown.network, IMAGES, "fp32", "on")
    [tap] = [part for part in run.modules() if isinstance(part, Tap)]
    tap.register_forward_hook(lambda *told: found.append(told[2].clone()))
    with torch.inference_mode():
        run(IMAGES)
    assert len(expected) == len(found) > 0
    for theirs, ours in zip(expected, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


class UsedTwice(nn.Module):
    """What the convolution gives is used by a function, too, which no layer tells."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 1)
        self.activation = nn.ReLU()

    def forward(self, images):
        maps = self.convolution(images)
        return self.activation(maps) - maps


def test_layers_that_cannot_be_fused_are_left_as_they_are():
    network = UsedTwice().eval()
    assert resolve(network, IMAGES, "fp32", "auto") == ("fp32", "off")
    with pytest.raises(ValueError, match="compile on: the layers of this network cannot be fused here; use --compile"):
        resolve(network, IMAGES, "fp32", "on")


class NormFirst(nn.Module):
    """As DenseNet has them: norms in front of convolutions, of which some leave their maps in float32."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Sigmoid()), nn.Conv2d(32, 64, 3)
        self.norms = nn.ModuleList([random_norm(nn.BatchNorm2d(64)), nn.GroupNorm(4, 32), nn.LayerNorm([64, 10, 10])])
        self.middle = nn.Conv2d(64, 32, 1)

    def forward(self, images):
        return self.norms[2](self.last(self.norms[1](self.middle(self.norms[0](self.first(images))))))


def test_norms_that_are_not_fused_take_maps_of_either_precision():
    torch.manual_seed(0)
    network = NormFirst().eval()
    precision, compilation = resolve(network, IMAGES, "bf16", "auto")
    assert (precision, compilation) == ("bf16", "on")
    run = executable.executable(network, IMAGES, precision, compilation)
    assert type(run.norms[0]) is nn.BatchNorm2d and type(run.middle) is FusedConvolution and run.middle.widened
    images = IMAGES.clone().requires_grad_()
    found, expected = run(images), network(images)
    torch.testing.assert_close(found.float(), expected, rtol=0.1, atol=0.1)
    towards = torch.randn_like(expected)
    gradients = [torch.autograd.grad((output * towards).sum(), images)[0] for output in (found, expected)]
    assert functional.cosine_similarity(*(gradient.flatten() for gradient in gradients), dim=0) > 0.99


class Overflowing(nn.Module):
    """A difference that bfloat16 has no digits for."""

    def forward(self, images):
        return (images + 1000) - 1000


def test_a_network_that_needs_its_precision_keeps_it(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert resolve(nn.Identity(), IMAGES, "auto", "off") == ("bf16", "off")
    assert resolve(Overflowing(), IMAGES, "auto", "off") == ("fp32", "off")
    assert resolve(Overflowing(), IMAGES, "bf16", "off") == ("bf16", "off")


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "precision"),
    [
        ("AuthenticAMD", 26, "avx512f avx512_bf16", "bf16"),  # Zen 5
        ("AuthenticAMD", 27, "avx512_bf16", "bf16"),
        ("AuthenticAMD", 26, "avx512f avx512_bf16x", "fp32"),
        ("AuthenticAMD", 25, "avx512f avx512_bf16", "fp32"),
        ("GenuineIntel", 26, "avx512f avx512_bf16", "fp32"),
    ],
)
def test_bfloat16_without_amx_is_for_the_processors_that_are_faster_with_it(
    vendor, family, flags, precision, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(executable, "_CPUINFO", tmp_path / "cpuinfo")
    core = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel name\t: X: Y\nflags\t\t: {flags}\n\n"
    (tmp_path / "cpuinfo").write_text(2 * core)
    assert resolve(Block().eval(), IMAGES, "auto", "auto") == (precision, "on")


def test_a_processor_that_says_nothing_of_itself_gets_float32(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for text in (None, "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n"):  # macOS; Arm
        monkeypatch.setattr(executable, "_CPUINFO", tmp_path / str(text is None))
        if text:
            (tmp_path / "False").write_text(text)
        assert resolve(Block().eval(), IMAGES, "auto", "auto") == ("fp32", "on")


def test_half_precision_of_gpus_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="precision fp16 is for GPUs; on a CPU use bf16, fp32 or auto"):
        resolve(nn.Identity(), IMAGES, "fp16", "auto")


@pytest.fixture(scope="module", params=["on", "off"])
def rounded(request):
    return load_classifier(ModelSpec(precision="bf16", compile=request.param))


def test_maps_in_bfloat16_are_near_those_in_float32(classifier, rounded):
    from skimage import data

    assert (rounded.spec.precision, classifier.spec.precision) == ("bf16", "fp32")
    assert next(rounded.network.parameters()).dtype == torch.float32  # the network itself stays as it is
    images = classifier.preprocessing.resize(data.chelsea())[None]
    ids = torch.tensor([[285]])
    for method in ("cam", "layercam@16"):
        expected = class_maps(classifier, classifier.normalize(images), ids, method)
        found = class_maps(rounded, rounded.normalize(images), ids, method)
        assert found.dtype == torch.float32
        assert math.sqrt((found - expected).square().mean() / expected.square().mean()) < 0.1
    assert int(rounded.infer(images).logits.argmax()) == 285


def test_a_new_layer_is_shown_after_the_network_has_run(rounded):
    images = torch.zeros(1, 3, 224, 224)
    before = rounded(images).logits
    name = rounded.layer("blocks.2")
    activations, found = rounded.record(images, frozenset([name]))
    assert found.maps[name].shape == (1, 40, 28, 28)
    assert torch.equal(activations.logits, before)


@pytest.mark.skipif(torch.cuda.is_available(), reason="its GPU may multiply bf16")
def test_bf16_that_is_only_emulated_is_refused():
    """On the device "meta" nothing is computed, and no GPU here multiplies bf16."""
    network, images = Block().eval().to("meta"), IMAGES.to("meta")
    with pytest.raises(ValueError, match="precision bf16: this GPU only emulates it; use fp16"):
        resolve(network, images, "bf16", "off")
    assert resolve(network, images, "fp16", "off") == ("fp16", "off")


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


def traced(network, images):
    module = fx.symbolic_trace(network)
    ShapeProp(module).propagate(images)
    return module


@pytest.mark.parametrize("spread", [False, True])
def test_sums_are_part_of_a_kernel_and_a_rectifier_is_called_no_more_than_needed(spread):
    torch.manual_seed(0)
    images = torch.randn(2, 64, 9, 7).contiguous(memory_format=torch.channels_last)
    network = Residual(spread).eval()
    fused = traced(copy.deepcopy(network), images)
    fuse(fused, images, torch.float32)
    calls = [type(fused.get_submodule(node.target)) for node in fused.graph.nodes if node.op == "call_module"]
    assert calls.count(FusedSum) == (0 if spread else 1)
    assert calls.count(nn.ReLU) == (1 if spread else 0)
    theirs, ours = (images.clone().requires_grad_() for _ in range(2))
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), network(images), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(fused(images), fused(ours.detach()))
    for given, run in ((theirs, network), (ours, fused)):
        run(given).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-2)


def test_a_convolution_that_is_shown_is_no_part_of_a_sum():
    torch.manual_seed(0)
    images = torch.randn(2, 64, 9, 7).contiguous(memory_format=torch.channels_last)
    module = traced(Residual().eval(), images)
    for node in module.graph.nodes:
        node.meta["path"] = node.name
    shown = tapped(tapped(module, "second"), "beside")
    fuse(shown, images, torch.float32)
    assert not any(isinstance(part, FusedSum) for part in shown.modules())


def test_a_sum_of_another_kind_is_no_part_of_a_kernel():
    class Weighted(Residual):
        def forward(self, images):
            images = self.relu(self.first_norm(self.first(images)))
            return self.relu(torch.add(self.second_norm(self.second(images)), self.beside(images), alpha=2))

    torch.manual_seed(0)
    images = torch.randn(2, 64, 9, 7).contiguous(memory_format=torch.channels_last)
    network = Weighted().eval()
    fused = traced(copy.deepcopy(network), images)
    fuse(fused, images, torch.float32)
    with torch.inference_mode():
        torch.testing.assert_close(fused(images), network(images), rtol=1e-4, atol=1e-4)


def test_networks_that_are_tried_are_freed_at_once():
    """Traced ones are circles, and the collector of garbage may rest."""

    def packed():
        return sum(type(each) is fused_kernels._Packed for each in gc.get_objects())

    images = torch.randn(2, 64, 9, 7)
    network = traced(Residual().eval(), images)
    gc.collect()
    gc.disable()
    try:
        before = packed()
        assert resolve(network, images, "bf16", "auto") == ("bf16", "on")
        assert packed() == before
        run = executable.executable(network, images, "bf16", "on")
        assert packed() > before
    finally:
        gc.enable()
    assert run(images).shape == images.shape
