"""How a network's layers are executed: in which precision, and fused into larger kernels or one by one."""

import copy
import threading
from collections.abc import Callable

import torch
from torch import nn

from camboxes.models.execution.fusing import fold, fuse
from camboxes.models.introspection.probing import evaluating
from camboxes.models.spec import Execution, Precision

# How far the last feature maps of noise may be from those of the network as it is, as a share of the largest value.
# Layers that are fused wrongly give something else altogether; bfloat16 has 8 bits.
_SAME, _NEAR = 1e-3, 0.1

_DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NORMS = nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm


class Executor:
    """Gives the layers to run in place of a network's features: the same ones, in a precision, and compiled or not.

    Without it everything gives the same maps, up to rounding: `layers` may return the features as they are.
    """

    def __init__(self, execution: Execution):
        """Takes what `resolve` decided; where one is still "auto", the features run as they are."""
        self._execution = execution
        self._made: tuple[nn.Module, nn.Module] | None = None  # features, and the layers made of them
        self._making = threading.Lock()

    def layers(self, features: nn.Module, probe: Callable[[], torch.Tensor]) -> nn.Module:
        """The layers to run, made in the first pass, and made anew when the features are others.

        Args:
          features: images to the last feature maps.
          probe: gives images to try them with, float32 [n, 3, height, width], on their device.
        """
        if "auto" in self._execution or self._execution == ("fp32", "off"):
            return features
        with self._making:
            if self._made is None or self._made[0] is not features:
                with evaluating(*features.modules()):
                    self._made = features, fast_layers(features, probe(), self._execution)
            return self._made[1]


def resolve(features: nn.Module, probe: torch.Tensor, asked: Execution) -> Execution:
    """Decides how to execute a network on its device, where that is left open. Nothing is timed.

    Args:
      features: up to the last feature maps, float32, in evaluation mode.
      probe: images to try it with, float32 [n, 3, height, width], on that device.
      asked: precision "auto" for fp32 on a CPU, and on a GPU for the one of 16 bits where that gives nearly the same
        maps; compile "auto" for "on" where that gives the same maps.

    Raises:
      ValueError: the device does not support what is asked for.
    """
    precision, compilation = asked
    cpu = probe.device.type == "cpu"
    emulated = precision == "bf16" and half_precision(probe.device) != "bf16"
    if cpu and precision == "fp16":
        raise ValueError("precision fp16 is for GPUs; on a CPU use bf16, fp32 or auto")
    if emulated and not cpu:
        raise ValueError("precision bf16: this GPU only emulates it; use fp16, fp32 or auto")
    if compilation != "off":
        # A GPU multiplies float32 as TF32, whose fractions have ten bits.
        same = _SAME if cpu else _NEAR
        possible = not emulated and _difference(features, probe, Execution("fp32", "on")) <= same
        if compilation == "on" and not possible:
            why = "this CPU only emulates bf16" if emulated else "the layers of this network cannot be fused here"
            raise ValueError(f"compile on: {why}; use compile auto or off")
        compilation = "on" if possible else "off"
    if precision == "auto":
        half = half_precision(probe.device)
        precision = half if half and not cpu and is_near(features, probe, Execution(half, compilation)) else "fp32"
    return Execution(precision, compilation)


def half_precision(device: torch.device) -> Precision | None:
    """The precision of 16 bits that a device has instructions for: bf16, else on a GPU fp16; None where there is none.

    Whether it is faster than fp32 is not known by that.
    """
    if device.type != "cpu":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported() else None


def is_near(features: nn.Module, probe: torch.Tensor, execution: Execution) -> bool:
    """Whether a network runs so, and gives nearly the maps that it gives as it is. Arguments: see `resolve`."""
    return _difference(features, probe, execution) <= _NEAR


def fast_layers(features: nn.Module, probe: torch.Tensor, execution: Execution) -> nn.Module:
    """Copies a network's features into what runs in a precision, compiled or not; the features stay as they are.

    The layers take float32 images in any precision. Compiled, convolutions, norms and activations are fused on a CPU,
    and norms are folded into convolutions on a GPU. Arguments: those of `resolve`, nothing left open.
    """
    fused, dtype = execution.compile == "on" and probe.device.type == "cpu", _DTYPES[execution.precision]
    # No inference mode: the weights may become part of a graph of gradients.
    with torch.inference_mode(False), torch.no_grad():
        features = copy.deepcopy(features)
        if fused:
            fuse(features, probe, dtype)
        elif execution.compile == "on":
            fold(features, probe)
        features = features.to(dtype).to(memory_format=torch.channels_last)
        if fused:  # kernels leave some maps in float32, which norms take with weights in float32 alone
            for layer in features.modules():
                if isinstance(layer, _NORMS):
                    layer.float()
    return features if fused else nn.Sequential(_Cast(dtype), features)


class _Cast(nn.Module):
    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self._dtype = dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(self._dtype)


def _difference(features: nn.Module, probe: torch.Tensor, execution: Execution) -> float:
    """The largest difference of a way of execution, as a share of the largest value; infinite where it does not run."""
    run = nn.Module()
    try:
        run = fast_layers(features, probe, execution)
        with torch.inference_mode():
            expected, found = features(probe), run(probe).float()
    except (RuntimeError, AttributeError, TypeError):  # a layer without such a kernel; a PyTorch without these
        return float("inf")
    finally:
        for layer in list(run.modules()):  # a traced network is a reference cycle, which is not freed at once
            vars(layer).clear()
    return float((found - expected).abs().max() / expected.abs().max())
