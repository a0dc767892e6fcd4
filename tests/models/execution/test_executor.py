import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from camboxes.models import Localizer, MapSpec, ModelSpec, class_maps, load_classifier
from camboxes.models.execution.executor import Executor, fast_layers, half_precision, is_near, resolve
from camboxes.models.execution.kernels import FusedConvolution
from camboxes.models.spec import Execution
from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map
from camboxes.transforms.boxes.stored_maps import quantize

CPU = torch.device("cpu")
needs_bf16 = pytest.mark.skipif(half_precision(CPU) is None, reason="this processor has no instructions for bf16")
IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def random_norm(norm):
    generator = torch.Generator().manual_seed(0)
    for values in (norm.weight, norm.bias, norm.running_mean):
        values.data.normal_(generator=generator)
    norm.running_var.uniform_(0.5, 2, generator=generator)
    return norm.eval()


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
    assert resolve(network, IMAGES, Execution("fp32", "auto")) == ("fp32", "off")
    with pytest.raises(ValueError, match="compile on: the layers of this network cannot be fused here; use compile"):
        resolve(network, IMAGES, Execution("fp32", "on"))


class NormFirst(nn.Module):
    """As DenseNet has them: norms in front of convolutions, of which some leave their maps in float32."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Sigmoid()), nn.Conv2d(32, 64, 3)
        self.norms = nn.ModuleList([random_norm(nn.BatchNorm2d(64)), nn.GroupNorm(4, 32), nn.LayerNorm([64, 10, 10])])
        self.middle = nn.Conv2d(64, 32, 1)

    def forward(self, images):
        return self.norms[2](self.last(self.norms[1](self.middle(self.norms[0](self.first(images))))))


@needs_bf16
def test_norms_that_are_not_fused_take_maps_of_either_precision():
    torch.manual_seed(0)
    network = NormFirst().eval()
    execution = resolve(network, IMAGES, Execution("bf16", "auto"))
    assert execution == ("bf16", "on")
    run = fast_layers(network, IMAGES, execution)
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


def test_a_network_that_needs_its_precision_is_told():
    assert is_near(nn.Identity(), IMAGES, Execution("bf16", "off"))
    assert not is_near(Overflowing(), IMAGES, Execution("bf16", "off"))
    assert resolve(Overflowing(), IMAGES, Execution("bf16", "off")) == ("bf16", "off")  # it was asked for


class Spectrum(nn.Module):
    """A transform that PyTorch has in float32 and in float64."""

    def forward(self, images):
        return torch.fft.rfft(images).abs()


def test_what_does_not_run_is_not_near():
    assert is_near(Spectrum(), IMAGES, Execution("fp32", "off"))
    assert not is_near(Spectrum(), IMAGES, Execution("bf16", "off"))


def test_half_precision_of_gpus_is_refused_on_a_cpu():
    with pytest.raises(ValueError, match="precision fp16 is for GPUs; on a CPU use bf16, fp32 or auto"):
        resolve(nn.Identity(), IMAGES, Execution("fp16", "auto"))


def test_a_cpu_gets_float32_where_nothing_is_timed():
    assert resolve(nn.Conv2d(3, 8, 1), IMAGES, Execution("auto", "auto")) == ("fp32", "on")
    assert resolve(nn.Identity(), IMAGES, Execution("auto", "off")) == ("fp32", "off")


def test_layers_are_not_fused_in_a_precision_that_a_cpu_only_emulates(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert half_precision(CPU) is None
    assert resolve(nn.Conv2d(3, 8, 1), IMAGES, Execution("bf16", "auto")) == ("bf16", "off")
    with pytest.raises(ValueError, match="compile on: this CPU only emulates bf16; use compile auto or off"):
        resolve(nn.Conv2d(3, 8, 1), IMAGES, Execution("bf16", "on"))


@pytest.fixture(scope="module", params=[pytest.param("on", marks=needs_bf16), "off"])
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
    network, images = nn.Conv2d(3, 4, 1).to("meta"), IMAGES.to("meta")
    with pytest.raises(ValueError, match="precision bf16: this GPU only emulates it; use fp16"):
        resolve(network, images, Execution("bf16", "off"))
    assert resolve(network, images, Execution("fp16", "off")) == ("fp16", "off")


def test_layers_that_are_left_open_or_plain_run_as_they_are():
    """So does everything without this package: see `test_boxes_are_the_same_without_this_package`."""
    network = nn.Conv2d(3, 4, 1)
    for execution in (Execution("auto", "on"), Execution("bf16", "auto"), Execution("fp32", "off")):
        assert Executor(execution).layers(network, lambda: IMAGES) is network


def test_layers_are_made_once_for_the_same_features():
    executing, asked = Executor(Execution("fp32", "on")), []

    def probe():
        asked.append(True)
        return IMAGES

    first, second = nn.Conv2d(3, 40, 1).train(), nn.Conv2d(3, 40, 1)
    made = executing.layers(first, probe)
    assert made is not first and executing.layers(first, probe) is made and len(asked) == 1
    assert first.training and type(first) is nn.Conv2d and first.weight.dtype == torch.float32
    assert executing.layers(second, probe) is not made


@pytest.mark.parametrize(
    "maps", [MapSpec("cam"), MapSpec("cam*layercam@16+layercam@32[-2]", refine="affinity")], ids=str
)
def test_boxes_are_the_same_without_this_package(photographs, maps):
    """Boxes of photographs from fused layers, and from the network's own layers, both in float32."""
    found = {}
    for compilation in ("on", "off"):
        localizer = Localizer(load_classifier(ModelSpec(precision="fp32", compile=compilation, batch_size=1)), maps)
        executed = localizer.classifier._executed()
        for path in sorted(photographs.glob("*/*")):
            photograph = np.array(Image.open(path).convert("RGB"))
            height, width = photograph.shape[:2]
            classes = [range(1000)]  # the strongest one
            [localization] = localizer.localize([localizer.resize(photograph)], [classes])
            drawn = boxes_from_map(quantize(localization.maps[0]), width, height, BoxRule(boxes="all"))
            found.setdefault(compilation, []).append((localization.class_ids, drawn.boxes))
        assert (executed is localizer.classifier._recorder.features) == (compilation == "off")
    assert len(found["on"]) == 5
    for (classes, boxes), (same_classes, same_boxes) in zip(found["on"], found["off"], strict=True):
        assert classes == same_classes and len(boxes) == len(same_boxes) > 0
        for box, same in zip(boxes, same_boxes, strict=True):
            np.testing.assert_allclose(box.bbox, same.bbox, atol=0.01)
            np.testing.assert_allclose(box.mean, same.mean, atol=0.01)


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_sixteen_bits(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert half_precision(torch.device("cuda")) == expected
