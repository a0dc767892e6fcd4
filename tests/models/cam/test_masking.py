import math

import numpy as np
import pytest
import torch
from captum.attr import Occlusion
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import nn

from camboxes.models import Localizer, MapSpec, ModelSpec, class_maps, load_classifier
from camboxes.models.cam import masking
from camboxes.models.classifier import Classifier
from camboxes.models.networks.preprocessing import Preprocessing

WEIGHT = torch.tensor([[1.0, 0, 0], [0, 1.0, -2.0]])


def _linear(batch_size=4):
    """Logits that are weighted means of the colours, of images of any size."""
    network = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(3).view(3, 3, 1, 1))
        network[3].weight.copy_(WEIGHT)
    plain = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 6, "bilinear")
    return Classifier(network.eval(), plain, ModelSpec("linear", size=6, device="cpu", batch_size=batch_size))


def test_a_spot_by_hand():
    image = torch.zeros(1, 3, 6, 6)
    image[0, 0, 1, 0], image[0, 1, 3, 3] = 36, 72
    found = class_maps(_linear(), image, torch.tensor([[0, 1]]), "occlusion@2")[0]
    # Of the four windows, 2 x 2 cells each, one covers the red spot: it is all windows of the corner, half of those
    # of its neighbours, a quarter of the middle's. Each of the four covers the green spot.
    np.testing.assert_allclose(found[0], [[1, 0.5, 0], [0.5, 0.25, 0], [0, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(found[1], np.full((3, 3), 2), atol=1e-6)


def test_what_speaks_against_a_class_is_negative():
    image = torch.zeros(1, 3, 6, 6)
    image[0, 2, 5, 5] = 18
    found = class_maps(_linear(), image, torch.tensor([[1]]), "occlusion@2")[0, 0]
    np.testing.assert_allclose(found, [[0, 0, 0], [0, -0.25, -0.5], [0, -0.5, -1]], atol=1e-6)


LINEAR = _linear()


@settings(max_examples=40, deadline=None)
@given(
    image=st.tuples(st.integers(2, 9), st.integers(2, 9)).flatmap(
        lambda size: arrays.arrays(np.float32, (3, *size), elements=st.floats(-4, 4, width=16))
    ),
    stride=st.integers(1, 10),
    window=st.integers(1, 4),
)
def test_of_a_linear_network_it_is_what_the_windows_hold(image, stride, window):
    """In float64, pixel by pixel; with windows of one cell, the sum of w x over the cell itself."""
    height, width = image.shape[1:]
    held = np.tensordot(WEIGHT.numpy().astype(float), image.astype(float), 1) / (height * width)
    total, times = np.zeros(held.shape), np.zeros(held.shape)
    ends = [max(math.ceil(side / stride) - window, 0) + 1 for side in (height, width)]
    for row, column in np.ndindex(*ends):
        place = np.s_[:, row * stride : (row + window) * stride, column * stride : (column + window) * stride]
        total[place] += held[place].sum((1, 2), keepdims=True)
        times[place] += 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "_WINDOW", window)
        found = masking.occlusion(LINEAR, torch.from_numpy(image), torch.tensor([0, 1]), stride)
    if window == 1:
        assert times.max() == 1
    large = found.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :height, :width]
    np.testing.assert_allclose(large, total / times, atol=1e-5)
    assert found.shape[1:] == (math.ceil(height / stride), math.ceil(width / stride))


def _captum(network, image, class_id, stride):
    window = [min(2 * stride, side) for side in image.shape[1:]]
    with torch.no_grad():
        found = Occlusion(network).attribute(image[None], (3, *window), (3, stride, stride), 0, class_id, None, 4)
    assert torch.equal(found[0, 0], found[0, 2])
    return found[0, 0]


@pytest.fixture(scope="module")
def cat(classifier, photographs):
    path = sorted(photographs.glob("*/*.*g"))[0]
    return classifier.normalize(classifier.preprocessing.resize(np.array(Image.open(path).convert("RGB")))[None])


@pytest.mark.parametrize(("height", "width", "stride"), [(128, 128, 32), (100, 131, 40), (64, 150, 64), (90, 60, 100)])
def test_parity_with_captum(classifier, cat, height, width, stride):
    """Also where the stride does not divide the sides, and where one window covers a side."""
    image = cat[:, :, :height, :width].contiguous()
    found = class_maps(classifier, image, torch.tensor([[285, 7]]), f"occlusion@{stride}")[0]
    large = found.repeat_interleave(stride, 1).repeat_interleave(stride, 2)[:, :height, :width]
    for label, class_id in enumerate((285, 7)):
        theirs = _captum(classifier.network, image[0], class_id, stride)
        assert theirs.abs().max() > 0.1
        torch.testing.assert_close(large[label], theirs, rtol=1e-3, atol=1e-4)


def test_all_classes_are_read_from_the_same_passes_of_one_size(monkeypatch):
    classifier, seen = _linear(batch_size=3), []
    forward = classifier.forward
    monkeypatch.setattr(classifier, "forward", lambda images: seen.append(images) or forward(images))
    image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(0))
    both = masking.occlusion(classifier, image, torch.tensor([0, 1]), 2)
    assert [len(images) for images in seen] == [3, 3]  # the image, and four windows
    assert torch.equal(torch.cat(seen)[0], image) and all((images == 0).any() for images in seen)
    for label in (0, 1):
        assert torch.equal(both[label], masking.occlusion(classifier, image, torch.tensor([label]), 2)[0])


def test_fused_layers_in_bf16_give_nearly_the_same(classifier, cat):
    fast = load_classifier(ModelSpec(precision="bf16"))
    ours, exact = (class_maps(one, cat, torch.tensor([[285]]), "occlusion@56") for one in (fast, classifier))
    assert np.corrcoef(ours.flatten(), exact.flatten())[0, 1] >= 0.97


@pytest.mark.parametrize("method", ["cam*occlusion@56", "occlusion@112+2*layercam@16"])
def test_an_image_has_the_same_bits_alone_and_among_others(classifier, photographs, method):
    localizer = Localizer(classifier, MapSpec(method))
    paths = sorted(photographs.glob("*/*.*g"))[:3]
    images = [localizer.resize(np.array(Image.open(path).convert("RGB"))) for path in paths]
    first = [[int(index)] for index in classifier.infer(torch.stack([pixels for (pixels,) in images])).logits.argmax(1)]
    together = localizer.localize(images, [[first[0], [9]], [first[1]], [[1], [2], [4]]])
    [alone] = localizer.localize(images[1:2], [[first[1]]])
    assert np.array_equal(alone.maps, together[1].maps) and alone.maps.max() > 0
