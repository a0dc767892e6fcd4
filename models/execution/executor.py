"""How a network's layers are executed: in which precision, and fused into larger kernels or one by one."""

import copy
import re
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from camboxes.models.execution.fusing import fold, fuse
from camboxes.models.introspection.probing import evaluating
from camboxes.models.spec import Compilation, Precision

# How far the last feature maps of noise may be from those of the network as it is, as a share of the largest value.
# Layers that are fused wrongly give something else altogether; bfloat16 has 8 bits.
_SAME, _NEAR = 1e-3, 0.1

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NORMS = nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm
_CPUINFO = Path("/proc/cpuinfo")


class Executor:
    """Gives the layers to run in place of a network's features: the same ones, in a precision, and compiled or not.

    Without it everything gives the same maps, up to rounding: `layers` may return the features as they are.
    """

    def __init__(self, precision: Precision, compilation: Compilation):
        """Takes what `resolve` decided; where one is still "auto", the features run as they are."""
        self._how = precision, compilation
        self._made: tuple[nn.Module, nn.Module] | None = None  # features, and the layers made of them
        self._making = threading.Lock()

    def layers(self, features: nn.Module, probe: Callable[[], torch.Tensor]) -> nn.Module:
        """The layers to run, made in the first pass, and made anew when the features are others.

        Args:
          features: images to the last feature maps.
          probe: gives images to try them with, float32 [n, 3, height, width], on their device.
        """
        if "auto" in self._how or self._how == ("fp32", "off"):
            return features
        with self._making:
            if self._made is None or self._made[0] is not features:
                with evaluating(*features.modules()):
                    self._made = features, fast_layers(features, probe(), *self._how)
            return self._made[1]


def resolve(
    features: nn.Module, probe: torch.Tensor, precision: Precision, compilation: Compilation
) -> tuple[Precision, Compilation]:
    """Decides how to execute a network on its device, where that is left open.

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
            raise ValueError("compile on: the layers of this network cannot be fused here; use compile auto or off")
        compilation = "on" if possible else "off"
    if precision == "auto":
        precision = fastest_precision(probe.device)
        if precision != "fp32" and not _difference(features, probe, expected, precision, compilation) <= _NEAR:
            precision = "fp32"
    return precision, compilation


def fast_layers(features: nn.Module, probe: torch.Tensor, precision: Precision, compilation: Compilation) -> nn.Module:
    """Copies a network's features into what runs in a precision, compiled or not; the features stay as they are.

    The layers take float32 images in any precision. Compiled, convolutions, norms and activations are fused on a CPU,
    and norms are folded into convolutions on a GPU. Arguments: those of `resolve`, nothing left open.
    """
    fused, dtype = compilation == "on" and probe.device.type == "cpu", _DTYPES[precision]
    # No inference mode: the weights may become part of a graph of gradients.
    with torch.inference_mode(False), torch.no_grad():
        features = copy.deepcopy(features)
        if fused:
            fuse(features, probe, dtype)
        elif compilation == "on":
            fold(features, probe)
        features = features.to(dtype).to(memory_format=torch.channels_last)
        if fused:  # kernels leave some maps in float32, which norms take with weights in float32 alone
            for layer in features.modules():
                if isinstance(layer, _NORMS):
                    layer.float()
    return features if fused else nn.Sequential(_Cast(dtype), features)


def fastest_precision(device: torch.device) -> Precision:
    """The fastest precision of a device for convolutions, as far as it was measured: benchmarks/records/speed.md."""
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


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self._dtype)


def _difference(
    features: nn.Module, probe: torch.Tensor, expected: torch.Tensor, precision: Precision, compilation: Compilation
) -> float:
    """The largest difference of a way of execution, as a share of the largest value; infinite where it does not run."""
    run = nn.Module()
    try:
        run = fast_layers(features, probe, precision, compilation)
        with torch.inference_mode():
            found = run(probe).float()
    except (RuntimeError, AttributeError, TypeError):  # a layer without such a kernel; a PyTorch without these
        return float("inf")
    finally:
        for layer in list(run.modules()):  # a traced network is a reference cycle, which is not freed at once
            vars(layer).clear()
    return float((found - expected).abs().max() / expected.abs().max())
