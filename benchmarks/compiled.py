"""Is torch.compile worth it for the passes of the default maps? On one core, with and without gradients.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/compiled.py NETWORK.json [--rounds N]

NETWORK.json is one of speed_images.py's. At each scale of the default maps, for photographs of 500 x 375 pixels, the
network runs layer by layer ("eager"), in the kernels of models/execution ("fused"), and compiled: the layers in front
of the first with gradients, frozen, and those behind it with their backward pass. Prints milliseconds of CPU time for
an image, the lowest of the rounds, which take turns; and the seconds of the first pass, which compiles. A second call
with the same TORCHINDUCTOR_CACHE_DIR in the environment finds the compiler's caches there.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from speed_ceiling import PHOTOGRAPH, load, noise
from torch import nn

from camboxes.models import Classifier, MapSpec
from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.localization.looks import Look, looks_for


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    network = json.loads(arguments.network.read_text())
    torch._inductor.config.freezing = True
    classifiers = {mode: load(network, "cpu", "fp32", how) for mode, how in (("eager", "off"), ("fused", "on"))}
    for eager, fused in zip(*map(looks, classifiers.values()), strict=True):
        look, batch, _ = eager
        forward = {"eager": plain(look, batch), "fused": plain(fused[0], batch), "compiled": compiled(look, batch)}
        compare(f"{look.scale}, forward", forward, len(batch), arguments.rounds)
        with_gradients = {
            "eager": gradients(*eager),
            "fused": gradients(*fused),
            "compiled": compiled_gradients(*eager),
        }
        compare(f"{look.scale}, with gradients", with_gradients, len(batch), arguments.rounds)


def compare(what: str, works: dict[str, Callable[[], object]], images: int, rounds: int) -> None:
    first, found = {}, {mode: list[float]() for mode in works}
    for mode, work in works.items():
        start = time.perf_counter()
        work()
        first[mode] = time.perf_counter() - start
        work()
    for _ in range(rounds):
        for mode, work in works.items():
            start = time.process_time()
            work()
            found[mode].append(1000 * (time.process_time() - start) / images)
    for mode, figures in found.items():
        print(f"{what}, {mode}: {min(figures):.1f} ms an image, first pass {first[mode]:.1f} s", flush=True)


def looks(classifier: Classifier) -> Iterator[tuple[Look, torch.Tensor, list[str]]]:
    maps = MapSpec.default_for(classifier)
    wanted = {factor.layer for term in maps.terms for factor in term.factors if factor.layer}
    for look in looks_for(classifier, maps):
        size = dataclasses.replace(classifier.preprocessing, size=look.scale).shape(*PHOTOGRAPH)
        yield look, noise(look.batch_size, size), sorted(map(look.methods.classifier.layer, wanted))


def plain(look: Look, batch: torch.Tensor) -> Callable[[], object]:
    def work() -> None:
        with torch.no_grad():
            look.methods.classifier(batch)

    return work


def gradients(look: Look, batch: torch.Tensor, layers: list[str]) -> Callable[[], object]:
    def work() -> None:
        found = ForwardPass(look.methods.classifier, batch, frozenset(layers), gradients=frozenset(layers))
        for layer in layers:
            found.gradients(layer, torch.arange(len(batch)))

    return work


def compiled(look: Look, batch: torch.Tensor) -> Callable[[], object]:
    run = torch.compile(look.methods.classifier.network)

    def work() -> None:
        with torch.no_grad():
            run(batch)

    return work


def compiled_gradients(look: Look, batch: torch.Tensor, layers: list[str]) -> Callable[[], object]:
    """Layers in front of the first with gradients, in one program; those behind it in another."""
    parts = [torch.compile(part) for part in cut(look.methods.classifier.network, layers)]
    weight = look.methods.classifier.weight

    def work() -> None:
        with torch.no_grad():
            maps = parts[0](batch)
        shown = [maps.clone().requires_grad_()]
        for part in parts[1:]:
            shown.append(part(shown[-1]))
        behind = weight[torch.arange(len(batch))][:, :, None, None].expand_as(shown[-1]) / shown[-1][0, 0].numel()
        torch.autograd.grad(shown[-1], shown[:-1], behind)

    return work


def cut(network: nn.Module, layers: list[str]) -> list[nn.Module]:
    """The layers up to the last feature maps, cut behind each of these; of timm's EfficientNets and ResNets."""
    if hasattr(network, "conv_stem"):
        named = [("", network.conv_stem), ("", network.bn1)]
        named += [(f"blocks.{number}", block) for number, block in enumerate(network.blocks)]
        named += [("", network.conv_head), ("", network.bn2)]
    else:
        named = [(name, layer) for name, layer in network.named_children() if name not in ("avgpool", "fc")]
    parts: list[nn.Module] = [nn.Sequential()]
    for name, layer in named:
        parts[-1].append(layer)
        if name in layers:
            parts.append(nn.Sequential())
    return parts


if __name__ == "__main__":
    main()
