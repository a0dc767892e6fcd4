"""Which precision is fastest on a device."""

import re
from pathlib import Path

import torch

from camboxes.models.spec import Precision

DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_CPUINFO = Path("/proc/cpuinfo")


def fastest(device: torch.device) -> Precision:
    """The fastest precision of a device for convolutions, as far as it was measured: docs/speed.md."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_amx_tile_supported() or _zen_5_or_later() else "fp32"


def _zen_5_or_later() -> bool:
    """Whether this is an AMD processor that is faster in bf16 without AMX; others with AVX512-BF16 are not.

    PyTorch tells which instructions there are, and not how fast they are.
    """
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:  # no Linux
        return False
    said = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", first, re.MULTILINE))
    new = said.get("vendor_id") == "AuthenticAMD" and int(said["cpu family"]) >= 26
    return new and "avx512_bf16" in said["flags"].split()
