"""Class activation maps (Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative
Localization, CVPR 2016, arXiv 1512.04150).
"""

import torch


def class_activation_maps(features: torch.Tensor, weight: torch.Tensor | None, class_ids: torch.Tensor) -> torch.Tensor:
    """Computes M_c(x, y) = sum_k w_k^c f_k(x, y): equation 2 of the paper.

    By equation 1 the mean of a map over its cells, plus the class's bias, is the class's logit.

    Args:
      features: f_k(x, y), the last feature maps before global average pooling, [n, channels, height, width].
      weight: w_k^c, the linear layer's weight, [classes, channels]; None where f_c is the map of class c.
      class_ids: int64 [n, labels]; each image may ask for several classes, and images for different ones.

    Returns:
      [n, labels, height, width], signed and not scaled, in the dtype of the features.

    Raises:
      ValueError: a class id is not one of the network's.
    """
    check_class_ids(class_ids, features.shape[1] if weight is None else len(weight))
    height, width = features.shape[2:]
    if weight is None:
        return features.gather(1, class_ids[:, :, None, None].expand(-1, -1, height, width))
    cells = features.flatten(2)
    # One product of a fixed shape per label slot: a map's last bits depend on the shape of the product that made
    # it, and so must not depend on how many labels the other images of the batch have.
    maps = [torch.bmm(weight[ids].to(cells.dtype).unsqueeze(1), cells) for ids in class_ids.unbind(1)]
    return torch.cat([cells[:, :0], *maps], dim=1).unflatten(2, (height, width))  # no labels at all: no maps


def check_class_ids(class_ids: torch.Tensor, classes: int) -> None:
    """Raises a ValueError for ids, int64 [n, labels], that are not among the network's classes."""
    if class_ids.dim() != 2 or class_ids.is_floating_point():
        raise ValueError(
            f"class ids are {class_ids.dtype} of shape {list(class_ids.shape)}; expected int64 of [images, labels]"
        )
    outside = class_ids[(class_ids < 0) | (class_ids >= classes)]
    if len(outside):
        raise ValueError(f"class id {int(outside[0])} is not among the network's {classes} classes, 0 to {classes - 1}")
