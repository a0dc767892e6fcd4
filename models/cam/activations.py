"""Maps from a layer's activations A, [n, channels, height, width]: maps are [n, height, width].

COMBINATIONS are of A with the gradients G = dY/dA of the logit Y of one class per image, of the same shape. Eigen-CAM
takes A alone.
"""

import torch
from torch.nn import functional


def grad_cam(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2): relu(sum_k mean(G_k) A_k)."""
    return functional.relu(_weighted(maps, gradients.mean((2, 3))))


def grad_cam_plus_plus(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """Grad-CAM++ (Chattopadhay et al., WACV 2018): relu(sum_k A_k sum_xy alpha relu(G_k)).

    With the exponential of the logit as the score, as in the paper, equation 19 is alpha = G^2 / (2 G^2 + G^3 sum(A)).
    Numerator and denominator are divided by G^2 here; the weight of a cell is 0 where G is 0 or negative. The factor
    exp(Y) > 0, common to all weights of an image, is left out.
    """
    alpha = 1 / (2 + gradients * maps.sum((2, 3), keepdim=True))
    return functional.relu(_weighted(maps, torch.where(gradients > 0, alpha * gradients, 0).sum((2, 3))))


def xgrad_cam(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """XGrad-CAM (Fu et al., BMVC 2020, equation 7): relu(sum_k A_k sum(G_k A_k) / sum(A_k)); 0 for an empty A_k."""
    total = maps.sum((2, 3))
    share = (gradients * maps).sum((2, 3)) / torch.where(total == 0, 1, total)
    return functional.relu(_weighted(maps, torch.where(total == 0, 0, share)))


def hires_cam(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """HiResCAM (Draelos and Carin, arXiv 2011.08891, equation 5): sum_k G_k A_k; signed: the paper has no ReLU."""
    return (gradients * maps).sum(1)


def layer_cam(maps: torch.Tensor, gradients: torch.Tensor) -> torch.Tensor:
    """LayerCAM (Jiang et al., TIP 2021, equations 5 and 6): relu(sum_k relu(G_k) A_k)."""
    return functional.relu((functional.relu(gradients) * maps).sum(1))


def eigen_cam(maps: torch.Tensor) -> torch.Tensor:
    """Eigen-CAM (Muhammad and Yeasin, IJCNN 2020, arXiv 2008.00299): O V_1, with O = U S V^T the activations.

    That is the projection of the activations on their first principal direction, the same for every class. As in the
    paper, O is not centred. The paper leaves the sign of V_1 open; here the projection's sum over the cells is
    positive, as it always is where no activation is negative (Perron and Frobenius).
    """
    cells = maps.flatten(2).transpose(1, 2)
    finite = torch.isfinite(cells).all(2).all(1)
    left, strength, _ = torch.linalg.svd(torch.where(finite[:, None, None], cells, 0), full_matrices=False)
    projection = left[:, :, 0] * strength[:, :1]
    projection = torch.where(projection.sum(1, keepdim=True) < 0, -projection, projection)
    return torch.where(finite[:, None], projection, torch.nan).unflatten(1, maps.shape[2:])


def _weighted(maps: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.bmm(weights[:, None], maps.flatten(2)).unflatten(2, maps.shape[2:])[:, 0]


COMBINATIONS = {
    "gradcam": grad_cam,
    "gradcam++": grad_cam_plus_plus,
    "xgradcam": xgrad_cam,
    "hirescam": hires_cam,
    "layercam": layer_cam,
}
