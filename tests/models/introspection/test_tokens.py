import dataclasses

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models import VisionTransformer

from camboxes.models import Localizer, MapSpec, ModelSpec, class_maps, load_classifier
from camboxes.models.classifier import Classifier
from camboxes.models.introspection.tokens import Layout, grid, layout_of
from camboxes.models.localization.affinity import refine
from camboxes.models.networks import by_name
from camboxes.models.networks.by_name import Network, empty_network
from camboxes.models.networks.gap_conversions import gap_network
from camboxes.models.networks.preprocessing import Preprocessing

PREPROCESSING = Preprocessing((0.5,) * 3, (0.5,) * 3, 64, "bilinear")
IDS = torch.tensor([[1, 3], [0, 2]])


def _images(height=64, width=64):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(5))


def _classifier(network, name="tokens", size=64):
    preprocessing = dataclasses.replace(PREPROCESSING, size=size)
    spec = ModelSpec(name, size=size, device="cpu", batch_size=2, precision="fp32", compile="off")
    return Classifier(network.eval(), preprocessing, spec)


def _transformer(name="deit_tiny_patch16_224", **options):
    torch.manual_seed(0)
    options = {"depth": 3, "img_size": 64, "num_classes": 5, "dynamic_img_size": True} | options
    network = timm.create_model(name, **options).eval()
    for parameter in network.parameters():  # weights that matter, where timm starts with nearly none
        parameter.data += 0.1 * torch.randn_like(parameter) * parameter.dim() ** -1
    return network


@pytest.mark.parametrize(
    ("patches", "height", "width", "expected"),
    [
        (16, 64, 64, (4, 4)),
        (12, 48, 64, (3, 4)),
        (12, 64, 48, (4, 3)),
        (36, 144, 64, (9, 4)),
        (392, 224, 448, (14, 28)),
        (7, 7, 1, (7, 1)),
    ],
)
def test_the_grid_of_patches(patches, height, width, expected):
    assert grid(patches, height / width) == expected


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 32))
def test_any_image_of_whole_patches_has_its_grid(rows, columns, patch):
    assert grid(rows * columns, (rows * patch) / (columns * patch)) == (rows, columns)


@pytest.mark.parametrize(
    ("shape", "prefix", "expected"),
    [
        ((2, 5, 4, 4), None, Layout("NCHW")),
        ((2, 4, 4, 5), None, Layout("NHWC")),
        ((2, 17, 5), 1, Layout("NLC", 1)),
        ((2, 16, 5), 1, Layout("NLC", 0)),  # a layer before the class token joins
        ((2, 21, 5), 5, Layout("NLC", 5)),
        ((2, 18, 5), 1, None),
        ((2, 2, 5), 1, None),  # one patch is no map
        ((2, 17, 5), None, None),
        ((2, 5), 1, None),
    ],
)
def test_layouts(shape, prefix, expected):
    assert layout_of(shape, prefix) == expected


def test_maps_of_tokens_by_hand():
    tokens = torch.arange(2 * 7 * 3).view(2, 7, 3).float()
    layout = Layout("NLC", 1)
    maps = layout.maps(tokens, (32, 48))
    assert maps[1, 2].tolist() == [[26, 29, 32], [35, 38, 41]]  # channel 2 of the second image's patches, row by row
    assert torch.equal(layout.output(10 * maps, tokens)[:, 1:], 10 * tokens[:, 1:])
    assert torch.equal(layout.output(10 * maps, tokens)[:, :1], tokens[:, :1])


def _hooked(network, layer, images, ids):
    """A layer's tokens, and the gradient of a logit of each image with respect to them, by a plain hook."""
    kept = []
    handle = network.get_submodule(layer).register_forward_hook(lambda layer, inputs, output: kept.append(output))
    logits = network(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, ids[:, None]).sum(), kept[0])
    return kept[0].detach(), gradient


@pytest.mark.parametrize(
    ("name", "options", "prefix"),
    [
        ("deit_tiny_patch16_224", {}, 1),
        ("deit_tiny_distilled_patch16_224", {}, 2),
        ("deit_tiny_patch16_224", {"reg_tokens": 4}, 5),
        ("deit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}, 0),
        ("eva02_tiny_patch14_224", {"patch_size": 16, "global_pool": "token"}, 1),
    ],
)
@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_a_named_layer_against_a_hook(name, options, prefix, size):
    network, images = _transformer(name, **options), _images(*size)
    classifier = _classifier(network)
    for wanted in ("blocks.1", "blocks.0.mlp"):
        tokens, gradient = _hooked(network, wanted, images, IDS[:, 0])
        product = (tokens * gradient).sum(2)[:, prefix:].unflatten(1, (size[0] // 16, size[1] // 16))
        found = class_maps(classifier, images, IDS[:, :1], f"hirescam@{wanted}")[:, 0]
        torch.testing.assert_close(found, product, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(classifier(images).logits, network(images))
    assert classifier.layer("16") == ("blocks" if not prefix else "blocks.1")


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224"])
def test_the_last_maps_are_those_that_a_class_token_is_told_from(name):
    network, images = _transformer(name, patch_size=16, global_pool="token"), _images()
    classifier = _classifier(network)
    assert classifier.last == "blocks.2.norm1"
    assert torch.equal(
        class_maps(classifier, images, IDS, "gradcam"), class_maps(classifier, images, IDS, "gradcam@blocks.2.norm1")
    )
    assert not class_maps(classifier, images, IDS, "hirescam@blocks.2").any()


def test_parity_with_grad_cam_as_it_documents_transformers():
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    network, images = _transformer(), _images()
    layer, targets = network.blocks[-1].norm1, [ClassifierOutputTarget(int(index)) for index in IDS[:, 0]]

    def maps(tokens):
        return tokens[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)

    with GradCAM(network, [layer], reshape_transform=maps) as extractor:
        extractor(images, targets)
        seen = extractor.activations_and_grads
        activations, gradients = seen.activations[0].numpy(), seen.gradients[0].numpy()
        theirs = torch.from_numpy(extractor.get_cam_image(images, layer, targets, activations, gradients, False))
    ours = class_maps(_classifier(network), images, IDS[:, :1], "gradcam")[:, 0]
    torch.testing.assert_close(ours, theirs.clamp(min=0), rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def test_pooled_patches_behind_a_linear_layer_are_exact():
    network, images = _transformer(global_pool="avg", fc_norm=False, reg_tokens=2), _images(48, 64)
    classifier = _classifier(network)
    assert classifier.inexact_because is None and classifier.last == ""
    with torch.inference_mode():
        patches = network.forward_features(images)[:, 3:]
        expected = torch.einsum("nlc,kc->nkl", patches, network.head.weight)[[[0], [1]], IDS].unflatten(2, (3, 4))
    torch.testing.assert_close(class_maps(classifier, images, IDS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"global_pool": "avg"}, {"global_pool": "token"}])
def test_what_is_no_linear_layer_over_the_mean_is_not_exact(options):
    classifier = _classifier(_transformer(**options))
    with pytest.raises(ValueError, match="CAM is not exact for tokens"):
        class_maps(classifier, _images(), IDS)


def test_a_conversion_keeps_the_class_token_in_its_trunk():
    network, images = _transformer(reg_tokens=1), _images(64, 96)
    converted = gap_network(Network("timm:tokens", network, PREPROCESSING), 3)
    classifier = _classifier(converted.module)
    with torch.inference_mode():
        patches = network.forward_features(images)[:, 2:]
        torch.testing.assert_close(classifier(images).features, patches.transpose(1, 2).unflatten(2, (4, 6)))
        torch.testing.assert_close(classifier(images).logits, converted.module.head(patches.mean(1)))
    assert classifier.inexact_because is None
    assert classifier.layer("16") == "features"


@pytest.fixture
def small_torchvision(monkeypatch):
    """torchvision's vit_b_16 with two thin blocks."""
    import torchvision

    def build(name, weights=None, num_classes=4):
        torch.manual_seed(1)
        network = VisionTransformer(64, 16, 2, 4, 32, 64, num_classes=num_classes)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        return network

    monkeypatch.setattr(torchvision.models, "get_model", build)
    return build("vit_b_16").eval()


def test_torchvisions_transformers_keep_their_logits(small_torchvision, tmp_path, monkeypatch):
    monkeypatch.setattr(by_name, "_timm_transformer", _at_64(by_name._timm_transformer))
    torch.save(small_torchvision.state_dict(), tmp_path / "w.pth")
    classifier = load_classifier(ModelSpec("vit_b_16", str(tmp_path / "w.pth"), size=64, precision="fp32"))
    assert classifier.spec.name == "torchvision:vit_b_16" and classifier.preprocessing.stride == 16
    with torch.inference_mode():
        torch.testing.assert_close(classifier(_images()).logits, small_torchvision(_images()), rtol=1e-5, atol=1e-5)
    assert classifier(_images(64, 128)).features.shape[2:] == (4, 8)
    for name, content in classifier.files().items():  # a checkpoint of ours has timm's names
        (tmp_path / name).write_bytes(content)
    again = load_classifier(ModelSpec(str(tmp_path), precision="fp32"))
    assert torch.equal(again(_images()).logits, classifier(_images()).logits)


def _at_64(build):
    return lambda given, size, **options: build(given, 64, **options)


def test_torchvisions_transformers_with_their_weights(small_torchvision):
    network = by_name._timm_transformer(small_torchvision, 64, pretrained=True).eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(_images()), small_torchvision(_images()), rtol=1e-5, atol=1e-5)


def test_position_embeddings_are_resampled_as_the_patches_lie():
    """The embeddings of a row are those of a column of the image turned round."""
    classifier = _classifier(_transformer())
    network = classifier.network
    images = _images(64, 96)
    turned = _transformer()
    position = network.pos_embed[:, 1:].unflatten(1, (4, 4)).transpose(1, 2).flatten(1, 2)
    turned.pos_embed.data[:, 1:] = position
    turned.patch_embed.proj.weight.data = network.patch_embed.proj.weight.data.transpose(2, 3)
    there, back = classifier(images), _classifier(turned)(images.transpose(2, 3))
    torch.testing.assert_close(there.features, back.features.transpose(2, 3), rtol=1e-3, atol=1e-4)


def test_swin_takes_images_of_other_sizes():
    torch.manual_seed(0)
    network = empty_network("timm:swin_tiny_patch4_window7_224").module
    classifier = _classifier(network)
    with torch.inference_mode():
        assert classifier(_images(64, 128)).features.shape[2:] == (2, 4)


def _localizer(network, **options):
    classifier = _classifier(network)
    classifier.preprocessing = dataclasses.replace(classifier.preprocessing, aspect=options.pop("aspect", "squash"))
    return Localizer(classifier, MapSpec("gradcam", **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scales": (64, 96)}, r"tokens takes no images of 96 x 96 pixels .*no other scales"),
        ({"aspect": "keep"}, r"tokens takes no images of 64 x (96|128) pixels .*aspect squash"),
    ],
)
def test_a_network_for_one_size(options, message):
    _localizer(_transformer(), scales=(64, 96), aspect="keep")
    with pytest.raises(ValueError, match=message):
        _localizer(_transformer(dynamic_img_size=False), **options)


def test_a_size_that_is_no_whole_number_of_patches():
    with pytest.raises(ValueError, match=r"takes no images of 70 x 70 pixels \(.*divisible by patch size"):
        Classifier(_transformer(), dataclasses.replace(PREPROCESSING, size=70), ModelSpec("tokens"))
    with pytest.raises(ValueError, match=r"takes no images of 70 x 70 pixels"):
        _localizer(_transformer(), scales=(64, 70))


def test_maps_are_refined_along_the_one_stage_of_a_transformer():
    classifier, images = _classifier(_transformer(patch_size=14, img_size=56), size=56), _images(56, 56)
    found, pixels = {}, (images * 40 + 128).clamp(0, 255).to(torch.uint8)
    for name in ("none", "affinity"):
        localizer = Localizer(classifier, MapSpec("chefer", refine=name))
        found[name] = torch.stack(
            [torch.from_numpy(of.maps) for of in localizer.localize([(p,) for p in pixels], [[[1]], [[2]]])]
        )
    _, recorded = classifier.record(classifier.normalize(pixels), frozenset(["blocks.1"]))
    assert classifier.layer("16") == "blocks.1"
    torch.testing.assert_close(found["affinity"], refine(found["none"], [recorded.maps["blocks.1"]]))
