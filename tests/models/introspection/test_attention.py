"""Attention that is recorded, and the maps that are made of it, against slow definitions in float64."""

import dataclasses

import numpy as np
import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import nn
from torch.nn import functional
from torchvision.models import swin_transformer as torchvision_swin

from camboxes.models import Localizer, MapSpec, ModelSpec, class_maps, load_classifier
from camboxes.models.classifier import Classifier
from camboxes.models.introspection.attention import OpenAttention
from camboxes.models.networks.by_name import Network
from camboxes.models.networks.gap_conversions import gap_network
from camboxes.models.networks.preprocessing import Preprocessing

IDS = torch.tensor([[1, 3], [0, 2]])


def _classifier(network, size=64, name="attentive"):
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, size, "bilinear")
    spec = ModelSpec(name, size=size, device="cpu", batch_size=2, precision="fp32", compile="off")
    return Classifier(network.eval(), preprocessing, spec)


def _images(height=64, width=64):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))


def _shaken(network):
    """Weights that matter, where libraries start with nearly none."""
    generator = torch.Generator().manual_seed(7)
    for parameter in network.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2 / max(1, parameter.dim())
    return network.eval()


def _transformer(name="deit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    options = {"depth": 3, "img_size": 64, "num_classes": 5, "dynamic_img_size": True, "patch_size": 16} | options
    return _shaken(timm.create_model(name, **options))


class ByHand(nn.Module):
    """Four patches of one value each, two layers that mix tokens by given weights, and two logits of the class token.

    Attention is computed as a softmax over a square matrix; its exponentials are the weights below.
    """

    num_prefix_tokens = 1

    def __init__(self, *weights):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 1))
        self.logs = nn.ParameterList([torch.tensor(of_layer).log()[None, None] for of_layer in weights])
        self.first = nn.Identity()
        self.head = nn.Linear(1, 2, bias=False)
        self.head.weight.data = torch.tensor([[1.0], [-2.0]])

    def forward_features(self, images):
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), images[:, :1].flatten(2).transpose(1, 2)], 1)
        tokens = self.first(tokens)
        for logs in self.logs:
            scores = logs + 0 * tokens.sum((1, 2)).view(-1, 1, 1, 1)  # as if they were made of the tokens
            tokens = tokens + (scores.softmax(-1) @ tokens[:, None])[:, 0]
        return tokens

    def forward_head(self, tokens):
        return self.head(tokens[:, 0])

    def get_classifier(self):
        return self.head

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


FIRST = [[0.2, 0.4, 0.1, 0.2, 0.1], [0.5, 0.5, 1e-9, 1e-9, 1e-9], *[[0.2] * 5] * 3]
SECOND = [[0.6, 0.1, 0.1, 0.1, 0.1], *[[0.2] * 5] * 4]
PIXELS = [[3.0, -1.0], [2.0, 5.0]]


def test_one_layer_by_hand():
    images = torch.tensor(PIXELS).expand(1, 3, 2, 2)
    classifier = _classifier(ByHand(FIRST), size=2)
    rollout, chefer = (class_maps(classifier, images, torch.tensor([[0, 1]]), name) for name in ("rollout", "chefer"))
    expected = torch.tensor([[0.2, 0.05], [0.1, 0.05]])  # half of what the class token takes
    torch.testing.assert_close(rollout, expected.expand(1, 2, 2, 2))
    # dY/dA of the class token's row is w x: (A w x)+, with w = 1 and -2
    expected = torch.tensor([[[0.4 * 3, 0], [0.2 * 2, 0.1 * 5]], [[0, 2 * 0.1], [0, 0]]])
    torch.testing.assert_close(chefer[0], expected)


def test_two_layers_by_hand():
    images = torch.tensor(PIXELS).expand(1, 3, 2, 2)
    found = class_maps(_classifier(ByHand(FIRST, SECOND), size=2), images, torch.tensor([[0]]), "rollout")[0, 0]
    # (1.6, .1, .1, .1, .1) (I + A_1) / 4: the class token's row 1.6 times, .1 of each patch, of whose rows the first
    # gives its own patch a half, and the others a fifth to each.
    first, others = 1.6 * 0.4 + 0.1 * (1 + 0.5) + 3 * 0.1 * 0.2, 0.1 + 3 * 0.1 * 0.2
    expected = torch.tensor([[first, 1.6 * 0.1 + others], [1.6 * 0.2 + others, 1.6 * 0.1 + others]]) / 4
    torch.testing.assert_close(found, expected)


def _attention_by_hooks(network, images, ids):
    """The attention of each layer and its gradient, in float64, as the modules for dropout see it."""
    network, kept, handles = network.double(), [], []

    def keep(layer, inputs, output):
        output = output.clone().requires_grad_()
        kept.append(output)
        return output

    for part in network.modules():
        if hasattr(part, "attn_drop"):
            part.fused_attn = False
            handles.append(part.attn_drop.register_forward_hook(keep))
    logits = network(images.double())
    for handle in handles:
        handle.remove()
    gradients = torch.autograd.grad(logits.gather(1, ids[:, None]).sum(), kept)
    network.float()
    return [weights.detach() for weights in kept], gradients


def _defined(method, attention, gradients):
    """The product of whole matrices, a layer after another: [n, tokens, tokens]."""
    eye = torch.eye(attention[0].shape[-1], dtype=torch.float64)
    product = eye.expand(len(attention[0]), -1, -1)
    for weights, gradient in zip(attention, gradients, strict=True):
        if method == "rollout":
            product = (weights.mean(1) / 2 + eye / 2) @ product
        else:
            product = product + (gradient * weights).clamp(min=0).mean(1) @ product
    return product


TRANSFORMERS = [
    ("deit_tiny_patch16_224", {}, [0], 1),
    ("deit_tiny_distilled_patch16_224", {}, [0, 1], 2),
    ("deit_tiny_patch16_224", {"reg_tokens": 4}, [0], 5),
    ("deit_tiny_patch16_224", {"global_pool": "avg", "reg_tokens": 1}, slice(2, None), 2),
    ("deit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False, "class_token": False}, slice(None), 0),
    ("eva02_tiny_patch14_224", {"global_pool": "token"}, [0], 1),
]


@pytest.mark.parametrize(("name", "options", "read", "prefix"), TRANSFORMERS)
@pytest.mark.parametrize("method", ["rollout", "chefer"])
def test_row_vectors_give_what_the_product_of_matrices_defines(method, name, options, read, prefix):
    network, images = _transformer(name, **options), _images(48, 80)
    found = class_maps(_classifier(network), images, IDS, method)
    assert found.shape == (2, 2, 3, 5)
    for label in range(2):
        attention, gradients = _attention_by_hooks(network, images, IDS[:, label])
        assert len(attention) == 3
        expected = _defined(method, attention, gradients)[:, read].mean(1)[:, prefix:].unflatten(1, (3, 5))
        torch.testing.assert_close(found[:, label].double(), expected, rtol=2e-4, atol=1e-5 * float(expected.max()))


def _swin(library, window):
    torch.manual_seed(0)
    if library.startswith("torchvision"):
        parts = {}
        if library == "torchvision v2":
            parts["block"] = torchvision_swin.SwinTransformerBlockV2
            parts["downsample_layer"] = torchvision_swin.PatchMergingV2
        network = torchvision_swin.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [window, window], num_classes=5, **parts)
        return _shaken(network)
    kind = SwinTransformer if library == "timm" else SwinTransformerV2
    options = {"img_size": 64, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4), "window_size": window}
    return _shaken(kind(**options, num_classes=5, strict_img_size=False))


def _merging(height, width):
    """What each merged cell takes of each cell before: an equal part of those that it is made of."""
    rows, columns = -(-height // 2), -(-width // 2)
    made = torch.zeros(rows * columns, height * width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            made[y // 2 * columns + x // 2, y * width + x] = 1
    return made / made.sum(1, keepdim=True)


def _dense(block, weights, height, width, monkeypatch):
    """What each cell takes of each other, [n, cells, cells]: the block's own windows, run on one-hot maps."""
    cells = height * width
    maps = torch.eye(cells, dtype=torch.float64).view(1, height, width, cells)
    of_image = []
    for of_windows in weights:  # [windows, cells, cells]
        if isinstance(block, torchvision_swin.ShiftedWindowAttention):
            eye = torch.eye(cells, dtype=torch.float64)
            packed = torch.cat([torch.zeros(2 * cells, cells, dtype=torch.float64), eye])
            with monkeypatch.context() as patch:
                patch.setattr(functional, "softmax", lambda given, dim, of_windows=of_windows: of_windows[:, None])
                mixed = torchvision_swin.shifted_window_attention(
                    maps, packed, eye, torch.zeros(1, dtype=torch.float64), block.window_size, 1, block.shift_size
                )
        else:
            own = block.attn
            block.attn = Mix(of_windows)
            mixed = block._attn(maps)
            block.attn = own
        of_image.append(mixed.view(cells, cells))
    return torch.stack(of_image)


class Mix(nn.Module):
    def __init__(self, weights):
        super().__init__()
        self.weights = weights

    def forward(self, windows, mask=None):
        return self.weights @ windows


def _swin_attention(network, images, ids):
    """As `_attention_by_hooks`; torchvision's has no module for dropout, and is seen where it calls the function."""
    network, kept = network.double(), []
    dropout = functional.dropout

    def keep(given, p=0.5, training=True, inplace=False):
        if given.dim() == 4 and given.shape[2] == given.shape[3] and bool(((given.sum(3) - 1).abs() < 1e-9).all()):
            given = given.clone().requires_grad_()
            kept.append(given)
        return dropout(given, p, training, inplace)

    functional.dropout = keep
    try:
        logits = network(images.double())
    finally:
        functional.dropout = dropout
    gradients = torch.autograd.grad(logits.gather(1, ids[:, None]).sum(), kept)
    network.float()
    return [weights.detach() for weights in kept], gradients


@pytest.mark.parametrize("window", [4, 3])  # 3 leaves windows that are filled up
@pytest.mark.parametrize("library", ["timm", "timm v2", "torchvision", "torchvision v2"])
@pytest.mark.parametrize("method", ["rollout", "chefer"])
@pytest.mark.parametrize("size", [(64, 64), (56, 72)])
def test_windows_give_what_dense_matrices_define(method, library, window, size, monkeypatch):
    network, images = _swin(library, window), _images(*size)
    found = class_maps(_classifier(network), images, IDS[:, :1], method)[:, 0]
    take = _swin_attention if library.startswith("torchvision") else _attention_by_hooks
    attention, gradients = take(network, images, IDS[:, 0])
    kinds = (torchvision_swin.ShiftedWindowAttention,) if library.startswith("torchvision") else ()
    blocks = [part for part in network.modules() if isinstance(part, kinds) or hasattr(part, "_attn")]
    height, width = size[0] // 4, size[1] // 4
    product = torch.eye(height * width, dtype=torch.float64)
    for number, (block, weights, gradient) in enumerate(zip(blocks, attention, gradients, strict=True)):
        if number == 2:
            product = _merging(height, width) @ product
            height, width = -(-height // 2), -(-width // 2)
        mixed = weights.mean(1) if method == "rollout" else (gradient * weights).clamp(min=0).mean(1)
        dense = _dense(block, mixed.unflatten(0, (2, -1)), height, width, monkeypatch)
        product = product + dense @ product
        if method == "rollout":
            product = product / 2
    expected = product.mean(1).unflatten(1, (size[0] // 4, size[1] // 4))
    torch.testing.assert_close(found.double(), expected, rtol=5e-4, atol=1e-5 * float(expected.max()))


def test_ts_cam_is_its_definition():
    network, images = _transformer(reg_tokens=2), _images(48, 64)
    converted = gap_network(Network("timm:tokens", network, Preprocessing((0.5,) * 3, (0.5,) * 3, 64, "bilinear")), 5)
    found = class_maps(_classifier(converted.module), images, IDS, "tscam")
    attention, _ = _attention_by_hooks(converted.module.features.network, images, IDS[:, 0])
    taken = sum(weights.mean(1)[:, 0, 3:] for weights in attention) / 3
    with torch.no_grad():
        patches = network.forward_features(images)[:, 3:].double()
    cam = torch.einsum("nlc,kc->nkl", patches, converted.module.head.weight.detach().double())[[[0], [1]], IDS]
    torch.testing.assert_close(found.double(), (taken[:, None] * cam).unflatten(2, (3, 4)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "network",
    [
        *[lambda of=of: _transformer(of[0], **of[1]) for of in TRANSFORMERS],
        lambda: _swin("timm", 4),
        lambda: _swin("timm v2", 4),
        lambda: _swin("torchvision", 4),
        lambda: _swin("torchvision v2", 4),
    ],
)
def test_open_attention_gives_the_same_logits(network):
    network, images = network(), _images()
    with torch.inference_mode():
        expected, kept = network(images), []
        with OpenAttention(lambda weights: kept.append(weights) or weights):
            found = network(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert len(kept) in (3, 4)
    for weights in kept:
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def _random(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": _random(5, 5)},
        {"attn_mask": (_random(5, 5) > 0) | torch.eye(5).bool()},
    ],
)
def test_the_fused_function_by_its_definition(options):
    given, kept = (_random(2, 3, 5, 4), _random(2, 3, 5, 4) + 1, _random(2, 3, 5, 7)), []
    expected = functional.scaled_dot_product_attention(*given, **options)
    with OpenAttention(lambda weights: kept.append(weights) or weights):
        torch.testing.assert_close(functional.scaled_dot_product_attention(*given, **options), expected)
    torch.testing.assert_close(kept[0] @ given[2], expected)


@pytest.mark.parametrize("mask", [None, torch.full((5, 5), -torch.inf).triu(1)])
@pytest.mark.parametrize("bias", [True, False])
def test_multi_head_attention_is_opened(bias, mask):
    torch.manual_seed(0)
    layer, tokens, kept = nn.MultiheadAttention(8, 2, bias=bias, batch_first=True).eval(), _random(3, 5, 8), []
    with torch.inference_mode():
        expected, weights = layer(tokens, tokens, tokens, attn_mask=mask, average_attn_weights=False)
        with OpenAttention(lambda weights: kept.append(weights) or weights):
            found, _ = layer(tokens, tokens, tokens, need_weights=False, attn_mask=mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(kept, [weights])


def test_attention_with_heads_of_another_kind_is_left_alone():
    torch.manual_seed(0)
    layer, tokens = nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True).eval(), _random(3, 5, 8)
    expected = layer(tokens, tokens[..., :6], tokens[..., :6], need_weights=False)[0]
    with OpenAttention(lambda weights: weights * 0):
        torch.testing.assert_close(layer(tokens, tokens[..., :6], tokens[..., :6], need_weights=False)[0], expected)


@pytest.mark.parametrize("method", ["rollout", "chefer", "tscam"])
def test_bits_do_not_depend_on_the_batch(method):
    converted = gap_network(
        Network("timm:tokens", _transformer(), Preprocessing((0.5,) * 3, (0.5,) * 3, 64, "bilinear")), 5
    )
    localizer = Localizer(_classifier(converted.module), MapSpec(method))
    images = (_images() * 40 + 128).clamp(0, 255).to(torch.uint8)
    [alone] = localizer.localize([(images[0],)], [[[2]]])
    together = localizer.localize([(images[1],), (images[0],)], [[[0], [1], [3]], [[2], [4]]])[1]
    assert alone.maps[0].any() and (alone.maps[0] == together.maps[0]).all()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("method", ["rollout", "chefer"])
def test_the_network_is_left_as_it_was_found(method, frozen):
    network = _transformer(drop_path_rate=0.5)
    classifier = _classifier(network)
    expected = class_maps(classifier, _images(), IDS, method)
    classifier.train().requires_grad_(not frozen)
    with torch.inference_mode():
        assert torch.equal(class_maps(classifier, _images(), IDS, method), expected)
    with pytest.raises(ValueError, match="class id 5 is not among the network's 5"):
        class_maps(classifier, _images(), IDS + 4, method)
    assert all(part.training and not part._forward_hooks for part in network.modules())
    assert all(p.grad is None and p.requires_grad is not frozen for p in network.parameters())
    assert torch.is_grad_enabled() and not torch.overrides._get_current_function_mode_stack()


def test_attention_and_layers_are_read_from_one_pass(monkeypatch):
    classifier, images = _classifier(_transformer()), _images()
    alone = [class_maps(classifier, images, IDS, method) for method in ("chefer", "layercam@blocks.1")]
    localizer = Localizer(classifier, MapSpec("chefer+layercam@blocks.1"))
    forward = localizer._looks[0].methods.forward(images)
    for found, expected in zip(localizer._looks[0].methods.maps(forward, IDS, 2), alone, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


class Conv(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


@pytest.mark.parametrize(
    ("network", "method", "message"),
    [
        (Conv, "rollout", r"the attention of attentive cannot be followed .*expected a vision transformer.*gradcam"),
        (Conv, "tscam", "the attention of attentive cannot be followed"),
        (lambda: timm.create_model("cait_xxs24_224", depth=2, img_size=64), "chefer", "cannot be followed"),
        (lambda: timm.create_model("xcit_nano_12_p16_224", depth=2), "chefer", "cannot be followed"),
        (lambda: _transformer(attn_layer="diff"), "rollout", "has several attentions side by side in a layer"),
        (_transformer, "tscam", r"CAM is not exact for attentive.*model gap:attentive"),
        (
            lambda: _transformer(global_pool="avg", fc_norm=False, class_token=False, reg_tokens=2),
            "tscam",
            'attentive has no class token, whose attention tscam reads; use method "cam", "rollout" or "chefer"',
        ),
        (lambda: _swin("timm", 4), "tscam", "attentive has no class token"),
    ],
)
def test_networks_whose_attention_cannot_be_read(network, method, message):
    with pytest.raises(ValueError, match=message):
        class_maps(_classifier(network()), _images(), IDS, method)


@pytest.mark.parametrize("method", ["rollout", "chefer", "tscam"])
def test_these_methods_take_no_layer(method):
    with pytest.raises(ValueError, match=f"{method} is read from the attention of all layers, and takes no @16"):
        MapSpec(f"{method}@16")


def test_the_first_pass_of_a_fused_network_in_half_precision(tmp_path):
    """What is tried out when such a network is made ready is no part of the pass."""
    network = _shaken(timm.create_model("test_vit"))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    spec = ModelSpec("timm:test_vit", weights=str(tmp_path / "w.pth"), device="cpu", precision="fp32", compile="off")
    exact = load_classifier(spec)
    images = exact.normalize(
        torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    )
    for method in ("rollout", "chefer"):
        half = load_classifier(dataclasses.replace(spec, precision="bf16", compile="auto"))
        found, expected = (class_maps(of, images, IDS, method).flatten(1) for of in (half, exact))
        assert np.corrcoef(found, expected)[:2, 2:].diagonal().min() > 0.99
