import copy
import dataclasses
import io
import json
import pickle
import types

import cloudpickle
import dill
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from camboxes.models import (
    Localizer,
    MapSpec,
    ModelSpec,
    class_activation_maps,
    class_maps,
    load_classifier,
)
from camboxes.models.classifier import Classifier
from camboxes.models.loading import load_for_elsewhere
from camboxes.models.networks.by_name import empty_network, qualified_name
from camboxes.models.networks.gap_conversions import gap_network
from camboxes.models.networks.preprocessing import Preprocessing


class Tiny(nn.Module):
    """Two channels that copy red and green, GAP, and a linear layer."""

    def __init__(self, hidden: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, bias=False)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = nn.LayerNorm(2) if hidden else nn.Identity()
        self.fc = nn.Linear(2, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1.0, 0]]).view(2, 3, 1, 1))
            self.fc.weight.copy_(torch.tensor([[1.0, 0], [0, 1.0], [2.0, -1.0]]))
            self.fc.bias.copy_(torch.tensor([0.0, 0.5, 1.0]))

    def forward(self, x):
        return self.fc(self.norm(self.pool(torch.relu(self.conv(x))).flatten(1)))


PLAIN = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 2, "bilinear")
SPEC = ModelSpec("tiny", size=2, device="cpu", batch_size=1)


def test_a_tiny_network_by_hand():
    classifier = Classifier(Tiny().eval(), PLAIN, SPEC)
    red, green = [[0, 255], [51, 0]], [[255, 0], [0, 102]]
    images = torch.tensor([[red, green, [[0, 0], [0, 0]]]], dtype=torch.uint8)
    features, logits = classifier.infer(images)
    # means: red (1 + 0.2) / 4 = 0.3, green (1 + 0.4) / 4 = 0.35
    np.testing.assert_allclose(logits, [[0.3, 0.85, 1.25]], rtol=1e-6)
    maps = class_activation_maps(features, classifier.weight, torch.tensor([[2]]))
    np.testing.assert_allclose(maps[0, 0], [[-1, 2], [0.4, -0.4]], atol=1e-6)
    assert classifier.class_names == [(), (), ()], "an index is no name"


class TinyBinary(Tiny):
    """Its first class alone."""

    def forward(self, x):
        return super().forward(x)[:, :1]


def test_a_single_logit_is_read_by_its_sigmoid():
    """The softmax of one logit is 1 whatever it is."""
    classifier = Classifier(TinyBinary().eval(), PLAIN, SPEC, ["red"])
    assert classifier.multilabel and classifier.spec.multilabel and classifier.class_names == [("red",)]
    _, logits = classifier.infer(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8))
    # the mean of red is 51 / 255 = 0.2, its logit likewise, and 1 / (1 + exp(-0.2)) = 0.549834
    np.testing.assert_allclose(classifier.probabilities(logits), [[0.549834]], rtol=1e-5)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"]])
def test_more_or_fewer_names_than_outputs(names):
    message = (
        rf"^{len(names)} class names were given, and tiny has 3 outputs; expected one name for each, in their order$"
    )
    with pytest.raises(ValueError, match=message):
        Classifier(Tiny().eval(), PLAIN, SPEC, names)
    with pytest.raises(ValueError, match=r"tiny has 1 outputs; .* each \(the class that a high output stands for\)"):
        Classifier(TinyBinary().eval(), PLAIN, SPEC, ["no", "yes"])


def test_a_norm_before_the_linear_layer_makes_cam_inexact():
    classifier = Classifier(Tiny(hidden=True).eval(), PLAIN, SPEC)
    assert "a norm" in classifier.inexact_because and "they differ by up to" in classifier.inexact_because
    images = torch.rand(3, 3, 2, 2)
    torch.testing.assert_close(classifier(images).logits, classifier.network(images))


def test_a_network_without_a_stage_to_refine_by_is_refused():
    classifier = Classifier(Tiny().eval(), PLAIN, SPEC)
    with pytest.raises(ValueError, match=r"no layer at stride 16; .* has layers at 1: methods without @, and"):
        Localizer(classifier, MapSpec(refine="affinity"))


def _random_weights(name, folder, **arguments):
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, **arguments)
    path = folder / f"{name}.pth"
    torch.save(network.state_dict(), path)
    return network.eval(), path


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "regnet_y_400mf", "mnasnet0_5", "swin_t"]
)
def test_torchvision_networks_keep_their_logits(name, tmp_path):
    network, path = _random_weights(name, tmp_path)
    classifier = load_classifier(ModelSpec(name, weights=str(path), size=96, precision="fp32"))
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features, logits = classifier(images)
        torch.testing.assert_close(logits, network(images), rtol=1e-4, atol=1e-5)
    assert features.shape[2:] == (3, 3)
    (tmp_path / "w.safetensors").write_bytes(classifier.safetensors())  # as a job's workers load them
    weights = str(tmp_path / "w.safetensors")
    again = load_classifier(ModelSpec(name, weights=weights, size=96, precision="fp32"))
    assert again.settings == classifier.settings
    assert classifier.spec.name == f"torchvision:{name}"
    assert classifier.class_names[285] == ("Egyptian cat", "n02124075")


@pytest.mark.parametrize("name", ["torchvision:mobilenet_v3_small", "torchvision:alexnet", "timm:convnext_atto"])
def test_networks_that_end_otherwise_keep_their_logits_too(name):
    torch.manual_seed(0)
    network = empty_network(name)
    classifier = Classifier(network.module, network.preprocessing, ModelSpec(name))
    assert classifier.inexact_because
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(classifier(images).logits, network.module(images), rtol=1e-4, atol=1e-5)


def test_a_network_whose_pooled_maps_are_its_logits():
    """SqueezeNet has no linear layer: each class has a map of its own."""
    torch.manual_seed(0)
    network = empty_network("torchvision:squeezenet1_1")
    classifier = Classifier(network.module, network.preprocessing, ModelSpec("squeezenet1_1"))
    features, logits = classifier(torch.randn(2, 3, 224, 224))
    maps = class_activation_maps(features, classifier.weight, torch.tensor([[3, 999], [0, 7]]))
    assert torch.equal(maps[0], features[0, [3, 999]]) and torch.equal(maps[1], features[1, [0, 7]])
    torch.testing.assert_close(features.mean((2, 3)), logits)
    with pytest.raises(ValueError, match="class id 1000 is not among the network's 1000 classes"):
        class_activation_maps(features, classifier.weight, torch.tensor([[1000], [0]]))
    # d logit / d f_k is 1 / cells for the class's own map, and 0 for others.
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    own = classifier(images).features[:, 3]
    torch.testing.assert_close(class_maps(classifier, images, torch.tensor([[3]]), "hirescam")[:, 0], own / 169)


class _Largest(TorchDispatchMode):
    """Notes how many values the largest tensor has that an operation makes."""

    values = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            self.values = max(self.values, tensor.numel() if isinstance(tensor, torch.Tensor) else 0)
        return result


@pytest.mark.parametrize("linear", [True, False], ids=["a linear layer", "a map for each class"])
def test_memory_does_not_grow_with_the_square_of_the_classes(linear):
    classes, channels = 21_841, 2
    last = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    maps = nn.Conv2d(3, channels if linear else classes, 1)
    with _Largest() as made:
        network = nn.Sequential(maps, nn.ReLU(), *last, *([nn.Linear(channels, classes)] if linear else []))
        preprocessing = dataclasses.replace(PLAIN, size=8)
        classifier = Classifier(network.eval(), preprocessing, ModelSpec("tiny", size=8, device="cpu", batch_size=2))
        images, ids = torch.rand(2, 3, 8, 8), torch.tensor([[5], [21_840]])
        found = {method: class_maps(classifier, images, ids, method) for method in ("cam", "hirescam", "layercam")}
    assert 2 * classes <= made.values <= 2 * 64 * classes
    torch.testing.assert_close(found["cam"] / 64, found["hirescam"])


def test_maps_are_the_same_without_onednn(photographs):
    """A build of PyTorch for another processor may have none of its kernels, or not all of them."""
    spec = ModelSpec("efficientnet_lite0", precision="fp32")
    maps = MapSpec("cam*layercam@16", refine="affinity")
    [image] = _photographs(photographs)[:1]

    def localized():
        localizer = Localizer(load_classifier(spec), maps)
        return localizer.classifier.spec.compile, localizer.localize([localizer.resize(image)], [[[285]]])[0].maps

    compiled, expected = localized()
    assert compiled == "on"  # else nothing is tried here
    with torch.backends.mkldnn.flags(enabled=False):
        switched_off = localized()
        with pytest.raises(ValueError, match="compile on: the layers of this network cannot be fused here"):
            load_classifier(dataclasses.replace(spec, compile="on"))
    with pytest.MonkeyPatch.context() as build:
        build.setattr(torch.ops, "mkldnn", types.SimpleNamespace())
        absent = localized()
    for compiled, found in (switched_off, absent):
        assert compiled == "off"
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_network_with_its_channels_last():
    torch.manual_seed(0)
    network = empty_network("timm:swin_tiny_patch4_window7_224")
    classifier = Classifier(network.module, network.preprocessing, ModelSpec("swin"))
    assert classifier.inexact_because is None
    assert classifier(torch.randn(2, 3, 224, 224)).features.shape == (2, 768, 7, 7)


@pytest.mark.parametrize("name", ["timm:pit_ti_224", "timm:efficientvim_m1"])  # one token; a list of maps
def test_networks_without_feature_maps_are_refused(name):
    network = empty_network(name)
    with pytest.raises(ValueError, match=f"{name} has no feature maps before its output: expected maps, or a sequence"):
        Classifier(network.module, network.preprocessing, ModelSpec(name))


def test_a_file_with_another_number_of_classes(tmp_path):
    _, path = _random_weights("resnet18", tmp_path, num_classes=7)
    assert load_classifier(ModelSpec("resnet18", weights=str(path), size=64)).weight.shape == (7, 512)


def test_what_is_said_of_weights_of_ones_own_is_kept_in_a_checkpoint(tmp_path):
    _, path = _random_weights("resnet18", tmp_path, num_classes=3)
    said = {"classes": ("1", "10", ("2", "two")), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.25, 1.0), "multilabel": True}
    classifier = load_classifier(ModelSpec("resnet18", str(path), 64, **said))
    assert classifier.class_names == [("1",), ("10",), ("2", "two")] and classifier.multilabel
    image = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    np.testing.assert_allclose(classifier.normalize(image).flatten(), [0.9 / 0.5, 0.8 / 0.25, 0.7], rtol=1e-6)
    folder = tmp_path / "ckpt"
    folder.mkdir()
    for name, content in classifier.files({"images": 7}).items():
        (folder / name).write_bytes(content)
    again = load_classifier(ModelSpec(str(folder)))
    assert again.settings == classifier.settings and again.class_names == classifier.class_names
    assert again.training_record == {"images": 7}
    plain = load_classifier(ModelSpec("resnet18", str(path), 64))
    assert plain.class_names == [(), (), ()] and not plain.multilabel
    for field in ("mean", "std", "multilabel", "class_names_sha256"):
        assert plain.settings[field] != classifier.settings[field], field
    corrected = load_classifier(ModelSpec(str(folder), classes=("a", "b", "c"), multilabel=False))
    assert corrected.class_names == [("a",), ("b",), ("c",)] and not corrected.multilabel


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean is 0.5, 0.5; expected three numbers"),
        ({"mean": (123.7, 116.8, 103.9)}, "mean is 123.7, 116.8, 103.9; expected numbers from 0 to 1, .* by 255"),
        ({"std": (58.4, 57.1, 57.4)}, "std is 58.4, .* divide those for pixels from 0 to 255 by 255"),
        ({"std": (0.5, 0.0, 0.5)}, "std is 0.5, 0, 0.5; expected positive numbers"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "mean is nan, 0.5, 0.5; expected numbers from 0 to 1"),
    ],
)
def test_a_mean_and_a_std_that_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        ModelSpec(**values)


def _description(folder, **changes):
    _, path = _random_weights("resnet18", folder, num_classes=2)
    torch_state = torch.load(path, weights_only=True)
    save_file(torch_state, folder / "weights.safetensors")
    asked = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5], "size": 64, "interpolation": "bilinear"}
    described = {"network": "resnet18", "class_names": ["cat", "dog"], "preprocessing": asked} | changes
    (folder / "classifier.json").write_text(json.dumps(described))


def test_a_description_that_a_person_wrote(tmp_path):
    _description(tmp_path, multilabel=True)
    classifier = load_classifier(ModelSpec(str(tmp_path)))
    assert classifier.class_names == [("cat",), ("dog",)], "not their letters"
    assert (classifier.spec.name, classifier.spec.size) == ("torchvision:resnet18", 64)
    assert classifier.spec.mean == (0.1, 0.2, 0.3) and classifier.multilabel and not classifier.training_record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 7}, "schema_version is 7; expected 1"),
        ({"class_names": ["cat", 3]}, "class 1 is 3; expected a list of names"),
        ({"class_names": ["cat"]}, "1 class names were given, and torchvision:resnet18 has 2 outputs"),
        ({"preprocessing": {}}, "is not what camboxes train writes .*'mean'"),
        ({"clas_names": []}, "is not what camboxes train writes .*clas_names"),
    ],
)
def test_a_description_with_a_mistake(changes, message, tmp_path):
    _description(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        load_classifier(ModelSpec(str(tmp_path)))


def test_wrappers_and_prefixes_of_state_dicts(tmp_path):
    network, _ = _random_weights("resnet18", tmp_path)
    wrapped = {"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}, "epoch": 3}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    classifier = load_classifier(ModelSpec("resnet18", weights=str(tmp_path / "wrapped.pth"), size=64))
    assert torch.equal(classifier.weight, network.fc.weight)


def test_saved_weights_load_again_and_give_the_same_bits(classifier, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(classifier.safetensors())
    weights = str(tmp_path / "w.safetensors")
    again = load_classifier(ModelSpec(classifier.spec.name, weights=weights, precision="fp32"))
    images = torch.randint(0, 256, (8, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again.infer(images).logits, classifier.infer(images).logits)
    assert again.settings == classifier.settings


def test_weights_that_are_not_finite(tmp_path):
    network, path = _random_weights("resnet18", tmp_path)
    network.fc.bias.data[3] = float("nan")
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match="the output of torchvision:resnet18 is not finite: its weights hold NaN"):
        load_classifier(ModelSpec("resnet18", weights=str(path), size=64))


def test_weights_of_another_network(classifier, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(classifier.safetensors())
    with pytest.raises(ValueError, match=r"are not those of torchvision:resnet18: \d+ of its 122 tensors are missing"):
        load_classifier(ModelSpec("resnet18", weights=str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize("content", [b"", b"no weights at all"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_holds_no_weights(content, suffix, tmp_path):
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not readable as safetensors or as a PyTorch state dict"):
        load_classifier(ModelSpec("resnet18", weights=str(path)))


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was_here"),)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not readable"):
        load_classifier(ModelSpec("resnet18", weights=str(tmp_path / "evil.pth")))
    assert not (tmp_path / "was_here").exists()


def test_names():
    assert qualified_name("resnet50") == "torchvision:resnet50"
    assert qualified_name("timm:resnet50") == "timm:resnet50"
    assert qualified_name("resnet26d") == "timm:resnet26d"
    assert qualified_name("efficientnet_lite0") == "timm:tf_efficientnet_lite0"
    assert qualified_name("timm:efficientnet_lite0") == "timm:efficientnet_lite0"
    assert qualified_name("timm:resnet50.a1_in1k") == qualified_name("resnet50.a1_in1k") == "timm:resnet50.a1_in1k"
    assert qualified_name("gap:resnet50.a1_in1k") == "gap:timm:resnet50.a1_in1k"
    with pytest.raises(
        ValueError, match=r"timm has no weights 'a9_in1k' for resnet50; nearest names: .*resnet50.a1_in"
    ):
        qualified_name("timm:resnet50.a9_in1k")
    with pytest.raises(ValueError, match=r"not known to torchvision; nearest names: resnet50"):
        qualified_name("torchvision:resnet50.a1_in1k")
    with pytest.raises(ValueError, match=r"'resnte50.a1_in1k' is not known to torchvision or timm; nearest names: .*"):
        qualified_name("resnte50.a1_in1k")
    with pytest.raises(ValueError, match=r"'resnte50' is not known to torchvision or timm; nearest names: .*resnet50"):
        qualified_name("resnte50")
    with pytest.raises(ValueError, match="'keras' is no library of networks"):
        qualified_name("keras:resnet50")


def test_the_tag_of_weights_decides_what_they_ask_of_an_image(tmp_path):
    """timm's resnet18 asks for bicubic resizing with some weights, and for bilinear with others."""
    torch.manual_seed(0)
    torch.save(empty_network("timm:resnet18").module.state_dict(), tmp_path / "w.pth")
    found = {
        tag: load_for_elsewhere(
            ModelSpec(
                f"resnet18.{tag}", str(tmp_path / "w.pth"), size=64, device="cpu", precision="fp32", compile="off"
            )
        )
        for tag in ("a1_in1k", "tv_in1k")
    }
    assert {tag: classifier.preprocessing.interpolation for tag, classifier in found.items()} == {
        "a1_in1k": "bicubic",
        "tv_in1k": "bilinear",
    }
    assert found["a1_in1k"].settings["name"] == "timm:resnet18.a1_in1k"
    (tmp_path / "ckpt").mkdir()
    for name, content in found["tv_in1k"].files().items():
        (tmp_path / "ckpt" / name).write_bytes(content)
    again = load_classifier(ModelSpec(str(tmp_path / "ckpt"), size=64, precision="fp32"))
    assert (again.spec.name, again.preprocessing.interpolation) == ("timm:resnet18.tv_in1k", "bilinear")
    assert again.weights_sha256 == found["tv_in1k"].weights_sha256


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_absent_gpu_is_an_error():
    with pytest.raises(RuntimeError, match="device cuda was asked for, but PyTorch finds no GPU"):
        load_classifier(ModelSpec("efficientnet_lite0", device="cuda"))


def test_a_network_that_another_machine_will_run(classifier):
    found = load_for_elsewhere(ModelSpec(device="cuda", precision="fp16", compile="off"))
    assert found.spec.device == "cuda" and next(found.network.parameters()).device.type == "cpu"
    assert (found.spec.precision, found.spec.compile, found.spec.batch_size) == ("fp16", "off", 64)
    assert found.spec.name == classifier.spec.name
    for same in ("class_names", "preprocessing", "weights_sha256"):
        assert getattr(found, same) == getattr(classifier, same)
    with pytest.raises(ValueError, match="device and compile auto: what another machine can do is not known here"):
        load_for_elsewhere(ModelSpec(precision="fp32"))


def test_weights_that_are_not_those_of_the_spec(classifier):
    spec = ModelSpec(precision="fp32", weights_sha256=classifier.weights_sha256)
    assert load_classifier(spec).settings == classifier.settings
    with pytest.raises(ValueError, match=f"have the SHA-256 {classifier.weights_sha256}; expected 00ff"):
        load_classifier(ModelSpec(precision="fp32", weights_sha256="00ff"))


def _by_torch(given):
    file = io.BytesIO()
    torch.save(given, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "pickle": lambda given: pickle.loads(pickle.dumps(given)),
    "cloudpickle": lambda given: cloudpickle.loads(cloudpickle.dumps(given)),
    "dill": lambda given: dill.loads(dill.dumps(given)),
    "copy.deepcopy": copy.deepcopy,
    "copy.copy": copy.copy,
    "torch.save": _by_torch,
}


@pytest.fixture(scope="module")
def used(classifier):
    """A localizer whose layers are fused, and what it says of noise."""
    maps = MapSpec("cam*layercam@32[-2]", scales=(224, 448), fine_scales=True)
    localizer = Localizer(classifier, maps)
    images = [localizer.resize(np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8))]
    [found] = localizer.localize(images, [[[285], [7]]])
    assert classifier.spec.compile == "on" and classifier._executed() is not classifier._recorder.features
    return localizer, images, found


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_localizer_that_was_used_is_pickled_and_copied(used, copied):
    localizer, images, expected = used
    again = copied(localizer)
    [found] = again.localize(images, [[[285], [7]]])
    assert np.array_equal(found.maps, expected.maps) and np.array_equal(found.logits, expected.logits)
    assert again.settings == localizer.settings
    assert again.classifier.settings == localizer.classifier.settings
    assert again.classifier.class_names == localizer.classifier.class_names


def test_the_scales_of_a_copy_share_the_weights_as_those_of_the_original_do(used):
    localizer, _, _ = used
    assert len(pickle.dumps(localizer)) < 1.1 * localizer.classifier.weights_bytes


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:deit_tiny_patch16_224", "gap:torchvision:alexnet"])
def test_a_copy_finds_the_same_layers(name, tmp_path):
    """Of a network that was traced, of one that works on tokens, and of one that was cut."""
    torch.manual_seed(0)
    network = empty_network(name.removeprefix("gap:"))
    if name.startswith("gap:"):
        network = gap_network(network, 5)
    spec = ModelSpec(name, device="cpu", batch_size=2)
    classifier = Classifier(network.module, network.preprocessing, spec, multilabel=True).eval()
    classifier.layer("16")
    again = pickle.loads(pickle.dumps(classifier))
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    ids = torch.tensor([[1], [2]])
    layers = ["16", *{"torchvision:resnet18": ["layer2"], "gap:torchvision:alexnet": ["8"]}.get(name, [])]
    for method in ("layercam", *(f"layercam@{layer}" for layer in layers)):
        assert torch.equal(class_maps(again, images, ids, method), class_maps(classifier, images, ids, method)), method
    assert (again.multilabel, again.training, again.last) == (True, False, classifier.last)


class Several(nn.Module):
    """Logits, and what else a network may give."""

    def __init__(self, give):
        super().__init__()
        self.network, self.give = Tiny(), give

    def forward(self, x):
        return self.give(self.network(x))


@dataclasses.dataclass
class Output:
    loss: None
    logits: torch.Tensor


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda x: (x, x[:, :2]), r"an output of the type tuple with the tensors 0 \[2, 3\], 1 \[2, 2\]"),
        (lambda x: [x], r"an output of the type list with the tensors 0 \[2, 3\]"),
        (lambda x: {"logits": x, "aux": None}, r"an output of the type dict with the tensors logits \[2, 3\]"),
        (lambda x: Output(None, x), r"an output of the type Output with the tensors logits \[2, 3\]"),
        (
            lambda x: torchvision.models.InceptionOutputs(x, x),
            r"an output of the type InceptionOutputs with the tensors 0 .*, 1 .*",
        ),
        (lambda x: x[:, 0], r"a tensor of shape \[2\]"),
        (lambda x: x[:, :, None, None], r"a tensor of shape \[2, 3, 1, 1\]"),
        (lambda x: None, "an output of the type NoneType"),
    ],
)
def test_a_network_that_gives_more_than_logits_is_told_what_it_gave(give, message):
    expected = f"tiny gives {message}; expected logits alone, a tensor of .*: put the network into a module whose"
    with pytest.raises(ValueError, match=expected):
        Classifier(Several(give).eval(), PLAIN, SPEC)


def test_auxiliary_logits_of_training_do_not_matter():
    """torchvision's GoogLeNet gives three outputs in training mode, and a classifier evaluates."""
    network = empty_network("torchvision:googlenet")
    classifier = Classifier(network.module.train(), network.preprocessing, ModelSpec("googlenet"))
    assert classifier.inexact_because is None and network.module.training


def _photographs(folder):
    return [np.array(Image.open(path).convert("RGB")) for path in sorted(folder.glob("*/*"))]


def test_what_the_network_says_of_the_photographs(classifier, photographs):
    said = {}
    for path, image in zip(sorted(photographs.glob("*/*")), _photographs(photographs), strict=True):
        probabilities = classifier.infer(classifier.preprocessing.resize(image)[None]).logits.softmax(1)[0]
        said[path.parent.name] = (
            classifier.class_names[probabilities.argmax()][0],
            round(float(probabilities.max()), 2),
        )
    # As measured with another implementation (Pillow's resizing): .77, .90, .95, .46, .47
    expected = {"Egyptian cat": 0.77, "espresso": 0.90, "tripod": 0.95, "moped": 0.46, "military uniform": 0.47}
    assert {label: name for label, (name, _) in said.items()} == {label: label for label in expected}
    assert all(abs(said[label][1] - probability) <= 0.02 for label, probability in expected.items())


def test_parity_with_torchcam(classifier, photographs):
    from torchcam.methods import CAM

    images = torch.stack([classifier.preprocessing.resize(image) for image in _photographs(photographs)])
    images, ids = classifier.preprocessing.normalize(images), [285, 967, 872, 665, 652]
    with torch.inference_mode():
        features, _ = classifier(images)
        ours = class_activation_maps(features, classifier.weight, torch.tensor(ids)[:, None])[:, 0]
    with CAM(classifier.network, target_layer="bn2", fc_layer="classifier") as extractor:
        logits = classifier.network(images)
        theirs = extractor(ids, logits, normalized=False)[0].detach()
    torch.testing.assert_close(theirs.clamp(min=0), ours.clamp(min=0), rtol=1e-4, atol=1e-4)
