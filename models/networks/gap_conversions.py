"""GAP conversions: networks rebuilt to end in global average pooling and one linear layer, which are then trained.

Zhou et al. 2016, section 3: the layers behind the last convolutions are removed; for AlexNet, VGG and GoogLeNet also a
few before them, so that the maps are larger (13 x 13 or 14 x 14). A convolution of 3 x 3 with 1024 units, global
average pooling and a linear layer replace them. Any other network keeps all its convolutions.
"""

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from camboxes.models.introspection.parts import Parts, cut_behind, take_apart
from camboxes.models.networks.by_name import Network

# The last layers that the paper keeps, of networks of torchvision: conv5, conv5-3 and inception4e, each with its ReLU.
_LAST_LAYERS = {"alexnet": "features.11", "vgg16": "features.29", "googlenet": "inception4e"}
_UNITS = 1024


class GapNetwork(nn.Module):
    """A network's feature maps, the paper's additional convolution or none, global average pooling and a linear layer.

    `features` computes the feature maps from images [n, 3, height, width]; those of the patches for a network that
    works on tokens. `convolution` is the paper's 3 x 3 convolution with its ReLU, or an identity.
    """

    def __init__(self, features: nn.Module, channels: int, classes: int, *, convolution: bool):
        super().__init__()
        self.features = features
        self.convolution: nn.Module = nn.Identity()
        if convolution:
            self.convolution = nn.Sequential(nn.Conv2d(channels, _UNITS, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(_UNITS if convolution else channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits, [n, classes]."""
        return self.head(self.forward_features(images).mean((2, 3)))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the last feature maps, [n, channels, height, width]."""
        return self.convolution(self.features(images))

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        """Computes logits from the last feature maps."""
        return self.head(maps.mean((2, 3)))

    def get_classifier(self) -> nn.Linear:
        """Gives the linear layer, as timm's networks do."""
        return self.head


class PatchMaps(nn.Module):
    """Computes feature maps [n, channels, height, width] with a network of timm's in another layout, such as tokens."""

    def __init__(self, parts: Parts):
        super().__init__()
        self.network: Any = parts.features.network
        self.num_prefix_tokens = parts.prefix  # timm's name for the number of tokens before those of the patches
        self._layout = parts.layout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes the maps of images."""
        return self._layout.maps(self.network.forward_features(images), images.shape[2:])


def gap_network(network: Network, classes: int) -> Network:
    """Converts a network. Its features keep their weights; new layers get random ones, from torch's generator.

    For a network that is already converted, only the linear layer is new. Raises a ValueError for a network without
    feature maps before its output.
    """
    if isinstance(network.module, GapNetwork):
        module = copy.copy(network.module)
        module._modules = module._modules | {"head": nn.Linear(network.module.head.in_features, classes)}
        return dataclasses.replace(network, module=module)
    library, _, bare = network.name.partition(":")
    last = _LAST_LAYERS.get(bare) if library == "torchvision" else None
    size = network.preprocessing.size
    probe = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    parts = take_apart(network.module, network.name, probe)
    features = PatchMaps(parts) if parts.layout.axes != "NCHW" else parts.features
    if last is not None:
        features = cut_behind(features, last)
    with torch.inference_mode():
        channels = features(probe).shape[1]
    module = GapNetwork(features, channels, classes, convolution=last is not None)
    return dataclasses.replace(network, name=f"gap:{network.name}", module=module.eval())
