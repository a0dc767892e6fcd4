"""A network made to end in global average pooling and one linear layer, which then has to be trained.

Zhou et al. 2016, section 3: the layers behind the last convolutions are removed, and for AlexNet, VGG and GoogLeNet a
few before them, so that the maps are larger (13 x 13 or 14 x 14); a convolution of 3 x 3 with 1024 units, global
average pooling and a linear layer are put in their place. Any other network keeps all its convolutions.
"""

import copy
import dataclasses
from typing import Any

import torch
from torch import nn

from camboxes.models.introspection.parts import Parts, take_apart
from camboxes.models.introspection.traced import cut_behind
from camboxes.models.networks.by_name import Network

# What the paper cuts behind, by torchvision's names: conv5, conv5-3 and inception4e, each with its ReLU.
_LAST_LAYERS = {
    "torchvision:alexnet": "features.11",
    "torchvision:vgg16": "features.29",
    "torchvision:googlenet": "inception4e",
}
_UNITS = 1024


class GapNetwork(nn.Module):
    """Feature maps, in the paper's networks one more convolution, global average pooling, a linear layer.

    Attributes:
      features: images [n, 3, height, width] to feature maps, as the network that was converted made them; of a network
        that works on tokens, those of the patches.
      convolution: the paper's 3 x 3 convolution with its ReLU, or nothing.
      head: the linear layer.
    """

    def __init__(self, features: nn.Module, channels: int, classes: int, *, convolution: bool):
        super().__init__()
        self.features = features
        self.convolution: nn.Module = nn.Identity()
        if convolution:
            self.convolution = nn.Sequential(nn.Conv2d(channels, _UNITS, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(_UNITS if convolution else channels, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to logits, [n, classes]."""
        return self.head(self.forward_features(images).mean((2, 3)))

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        """Images to the last feature maps, [n, channels, height, width]."""
        return self.convolution(self.features(images))

    def forward_head(self, maps: torch.Tensor) -> torch.Tensor:
        """The last feature maps to logits."""
        return self.head(maps.mean((2, 3)))

    def get_classifier(self) -> nn.Linear:
        """The linear layer, as timm's networks give theirs."""
        return self.head


class PatchMaps(nn.Module):
    """The features of a network of timm whose maps lie in another layout, such as tokens, as the usual maps.

    Attributes:
      network: the network, with all its tokens.
      num_prefix_tokens: how many of them stand before those of the patches, as timm's networks say it; or None.
    """

    def __init__(self, parts: Parts):
        super().__init__()
        self.network: Any = parts.features.network
        self.num_prefix_tokens = parts.prefix
        self._layout = parts.layout

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images to maps."""
        return self._layout.maps(self.network.forward_features(images), images.shape[2:])


def gap_network(network: Network, classes: int) -> Network:
    """Converts a network. Its features keep their weights; the rest is new, by torch's random generator.

    Of a network that is converted already, only the linear layer is new.

    Raises:
      ValueError: the network has no feature maps before its output.
    """
    if isinstance(network.module, GapNetwork):
        module = copy.copy(network.module)
        module._modules = module._modules | {"head": nn.Linear(network.module.head.in_features, classes)}
        return dataclasses.replace(network, module=module)
    last = _LAST_LAYERS.get(network.name)
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
