import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from camboxes.models.execution.kernels import FusedConvolution, FusedSameConvolution


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
        (Conv2dSame, {"kernel_size": 2}),
        (Conv2dSame, {"stride": 2, "kernel_size": 1}),
        (Conv2dSame, {"stride": 2, "dilation": 2}),
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
