import pytest
import torch
from safetensors.torch import save_file

from camboxes.models import ModelSpec, load_classifier
from camboxes.models.networks.by_name import load_network

_TENSORS = {"_bn": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"), "_se": ("weight", "bias")}


def _names(blocks, *, squeeze):
    """EfficientNet-PyTorch's names in the order of its state dict, as its 0.7.1 writes them."""
    layers = ["_conv_stem", "_bn0"]
    for number in range(blocks):
        parts = [*(["_expand_conv", "_bn0"] if number else []), "_depthwise_conv", "_bn1"]
        parts += [*(["_se_reduce", "_se_expand"] if squeeze else []), "_project_conv", "_bn2"]
        layers += [f"_blocks.{number}.{part}" for part in parts]
    for layer in (*layers, "_conv_head", "_bn1"):
        for tensor in _TENSORS.get(layer.rpartition(".")[2][:3], ("weight",)):
            yield f"{layer}.{tensor}"
    yield from ("_fc.weight", "_fc.bias")


def _file(folder, name, blocks, classes=1000, *, squeeze=True):
    """Random weights of a timm network, and a file of them under EfficientNet-PyTorch's names, sorted as by name."""
    import timm

    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=classes).eval()
    state = {key: torch.rand_like(value.float()) for key, value in network.state_dict().items()}
    network.load_state_dict(state)
    path = folder / "weights.safetensors"
    pairs = zip(_names(blocks, squeeze=squeeze), state.values(), strict=True)
    save_file({key: value.contiguous() for key, value in sorted(pairs)}, path)
    return network, str(path)


@pytest.mark.parametrize(
    ("name", "blocks", "squeeze"), [("tf_efficientnet_b0", 16, True), ("tf_efficientnet_lite0", 16, False)]
)
def test_each_tensor_of_efficientnet_pytorch_gets_its_place(name, blocks, squeeze, tmp_path):
    network, path = _file(tmp_path, name, blocks, squeeze=squeeze)
    loaded = load_network(f"timm:{name}", path).module.state_dict()
    for key, value in network.state_dict().items():
        assert torch.equal(loaded[key], value), key


def test_a_file_of_efficientnet_pytorch_with_classes_of_its_own(tmp_path):
    network, path = _file(tmp_path, "tf_efficientnet_b0", 16, classes=7)
    loaded = load_network("timm:tf_efficientnet_b0", path).module
    assert torch.equal(loaded.classifier.weight, network.classifier.weight) and len(loaded.classifier.weight) == 7


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("timm:efficientnet_b0", "timm:tf_efficientnet_b0"),
        ("efficientnet_b0", "timm:tf_efficientnet_b0"),
        ("timm:efficientnet_lite0", "timm:tf_efficientnet_lite0"),
        ("resnet18", "timm:tf_efficientnet_b0, _b1 and so on"),
    ],
)
def test_a_network_that_pads_otherwise_does_not_take_them(name, meant, tmp_path):
    _, path = _file(tmp_path, "tf_efficientnet_b0", 16)
    with pytest.raises(ValueError, match=rf"are EfficientNet-PyTorch's .* The network that pads so is {meant}$"):
        load_classifier(ModelSpec(name, weights=path))
