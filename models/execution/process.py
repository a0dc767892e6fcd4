"""How a process that runs forward passes uses its cores, its GPU and its memory."""

import os

import torch


def use_one_core() -> None:
    """Makes the calling thread run its forward passes on one core: the initializer of a pool of such threads.

    The last bits of a convolution depend on the number of threads that share it (measured: oneDNN, channels_last).
    Passes that take all cores would give other bytes on a machine with more cores, or with two worker processes. One
    pass a core, side by side, gives the same bytes everywhere, and is no slower: benchmarks/passes.py.
    """
    torch.set_num_threads(1)


def passes_side_by_side(device: str) -> int:
    """How many threads of `use_one_core` keep a device busy: on "cpu" the cores that this process may use, else 1."""
    if device != "cpu":
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if asked.isdecimal():
        return max(1, int(asked))
    # Only Linux says which cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sent(tensor: torch.Tensor, device: str | torch.device) -> torch.Tensor:
    """Starts a tensor's copy to a device: to a GPU from pinned memory, without waiting for it."""
    if torch.device(device).type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a pass did not fit into the memory of its device."""
    # PyTorch has no type of its own for what the CPU's allocator raises.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
