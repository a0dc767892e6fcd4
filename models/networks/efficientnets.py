"""Renames the tensors of EfficientNet-PyTorch's files as timm's networks name them.

Only timm's `tf_` networks compute the same, since EfficientNet-PyTorch pads as TensorFlow does. Measured with version
0.7.1 and random weights, B0 and B4: the logits of `tf_efficientnet_b0` are equal to 1e-6; those of `efficientnet_b0`,
which the tensors fit too, are altogether different.
"""

import re
from collections.abc import Iterable, Mapping

import torch

STEM = "_conv_stem.weight"  # a tensor that such files alone have

_LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)")
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **_SQUEEZE}
_EXPANDING = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3", **_SQUEEZE},
}


def timm_names(state: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """Renames the tensors of a file, in any order, as those of the network are `wanted`, in its order.

    The file's blocks are numbered one by one, the network's by stage. Unknown names are kept.
    """
    blocks = list(dict.fromkeys(found[0] for key in wanted if (found := re.match(r"blocks\.\d+\.\d+", key))))

    def renamed(key: str) -> str:
        layer, _, parameter = key.rpartition(".")
        if layer in _LAYERS:
            return f"{_LAYERS[layer]}.{parameter}"
        found = _BLOCK.fullmatch(layer)
        if found is None or int(found[1]) >= len(blocks):
            return key
        names = _EXPANDING if f"_blocks.{found[1]}._expand_conv.weight" in state else _PLAIN
        return f"{blocks[int(found[1])]}.{names.get(found[2], found[2])}.{parameter}"

    return {renamed(key): tensor for key, tensor in state.items()}
