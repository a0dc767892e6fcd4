"""Copies tensors to the network's device."""

import torch


def sent(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Starts a tensor's copy to a device: to a GPU from pinned memory, without waiting for it."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
