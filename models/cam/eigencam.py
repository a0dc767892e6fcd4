"""Eigen-CAM (Muhammad and Yeasin, IJCNN 2020, arXiv 2008.00299): the first principal component of a layer's maps."""

import torch


def eigen_cam(maps: torch.Tensor) -> torch.Tensor:
    """Projects a layer's activations on their first principal direction: L = O V_1, with O = U S V^T.

    The map is the same for every class. As in the paper, O is not centred. The paper leaves the sign of V_1 open; here
    the projection's sum over the cells is positive, as it always is where no activation is negative (Perron and
    Frobenius).

    Args:
      maps: the activations, float32 [n, channels, height, width].

    Returns:
      [n, height, width].
    """
    cells = maps.flatten(2).transpose(1, 2)
    finite = torch.isfinite(cells).all(2).all(1)
    left, strength, _ = torch.linalg.svd(torch.where(finite[:, None, None], cells, 0), full_matrices=False)
    projection = left[:, :, 0] * strength[:, :1]
    projection = torch.where(projection.sum(1, keepdim=True) < 0, -projection, projection)
    return torch.where(finite[:, None], projection, torch.nan).unflatten(1, maps.shape[2:])
