"""How a network's layers are executed: in which precision, fused into larger kernels or one by one, in which memory."""

import copy
import re
from pathlib import Path

import torch
from torch import nn

from camboxes.models.execution import torchscript
from camboxes.models.execution.fused_kernels import fold, fuse
from camboxes.models.execution.programs import Programmed
from camboxes.models.spec import Compilation, Precision

_DTYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# How far the last feature maps of noise may be from those of the network as it is, as a share of the largest value.
# Layers that are fused wrongly give something else altogether; bfloat16 has 8 bits.
_SAME, _NEAR = 1e-3, 0.1

_NORMS = nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm

_CPUINFO = Path("/proc/cpuinfo")


def resolve(
    features: nn.Module, probe: torch.Tensor, precision: Precision, compilation: Compilation
) -> tuple[Precision, Compilation]:
    """The best way to execute a network, where that is left open, on the device that it is on.

    Args:
      features: up to the last feature maps, float32, in evaluation mode.
      probe: images to try it with, float32 [n, 3, height, width], on that device.
      precision: "auto" for the fastest that gives nearly the same maps.
      compilation: "auto" for "on" where that gives the same maps.

    Raises:
      ValueError: what is asked for cannot be had.
    """
    with torch.inference_mode():
        expected = features(probe)
    cpu = probe.device.type == "cpu"
    if cpu and precision == "fp16":
        raise ValueError("precision fp16 is for GPUs; on a CPU use bf16, fp32 or auto")
    if not cpu and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ValueError("precision bf16: this GPU only emulates it; use fp16, fp32 or auto")
    if compilation != "off":
        # A GPU multiplies float32 as TF32, whose fractions have ten bits.
        possible = _difference(features, probe, expected, "fp32", "on") <= (_SAME if cpu else _NEAR)
        if compilation == "on" and not possible:
            raise ValueError("compile on: the layers of this network cannot be fused here; use --compile auto or off")
        compilation = "on" if possible else "off"
    if precision == "auto":
        precision = _fastest(probe.device)
        if precision != "fp32" and not _difference(features, probe, expected, precision, compilation) <= _NEAR:
            precision = "fp32"
    return precision, compilation


def executable(features: nn.Module, probe: torch.Tensor, precision: Precision, compilation: Compilation) -> nn.Module:
    """A network to run, made of the layers of another one, which stays as it is; it takes images as that one does.

    Arguments: see `resolve`.
    """
    cpu = probe.device.type == "cpu"
    # Its tensors may become part of a graph of gradients.
    with torch.inference_mode(False), torch.no_grad():
        features = copy.deepcopy(features)
        if compilation == "on" and cpu:
            fuse(features, probe, _DTYPES[precision])
        elif compilation == "on":
            fold(features, probe)
        features = features.to(_DTYPES[precision]).to(memory_format=torch.channels_last)
        if compilation == "on" and cpu:  # kernels leave some maps in float32, which norms take with such weights alone
            for layer in features.modules():
                if isinstance(layer, _NORMS):
                    layer.float()
    return features if compilation == "on" and cpu else nn.Sequential(_Cast(_DTYPES[precision]), features)


def programmed(layers: nn.Module) -> Programmed:
    """Layers of `executable` on a CPU, which from some passes on run without Python."""
    return Programmed(layers, torchscript.write)


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self._dtype)


def _difference(
    features: nn.Module, probe: torch.Tensor, expected: torch.Tensor, precision: Precision, compilation: Compilation
) -> float:
    """As a share of the largest value; infinite where the network does not run so."""
    run = nn.Module()
    try:
        run = executable(features, probe, precision, compilation)
        with torch.inference_mode():
            found = run(probe).float()
    except (RuntimeError, AttributeError, TypeError):  # a layer without such a kernel; a PyTorch without these
        return float("inf")
    finally:
        for layer in list(run.modules()):  # a traced network is a circle, which is not freed of itself
            vars(layer).clear()
    return float((found - expected).abs().max() / expected.abs().max())


def _fastest(device: torch.device) -> Precision:
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.cpu._is_amx_tile_supported() or _zen_5_or_later() else "fp32"


def _zen_5_or_later() -> bool:
    """Whether this processor is faster in bf16 without AMX, as others with AVX512-BF16 are not: docs/speed.md.

    PyTorch tells of instructions, not of how fast they are.
    """
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:  # no Linux
        return False
    said = dict(re.findall(r"^(\w[\w ]*?)\s*: (.*)$", first, re.MULTILINE))
    new = said.get("vendor_id") == "AuthenticAMD" and int(said["cpu family"]) >= 26
    return new and "avx512_bf16" in said["flags"].split()
