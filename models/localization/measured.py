"""Chooses how a network is executed by what was measured on this machine, now or for an earlier job."""

import functools
import importlib.metadata
import platform
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from camboxes.models.classifier import Classifier
from camboxes.models.execution import known
from camboxes.models.execution.executor import half_precision
from camboxes.models.execution.process import passes_side_by_side
from camboxes.models.execution.timing import fastest, time_passes
from camboxes.models.localization.localizer import Localizer
from camboxes.models.spec import Execution, Precision

# Images for each pass side by side from which on measuring, which takes as long as some ten of them, costs little.
_IMAGES_WORTH_MEASURING = 50

_LIBRARIES = ("camboxes", "torch", "torchvision", "timm")
_CPUINFO = Path("/proc/cpuinfo")
_OF_ITS_KIND = ("vendor_id", "cpu family", "model", "flags", "CPU ", "Features")  # the last two on Arm


class Measured(NamedTuple):
    """What was measured.

    Attributes:
      milliseconds: of a pass at the largest scale, for each way to execute it, with as many side by side as in a job.
      now: whether it was measured by this job; else by an earlier one.
    """

    milliseconds: dict[Execution, float]
    now: bool


def measured(localizer: Localizer, asked: Execution, images: int) -> tuple[Localizer, Measured | None]:
    """Chooses the fastest way to execute a network that gives nearly the same maps, where that is left open.

    On a CPU these are float32, layer by layer and fused, and bf16 where there are instructions for it; on a GPU
    likewise, or fp16. Of ways that take about the same time the first one is chosen.

    Args:
      localizer: the network as `load_classifier` executes it, which stays so where nothing is known.
      asked: what the call leaves open is "auto".
      images: how many the job has; where they are few, nothing is measured.

    Returns:
      The localizer to use, and what was measured; None where nothing was left open, or nothing is known.
    """
    classifier = localizer.classifier
    ways = _ways(classifier, asked)
    if len(ways) == 1:
        return localizer, None
    threads = passes_side_by_side(classifier.spec.device)
    question = _question(localizer, asked, threads)
    recalled = known.recall(question)
    others = {way: localizer.executed(way) for way in ways}
    times = {way: recalled[str(way)] for way in ways if str(way) in recalled}
    now = classifier.execution not in times and images >= _IMAGES_WORTH_MEASURING * threads
    if now:
        noise = localizer.resize(np.random.default_rng(0).integers(0, 256, (375, 500, 3), np.uint8))
        passes = {way: functools.partial(other.largest_pass, noise) for way, other in others.items()}
        clock = time.thread_time if classifier.spec.device == "cpu" else time.perf_counter
        times = time_passes(passes, threads, clock)
        known.remember(question, {str(way): round(milliseconds, 2) for way, milliseconds in times.items()})
    if classifier.execution not in times:
        return localizer, None
    chosen = fastest(times)
    if chosen.precision != classifier.spec.precision and not classifier.is_near(chosen):
        chosen = fastest({way: times[way] for way in times if way.precision == classifier.spec.precision})
    return others[chosen], Measured(times, now)


def _ways(classifier: Classifier, asked: Execution) -> list[Execution]:
    """The ways to execute a network that leave what is asked for as it is, the simplest and most exact one first."""
    settled = classifier.execution
    precision: Precision = "fp32" if asked.precision == "auto" else settled.precision
    ways = [Execution(precision, "off")] if asked.compile == "auto" and settled.compile == "on" else []
    ways.append(Execution(precision, settled.compile))
    half = half_precision(classifier.probe().device) if asked.precision == "auto" else None
    return [*ways, Execution(half, settled.compile)] if half else ways


def _question(localizer: Localizer, asked: Execution, threads: int) -> dict[str, Any]:
    """All that the milliseconds depend on; weights are not among it."""
    model = {name: value for name, value in localizer.settings["model"].items() if not name.endswith("sha256")}
    return {
        "processor": _processor(localizer.classifier.spec.device),
        "threads": threads,
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "asked": list(asked),
        **localizer.settings,
        "model": model,
    }


def _processor(device: str) -> list[str]:
    """What tells a kind of processor, or of GPU, from others."""
    if device == "cuda":
        return [torch.cuda.get_device_name()]
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:  # no Linux
        return [platform.machine(), platform.processor()]
    return [platform.machine(), *(line for line in first.splitlines() if line.startswith(_OF_ITS_KIND))]
