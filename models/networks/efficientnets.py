"""The names of tensors in EfficientNet-PyTorch's files, and in timm's networks of the same layers.

Only timm's `tf_` networks compute the same: that library pads as TensorFlow does. Measured with EfficientNet-PyTorch
0.7.1 and random weights, B0 and B4: logits equal to 1e-6 in `tf_efficientnet_b0`, others altogether in
`efficientnet_b0`, where the tensors fit too.
"""

import re
from collections.abc import Iterable, Mapping

import torch

STEM = "_conv_stem.weight"  # what tells such a file

_LAYERS = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)")
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2", **_SQUEEZE}
_EXPANDING = {
    **{"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"},
    **{"_project_conv": "conv_pwl", "_bn2": "bn3", **_SQUEEZE},
}


def timm_names(state: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """The tensors of a file under the names that timm has for them; what is not known keeps its name.

    Args:
      state: the tensors under EfficientNet-PyTorch's names, in any order.
      wanted: the names of the network's own tensors, in its order: it numbers blocks by stage, the file one by one.
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
