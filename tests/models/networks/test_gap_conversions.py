import numpy as np
import pytest
import torch
from torch import nn

from camboxes.models import ModelSpec, class_maps, load_classifier
from camboxes.models.classifier import Classifier
from camboxes.models.networks.by_name import empty_network
from camboxes.models.networks.checkpoints import Description
from camboxes.models.networks.gap_conversions import gap_network
from camboxes.models.networks.preprocessing import Preprocessing

PROBE = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2))


_UP_TO_INCEPTION_4E = """conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3
    inception4a inception4b inception4c inception4d inception4e"""


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("name", "last", "cells"),
    [
        ("alexnet", lambda n: nn.Sequential(*n.features[:12]), 13),  # conv5 and its ReLU
        ("vgg16", lambda n: nn.Sequential(*n.features[:30]), 14),  # conv5-3 and its ReLU
        ("googlenet", None, 14),
    ],
)
def test_the_papers_conversions(name, last, cells):
    """Section 3: layers removed, a 3 x 3 convolution of 1024 units, GAP, a linear layer; 13 x 13 or 14 x 14 maps."""
    network = empty_network(f"torchvision:{name}")
    converted = gap_network(network, 7)
    assert converted.name == f"gap:torchvision:{name}"
    convolution = converted.module.convolution[0]
    assert (convolution.kernel_size, convolution.stride, convolution.padding) == ((3, 3), (1, 1), (1, 1))
    with torch.inference_mode():
        maps = converted.module.features(PROBE)
        assert converted.module.forward_features(PROBE).shape == (2, 1024, cells, cells)
        if last is not None:
            torch.testing.assert_close(maps, last(network.module)(PROBE))
        else:
            x = network.module._transform_input(PROBE)
            for layer in _UP_TO_INCEPTION_4E.split():
                x = getattr(network.module, layer)(x)
            torch.testing.assert_close(maps, x)
    classifier = Classifier(converted.module, converted.preprocessing, ModelSpec(name))
    assert classifier.inexact_because is None and classifier.preprocessing.stride == round(224 / cells)
    assert classifier.weight.shape == (7, 1024)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("torchvision:mobilenet_v3_small", 576), ("torchvision:convnext_tiny", 768), ("timm:convnext_atto", 320),
     ("torchvision:resnet18", 512), ("timm:tf_efficientnet_lite0", 1280)],
)  # fmt: skip
def test_any_other_network_keeps_its_last_maps(name, channels):
    network = empty_network(name)
    original = Classifier(network.module, network.preprocessing, ModelSpec(name))
    converted = gap_network(network, 5)
    classifier = Classifier(converted.module, converted.preprocessing, ModelSpec(converted.name))
    with torch.inference_mode():
        torch.testing.assert_close(classifier(PROBE).features, original(PROBE).features)
    assert classifier.inexact_because is None and classifier.weight.shape == (5, channels)
    assert class_maps(classifier, PROBE, torch.tensor([[4], [0]]), "layercam@16").shape == (2, 1, 14, 14)


def test_a_converted_network_is_converted_no_further():
    network = gap_network(empty_network("torchvision:resnet18"), 5)
    again = gap_network(network, 9)
    assert again.name == network.name and again.module.head.out_features == 9 and network.module.head.out_features == 5
    assert again.module.features is network.module.features


def test_a_conversion_without_trained_weights():
    with pytest.raises(
        ValueError,
        match="gap:torchvision:alexnet has no trained weights: train the model gap:alexnet with camboxes train",
    ):
        load_classifier("gap:alexnet")


def _checkpoint(folder, name="torchvision:resnet18", **options):
    network = gap_network(empty_network(name), 2)
    names, preprocessing = (
        (("raccoon",), ("background", "nothing")),
        Preprocessing((0.1, 0.2, 0.3), (1, 2, 3), 64, "bicubic"),
    )
    classifier = Classifier(network.module.eval(), preprocessing, ModelSpec(network.name, size=64), names, **options)
    for name, content in classifier.files().items():
        (folder / name).write_bytes(content)
    return classifier


def test_a_checkpoint_is_loaded_as_it_was_saved(tmp_path):
    before = _checkpoint(tmp_path, multilabel=True)
    after = load_classifier(ModelSpec(str(tmp_path), precision="fp32"))
    assert after.class_names == [("raccoon",), ("background", "nothing")] and after.multilabel
    assert after.spec.name == "gap:torchvision:resnet18" and after.spec.size == 64
    assert (after.preprocessing.mean, after.preprocessing.interpolation) == ((0.1, 0.2, 0.3), "bicubic")
    images = torch.randn(3, 3, 64, 64)
    torch.testing.assert_close(after(images).logits, before(images).logits, rtol=1e-4, atol=1e-5)
    logits = after(images).logits
    torch.testing.assert_close(after.probabilities(logits), 1 / (1 + torch.exp(-logits)))
    (tmp_path / "again").mkdir()
    for name, content in after.files().items():
        (tmp_path / "again" / name).write_bytes(content)
    again = load_classifier(ModelSpec(str(tmp_path / "again"), precision="fp32"))
    assert again.settings == after.settings


def test_a_folder_that_is_called_like_a_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "efficientnet_lite0").mkdir()
    assert load_classifier("efficientnet_lite0").spec.name == "timm:tf_efficientnet_lite0"


def test_descriptions_survive_json():
    preprocessing = Preprocessing((0.0,) * 3, (1.0,) * 3, 9, "bilinear")
    described = Description("gap:timm:resnet26d", (("a", "b"), ("ü",)), preprocessing,
                            multilabel=True, map_stride=16, training={"accuracy": 0.5})  # fmt: skip
    assert Description.from_json(described.to_json()) == described


def test_folders_and_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"a folder without classifier.json; expected one that camboxes train wrote"):
        load_classifier(str(tmp_path))
    _checkpoint(tmp_path)
    with pytest.raises(ValueError, match=r"is a checkpoint with its own weights; leave out 'w.pth'"):
        load_classifier(ModelSpec(str(tmp_path), weights="w.pth"))
    (tmp_path / "classifier.json").write_text('{"schema_version": 1}')
    with pytest.raises(ValueError, match="is not what camboxes train writes"):
        load_classifier(str(tmp_path))


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:resnet50", "timm:tf_efficientnet_lite0",
                                  "torchvision:regnet_y_400mf", "torchvision:mobilenet_v2"])  # fmt: skip
def test_lower_strides(name, tmp_path):
    network = empty_network(name)
    torch.save(network.module.state_dict(), tmp_path / "w.pth")
    for stride in (16, 8):
        classifier = load_classifier(ModelSpec(name, str(tmp_path / "w.pth"), size=96, map_stride=stride))
        assert classifier(PROBE[:1, :, :96, :96]).features.shape[2:] == (96 // stride, 96 // stride)
        assert classifier.inexact_because is None and classifier.preprocessing.stride == stride


def test_a_lower_stride_is_what_torchvision_does(tmp_path):
    from torchvision.models import resnet50

    torch.manual_seed(0)
    theirs = resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    ours = load_classifier(ModelSpec("resnet50", str(tmp_path / "w.pth"), map_stride=8, precision="fp32"))
    images = torch.randn(1, 3, 128, 128)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images).logits, theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "stride", "message"),
    [
        ("torchvision:resnet18", 12, "map_stride is 12; expected a power of 2"),
        (
            "torchvision:densenet121",
            16,
            "16 is not possible: a pooling layer takes the maps from stride 16 to 32",
        ),
    ],
)
def test_strides_that_cannot_be_had(name, stride, message, tmp_path):
    torch.save(empty_network(name).module.state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=message):
        load_classifier(ModelSpec(name, str(tmp_path / "w.pth"), map_stride=stride))


def test_another_stride_shares_the_weights_and_the_names_of_layers(classifier):
    finer = classifier.at_stride(16)
    theirs, ours = ({tensor.data_ptr() for tensor in one.network.state_dict().values()} for one in (finer, classifier))
    assert theirs == ours and finer.weights_sha256 == classifier.weights_sha256
    assert [finer.layer(wanted) for wanted in ("16", "32[-2]", "8")] == ["blocks.4", "blocks.5", "blocks.2"]
    assert (finer.spec.map_stride, classifier.spec.map_stride) == (16, None)
    assert classifier(PROBE[:1]).features.shape[2:] == (7, 7) and finer(PROBE[:1]).features.shape[2:] == (14, 14)


def test_a_lower_stride_finds_the_same_object(classifier, photographs):
    """Dilation lets pretrained weights go on: probabilities stay near, and maps are finer."""
    from PIL import Image

    finer = load_classifier(ModelSpec("efficientnet_lite0", map_stride=16))
    image = np.array(Image.open(photographs / "Egyptian cat" / "chelsea.png").convert("RGB"))
    coarse, fine = (c.infer(c.preprocessing.resize(image)[None]) for c in (classifier, finer))
    assert int(fine.logits.argmax()) == int(coarse.logits.argmax()) == 285
    assert fine.features.shape[2:] == (14, 14)
