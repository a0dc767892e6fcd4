"""A network that ends in global average pooling and one linear layer: what class activation maps are read from."""

import dataclasses
import functools
import hashlib
import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from camboxes.models.networks import Network, load_network
from camboxes.models.preprocessing import Preprocessing
from camboxes.models.spec import ModelSpec

_BATCH = {"cpu": 4, "cuda": 64}  # images of 224 x 224 pixels
_SUGGESTION = "choose one that ends so, such as efficientnet_lite0, resnet50 or densenet121"


class Activations(NamedTuple):
    """What one forward pass gives.

    Attributes:
      features: the last feature maps before pooling, float32 [n, channels, height, width].
      logits: float32 [n, classes].
    """

    features: torch.Tensor
    logits: torch.Tensor


class Classifier(nn.Module):
    """Backbone, global average pooling, linear layer (Zhou et al. 2016, section 2).

    Attributes:
      spec: the model's spec with nothing left open: qualified name, size, device and batch size.
      preprocessing: how to bring photographs to its input.
      weight: the linear layer's weight, float32 [classes, channels].
      bias: its bias, float32 [classes].
      class_names: for each class its names, the first one first: for ImageNet's classes the names and synonyms of
        the synset, and last its id; for others the class index alone.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, spec: ModelSpec):
        """Takes a network apart.

        Raises:
          ValueError: the network's logits are not linear(GAP(features)), so that CAM is not defined for it.
        """
        super().__init__()
        self.network = network
        self.spec = spec
        # The images are noise: only the equality of two ways to the same logits is asked.
        size = preprocessing.size
        probe = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        self._features, head = _features_and_head(network, spec.name, probe)
        self.register_buffer("weight", head.weight.detach().flatten(1), persistent=False)
        bias = torch.zeros(len(head.weight)) if head.bias is None else head.bias.detach()
        self.register_buffer("bias", bias, persistent=False)
        _check_exactness(self, network, spec.name, probe)
        with torch.inference_mode():
            stride = round(size / self(probe).features.shape[2])
        self.preprocessing = dataclasses.replace(preprocessing, stride=stride)
        self.class_names = _class_names(len(self.weight))

    def forward(self, images: torch.Tensor) -> Activations:
        """Runs the network on normalised images, [n, 3, height, width]: equation 1 of the paper."""
        features = self._features(images)
        return Activations(features, functional.linear(features.mean((2, 3)), self.weight, self.bias))

    def infer(self, images: torch.Tensor) -> Activations:
        """Runs a uint8 batch [n, 3, height, width], as `preprocessing.resize` makes its images, on the device."""
        images = self.preprocessing.normalize(images.to(self.weight.device))
        with torch.inference_mode():
            return self(images.contiguous(memory_format=torch.channels_last))

    def safetensors(self) -> bytes:
        """The network's weights as the bytes of a file for `ModelSpec.weights` of the same name."""
        from safetensors.torch import save

        return save({key: value.cpu().contiguous() for key, value in self.network.state_dict().items()})

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """What decides the maps, the weights by their SHA-256; nothing that names a machine."""
        return self.spec.settings() | {"weights_sha256": hashlib.sha256(self.safetensors()).hexdigest()}


def load_classifier(model: str | ModelSpec) -> Classifier:
    """Loads a classifier, ready to infer on its device.

    Raises:
      ValueError: an unknown name, weights of another network, or a network for which CAM is not exact.
      OSError: weights that cannot be had.
      RuntimeError: a GPU was asked for and there is none. There is no silent fall-back to the CPU.
    """
    spec = ModelSpec(model) if isinstance(model, str) else model
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "device cuda was asked for, and PyTorch sees no GPU here; use --device cpu, or mend the driver"
        )
    network = load_network(spec.name, spec.weights)
    return _ready(network, spec)


def _ready(network: Network, spec: ModelSpec) -> Classifier:
    device = ("cuda" if torch.cuda.is_available() else "cpu") if spec.device == "auto" else spec.device
    preprocessing = dataclasses.replace(
        network.preprocessing, size=spec.size or network.preprocessing.size, aspect=spec.aspect
    )
    spec = dataclasses.replace(
        spec,
        name=network.name,
        size=preprocessing.size,
        device=device,
        batch_size=spec.batch_size or max(1, round(_BATCH[device] * (224 / preprocessing.size) ** 2)),
    )
    classifier = Classifier(network.module, preprocessing, spec).to(device)
    return classifier.to(memory_format=torch.channels_last).eval()


class _TimmFeatures(nn.Module):
    """timm's networks offer their features: no hook is needed."""

    def __init__(self, network: Any):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.forward_features(images)


def _features_and_head(network: Any, name: str, probe: torch.Tensor) -> tuple[nn.Module, Any]:
    """The part of a network before pooling, and its last layer."""
    if hasattr(network, "forward_features") and hasattr(network, "get_classifier"):
        return _TimmFeatures(network), network.get_classifier()
    return _cut_before_pooling(network, name, probe)


def _cut_before_pooling(network: nn.Module, name: str, probe: torch.Tensor) -> tuple[nn.Module, nn.Linear]:
    """Follows a traced network from its output back through its last linear layer to the last feature maps.

    torchvision's networks offer no features of their own, and each ends in its own way (a pooling layer, a function,
    a mean; a ReLU after DenseNet's features). The graph knows them all.
    """
    from torch import fx
    from torch.fx.passes.shape_prop import ShapeProp
    from torchvision.models.feature_extraction import NodePathTracer

    refusal = f"{name} does not end in global average pooling and one linear layer"
    try:
        graph = fx.GraphModule(network, NodePathTracer().trace(network))
        with torch.inference_mode():
            ShapeProp(graph).propagate(probe)
    except Exception as error:  # what cannot be traced fails in its own way
        raise ValueError(f"{refusal}, or cannot be traced ({error}); {_SUGGESTION}") from error
    output = next(node for node in graph.graph.nodes if node.op == "output")
    node, head = output.all_input_nodes[0], None
    while not _is_map(node):
        if head is None and node.op == "call_module":
            layer = network.get_submodule(str(node.target))
            head = layer if isinstance(layer, nn.Linear) else None
        if not node.all_input_nodes:
            break
        node = node.all_input_nodes[0]
    if head is None or not _is_map(node):
        raise ValueError(f"{refusal}; {_SUGGESTION}")
    output.args = (node,)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    graph.delete_all_unused_submodules()
    return graph, head


def _is_map(node: "torch.fx.Node") -> bool:
    shape = getattr(node.meta.get("tensor_meta"), "shape", ())
    return len(shape) == 4 and min(shape[2:]) > 1


def _check_exactness(classifier: Classifier, network: nn.Module, name: str, probe: torch.Tensor) -> None:
    refusal = f"CAM is not exact for {name}: linear(GAP(features)) is not its logits"
    with torch.inference_mode():
        expected = network(probe)
        try:
            given = classifier(probe).logits
        except (RuntimeError, IndexError) as error:  # shapes that do not fit: a hidden layer, tokens for maps
            raise ValueError(
                f"{refusal} (a hidden layer or another kind of pooling stands between); {_SUGGESTION}"
            ) from error
    scale = float(expected.abs().max())
    if not math.isfinite(scale):
        raise ValueError(f"the output of {name} is not finite: its weights hold NaN or infinity")
    difference = float((given - expected).abs().max()) if given.shape == expected.shape else float("inf")
    if not difference <= 1e-4 * scale:
        raise ValueError(
            f"{refusal} (they differ by up to {difference:.3g} where the largest is {scale:.3g}: a norm or a hidden "
            f"layer stands between); {_SUGGESTION}"
        )


def _class_names(count: int) -> list[tuple[str, ...]]:
    from timm.data import ImageNetInfo

    imagenet = ImageNetInfo()
    if count != imagenet.num_classes():
        return [(str(index),) for index in range(count)]
    return [
        (*imagenet.index_to_description(index).split(", "), imagenet.index_to_label_name(index))
        for index in range(count)
    ]
