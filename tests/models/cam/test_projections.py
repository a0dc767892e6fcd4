import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from captum.attr import Deconvolution, GuidedBackprop
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import nn
from torch.nn import functional

from camboxes.models import Localizer, MapSpec, ModelSpec, class_maps
from camboxes.models.cam.projections import PROJECTIONS, project, saliency
from camboxes.models.classifier import Classifier
from camboxes.models.networks.by_name import empty_network
from camboxes.models.networks.preprocessing import Preprocessing

CAPTUM = {"deconvnet": Deconvolution, "guidedbackprop": GuidedBackprop}


def _classifier(network, size=4):
    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), size, "bilinear")
    return Classifier(network.eval(), plain, ModelSpec("tiny", size=size, device="cpu", batch_size=2))


def _convolution(rows):
    layer = nn.Conv2d(len(rows[0]), len(rows), 1, bias=False)
    layer.weight.data = torch.tensor(rows, dtype=torch.float32)[:, :, None, None]
    return layer


def _two_layers(rectifier):
    """Red and green, rectified; what one has more than the other, rectified; their means, weighted 1 and 2."""
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data = torch.tensor([[1.0, 2.0]])
    return nn.Sequential(_convolution([[1, 0, 0], [0, 1, 0]]), rectifier(), _convolution([[1, -1], [-1, 1]]),
                         rectifier(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)  # fmt: skip


# Red and green of four pixels. The last differences are (2, -2), (-3, 3), (1, -1) and (9, -9).
PIXELS = torch.tensor([[3.0, 1], [0.5, 3.5], [1, -1], [9, -1]]).T.reshape(1, 2, 2, 2)
IMAGE = torch.cat([PIXELS, torch.zeros(1, 1, 2, 2)], 1)


@pytest.mark.parametrize(
    ("method", "rectifier", "expected"),
    [
        # (1, 2) arrives everywhere, (1 - 2, 2 - 1) behind the second convolution.
        ("deconvnet", nn.ReLU, [[0, 1], [0, 1], [0, 1], [0, 1]]),
        ("deconvnet", nn.ReLU6, [[0, 1], [0, 1], [0, 1], [0, 1]]),
        # (1, 0) passes where red is more, (0, 2) where green is.
        ("guidedbackprop", nn.ReLU, [[1, 0], [0, 2], [1, 0], [1, 0]]),
        ("guidedbackprop", nn.ReLU6, [[1, 0], [0, 2], [1, 0], [0, 0]]),  # red is clipped in the last pixel
    ],
)
def test_two_layers_by_hand(method, rectifier, expected):
    [found] = project(_classifier(_two_layers(rectifier), 2), IMAGE, torch.tensor([[0]]), method)
    np.testing.assert_allclose(found[0, :2].flatten(1).T, np.array(expected) / 4, atol=1e-7)
    assert found[0, 2].abs().max() == 0


@pytest.mark.parametrize("method", PROJECTIONS)
def test_max_pooling_has_switches(method):
    network = nn.Sequential(_convolution([[1, 0, 0]]), nn.ReLU(), nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1),
                            nn.Flatten(), nn.Linear(1, 1))  # fmt: skip
    network[-1].weight.data.fill_(4)
    image = torch.zeros(1, 3, 4, 4)
    image[0, 0] = torch.tensor([[1.0, 2, 9, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 3, 5, 1]])
    [found] = project(_classifier(network), image, torch.tensor([[0]]), method)
    assert found[0, 0].tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]]


def test_the_map_is_the_mean_of_the_largest_channel_by_hand():
    projection = torch.zeros(1, 3, 3, 4)
    projection[0, 0, 0], projection[0, 1, 0], projection[0, 2, 2, 3] = 1, -3, 8
    assert saliency(projection, 2).tolist() == [[[1.5, 1.5], [0, 4]]]


@settings(max_examples=40, deadline=None)
@given(
    projection=st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: arrays.arrays(np.float32, (2, 3, *size), elements=st.floats(-4, 4, width=16))
    ),
    cell=st.integers(1, 12),
)
def test_cells_against_loops(projection, cell):
    found = saliency(torch.from_numpy(projection), cell)
    strongest = np.abs(projection).max(1)
    rows, columns = (range(0, side, cell) for side in strongest.shape[1:])
    expected = [[strongest[:, row : row + cell, column : column + cell].mean((1, 2)) for column in columns]
                for row in rows]  # fmt: skip
    np.testing.assert_allclose(found, np.moveaxis(expected, 2, 0), rtol=1e-5, atol=1e-6)


class Functional(nn.Module):
    """Two convolutions, each rectified by a function."""

    def __init__(self, rectify):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1)
        self.head = nn.Linear(5, 3)
        self.rectify = rectify

    def forward(self, images):
        maps = self.rectify(self.second(self.rectify(self.first(images))))
        return self.head(maps.mean((2, 3)))


def _in_a_slice(maps):
    maps[:, :].relu_()
    return maps


def _ignoring_what_is_returned(maps):
    functional.relu(maps, inplace=True)
    return maps


RECTIFIERS = {
    "relu": functional.relu,
    "relu, in place": lambda maps: functional.relu(maps, inplace=True),
    "relu, by keyword": lambda maps: functional.relu(input=maps),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda maps: maps.relu(),
    "Tensor.relu_": lambda maps: maps.relu_(),
    "threshold": lambda maps: functional.threshold(maps, 0, 0),
    "threshold_": lambda maps: functional.threshold_(maps, 0, 0),
    "relu6": functional.relu6,
    "hardtanh": lambda maps: functional.hardtanh(maps, 0, 6),
    "hardtanh_": lambda maps: functional.hardtanh_(maps, 0.0, 6.0),
    "nn.ReLU6, in place": nn.ReLU6(inplace=True),
    "nn.Threshold": nn.Threshold(0, 0),
    "in a slice": _in_a_slice,
    "in place, not returned": _ignoring_what_is_returned,
}


@pytest.mark.parametrize("method", PROJECTIONS)
@pytest.mark.parametrize("rectify", RECTIFIERS.values(), ids=RECTIFIERS)
def test_modules_functions_and_in_place_are_one(method, rectify):
    """As captum has it of modules."""
    images, ids = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([2, 0])
    theirs = CAPTUM[method](Functional(nn.ReLU()).eval()).attribute(images.clone().requires_grad_(), ids).detach()
    classifier = _classifier(Functional(nn.ReLU()), 6)
    classifier.network = Functional(rectify).eval()
    [ours] = project(classifier, images, ids[:, None], method)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert ours.abs().max() > 1e-3


@pytest.mark.parametrize("method", PROJECTIONS)
def test_parity_with_captum_on_resnet(method):
    """With its max pooling; torchvision's ReLUs are in place, which captum does not take."""
    torch.manual_seed(0)
    network = empty_network("torchvision:resnet18").module
    images = torch.randn(2, 3, 64, 64)
    ids = torch.tensor([[5, 9], [7, 1]])
    ours = list(project(_classifier(network, 64), images, ids, method))
    assert all(layer.inplace for layer in network.modules() if isinstance(layer, nn.ReLU))
    for layer in network.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    for label, found in enumerate(ours):
        theirs = CAPTUM[method](network).attribute(images.clone().requires_grad_(), ids[:, label]).detach()
        torch.testing.assert_close(found, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


@pytest.fixture(scope="module")
def images(classifier, photographs):
    paths = sorted(photographs.glob("*/*.*g"))[:2]
    pixels = [classifier.preprocessing.resize(np.array(Image.open(path).convert("RGB"))) for path in paths]
    return classifier.normalize(torch.stack(pixels))


class Rule(torch.autograd.Function):
    """ReLU6 with the rules written out."""

    @staticmethod
    def forward(ctx, maps, guided):
        ctx.save_for_backward(maps)
        ctx.guided = guided
        return maps.clamp(0, 6)

    @staticmethod
    def backward(ctx, signal):
        (maps,) = ctx.saved_tensors
        passes = (maps > 0) & (maps < 6) if ctx.guided else torch.ones_like(maps, dtype=bool)
        return signal.clamp(min=0) * passes, None


class Ruled(nn.Module):
    def __init__(self, guided):
        super().__init__()
        self.guided = guided

    def forward(self, maps):
        return Rule.apply(maps, self.guided)


def _replaced(module, make):
    for name, child in module.named_children():
        if isinstance(child, nn.ReLU6):
            setattr(module, name, make())
        else:
            _replaced(child, make)
    return module


@pytest.mark.parametrize("method", PROJECTIONS)
def test_lite0_on_photographs(classifier, images, method):
    """Its ReLU6 against rules that are written out; as a network of ReLUs, against captum."""
    ids = torch.tensor([[285], [967]])
    ruled = _replaced(copy.deepcopy(classifier.network), lambda: Ruled(method == "guidedbackprop"))
    pixels = images.clone().requires_grad_()
    (expected,) = torch.autograd.grad(ruled(pixels).gather(1, ids).sum(), pixels)
    [found] = project(classifier, images, ids, method)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
    relus = copy.copy(classifier)
    relus._modules = dict(classifier._modules) | {"network": _replaced(copy.deepcopy(classifier.network), nn.ReLU)}
    theirs = CAPTUM[method](relus.network).attribute(images.clone().requires_grad_(), ids[:, 0]).detach()
    [found] = project(relus, images, ids, method)
    torch.testing.assert_close(found, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_without_anything_negative_guided_backpropagation_is_the_gradient(data):
    network = _two_layers(nn.ReLU)
    for layer in (network[0], network[2], network[6]):
        shape = tuple(layer.weight.shape)
        weights = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(0.125, 2, width=16)))
        layer.weight.data = torch.from_numpy(weights)
    image = torch.from_numpy(
        data.draw(arrays.arrays(np.float32, (1, 3, 2, 2), elements=st.floats(-2, 2, width=16)))
    ).requires_grad_()
    classifier = _classifier(network, 2)
    (gradient,) = torch.autograd.grad(network(image)[0, 0], image)
    guided, deconvolved = (next(project(classifier, image, torch.tensor([[0]]), method))
                           for method in ("guidedbackprop", "deconvnet"))  # fmt: skip
    torch.testing.assert_close(guided, gradient)
    assert (deconvolved >= guided - 1e-6).all()  # it passes where the activations were 0, too


@pytest.mark.parametrize("method", PROJECTIONS)
@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.LeakyReLU, nn.Hardtanh])
def test_a_network_without_rectifiers_is_refused_before_any_image(method, activation):
    classifier = _classifier(_two_layers(activation), 2)
    with pytest.raises(
        ValueError, match=r"tiny has no rectifiers;.*ReLU or ReLU6.*use method \"occlusion\" or \"layercam\""
    ):
        Localizer(classifier, MapSpec(f"cam*{method}"))


def _of(name):
    torch.manual_seed(0)
    network = empty_network(name)
    return Classifier(network.module, network.preprocessing, ModelSpec(name, device="cpu", batch_size=2))


def test_the_deconvnet_of_lite0_is_the_same_for_every_picture_and_so_is_refused(classifier, images):
    pictures = torch.stack([images[0], images[1], torch.zeros_like(images[0])])
    [found] = project(classifier, pictures, torch.tensor([[285]] * 3), "deconvnet")
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2]) and found.abs().max() > 0
    message = (
        r"deconvnet gives the same map for every picture with timm:tf_efficientnet_lite0: noise and a plain colour .* "
        r"\(no max pooling, no gates\); use method \"guidedbackprop\" or \"layercam\""
    )
    for asked in ("deconvnet", "cam*deconvnet@32"):
        with pytest.raises(ValueError, match=message):
            Localizer(classifier, MapSpec(asked))
    with pytest.raises(ValueError, match=message):
        class_maps(classifier, images, torch.tensor([[285], [967]]), "deconvnet")
    Localizer(classifier, MapSpec("guidedbackprop"))


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:mnasnet0_5", "timm:mobilenetv2_050"])
def test_the_deconvnet_is_refused_where_nothing_of_the_picture_enters(name):
    with pytest.raises(ValueError, match=f"deconvnet gives the same map for every picture with {name}"):
        Localizer(_of(name), MapSpec("deconvnet"))


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:squeezenet1_1", "torchvision:vgg11", "torchvision:mobilenet_v3_small"]
)
def test_the_deconvnet_sees_the_picture_by_max_pooling_or_gates(name):
    classifier = _of(name)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    first, second = class_maps(classifier, images, torch.tensor([[1], [1]]), "deconvnet")
    assert (first - second).abs().max() > 0.1 * first.abs().max()


def test_whether_the_picture_enters_by_hand():
    """Switches of max pooling are all that there is of the picture in a deconvnet."""
    plain = _two_layers(nn.ReLU)
    pooling = nn.Sequential(nn.MaxPool2d(2), *plain)
    with pytest.raises(ValueError, match="deconvnet gives the same map for every picture with tiny"):
        class_maps(_classifier(plain), torch.zeros(1, 3, 4, 4), torch.tensor([[0]]), "deconvnet@1")
    image = torch.zeros(1, 3, 4, 4)
    image[0, 1, 1, 0] = image[0, 1, 2, 3] = 1  # of green, the second logit part, in two of the four windows
    found = class_maps(_classifier(pooling), image, torch.tensor([[0]]), "deconvnet@1")[0, 0]
    assert found[1, 0] == found[2, 3] == found.max() > 0
    assert found[0, 0] == found[3, 3] == 0


def test_frozen_or_not_in_inference_mode_or_not_gives_the_same_maps():
    classifier = _classifier(_two_layers(nn.ReLU), 2)
    expected = class_maps(classifier, IMAGE, torch.tensor([[0]]), "guidedbackprop@1")
    classifier.network.requires_grad_(False)
    assert torch.equal(class_maps(classifier, IMAGE, torch.tensor([[0]]), "guidedbackprop@1"), expected)
    with torch.inference_mode():
        assert torch.equal(class_maps(classifier, IMAGE.clone(), torch.tensor([[0]]), "guidedbackprop@1"), expected)


def test_threads_do_not_meet():
    """Nor do gradients that others take of the same network at the same time."""
    torch.manual_seed(0)
    network = empty_network("torchvision:resnet18").module
    classifier, images, ids = _classifier(network, 64), torch.randn(2, 3, 64, 64), torch.tensor([[5], [7]])

    def one(method):
        if method in PROJECTIONS:
            return next(project(classifier, images, ids, method))
        pixels = images.clone().requires_grad_()
        return torch.autograd.grad(network(pixels).gather(1, ids).sum(), pixels)[0]

    methods = [*PROJECTIONS, "gradient"] * 2
    expected = [one(method) for method in methods]
    with ThreadPoolExecutor(4) as threads:
        for ours, alone in zip(threads.map(one, methods), expected, strict=True):
            torch.testing.assert_close(ours, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))


def test_an_image_has_the_same_bits_alone_and_among_others(classifier, photographs):
    localizer = Localizer(classifier, MapSpec("cam*guidedbackprop+guidedbackprop@32"))
    paths = sorted(photographs.glob("*/*.*g"))[:2]
    photos = [localizer.resize(np.array(Image.open(path).convert("RGB"))) for path in paths]
    together = localizer.localize(photos, [[[285], [9]], [[967]]])
    [alone] = localizer.localize(photos[1:], [[[967]]])
    assert np.array_equal(alone.maps, together[1].maps) and alone.maps.max() > 0
