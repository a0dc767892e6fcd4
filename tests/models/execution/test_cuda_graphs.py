"""CUDA graphs without a GPU: a graph stands for operations that are done again at the same places in memory."""

import threading

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from camboxes.models import load_classifier
from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.execution import cuda_graphs, executable, programs
from camboxes.models.execution.programs import Programmed
from camboxes.models.introspection.parts import LAST, Tap, recording


class Graph:
    """What torch.cuda.CUDAGraph is to kernels, to operations on a CPU."""

    def __init__(self):
        self.operations = []
        self.replays = 0

    def replay(self):
        self.replays += 1
        with torch.inference_mode():
            for function, args, kwargs, places in self.operations:
                for place, result in zip(places, _several(function(*args, **kwargs)), strict=True):
                    if place is not None and place.data_ptr() != result.data_ptr():
                        place.copy_(result)


class Capturing(TorchDispatchMode):
    """What torch.cuda.graph is to them."""

    def __init__(self, graph, capture_error_mode):
        super().__init__()
        assert capture_error_mode == "thread_local"
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        if isinstance(results, float):
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing")
        self.graph.operations.append((function, args, kwargs or {}, _several(results)))
        return results


def _several(results):
    return results if isinstance(results, tuple | list) else [results]


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", Capturing)
    monkeypatch.setattr(programs, "_PATIENCE", 1)


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Layers(nn.Module):
    """Two layers that are shown, the first one changed in place behind that."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3)
        self.taps = nn.ModuleList([Tap("first"), Tap("second")])
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        first = self.taps[0](self.first(images)).relu_()
        return self.last(self.taps[1](first.sigmoid())).square_()


FIRST, BOTH = frozenset(["first"]), frozenset(["first", "second"])


def run(layers, images, wanted=FIRST, gradients=FIRST):
    with recording(wanted, images.shape[2:], gradients) as found:
        output = layers(images)
    return output, found.maps


def graphed(layers, images, *wanted):
    """Layers that have graphs for such images."""
    captured = executable.programmed(layers, torch.device("cuda"))
    for _ in range(2):
        run(captured, images, *wanted)
    assert list(captured._programs.values()) != [None]
    return captured


@pytest.mark.parametrize("wanted", [(frozenset(), frozenset()), (FIRST, FIRST), (BOTH, BOTH), (BOTH, FIRST)])
def test_a_graph_gives_what_the_layers_give(images, wanted):
    layers = Layers()
    captured, calls = graphed(layers, images, *wanted), layers.calls
    for given in (images, 2 * images):
        ours, maps = run(captured, given, *wanted)
        assert layers.calls == calls
        theirs, expected = run(layers, given, *wanted)
        calls += 1
        assert torch.equal(ours, theirs) and maps.keys() == expected.keys() == wanted[0]
        assert all(torch.equal(maps[name], expected[name]) for name in maps)
        for towards in (torch.ones_like(theirs), torch.randn_like(theirs)) if wanted[1] else ():
            found, known = (
                torch.autograd.grad(output, [of[name] for name in sorted(wanted[1])], towards, retain_graph=True)
                for output, of in ((ours, maps), (theirs, expected))
            )
            assert all(torch.equal(*pair) and pair[0].any() for pair in zip(found, known, strict=True))


def test_results_stay_when_the_next_pass_comes(images):
    captured = graphed(Layers(), images)
    output, maps = run(captured, images)
    gradient = torch.autograd.grad(output.sum(), maps["first"], retain_graph=True)[0]
    before = [part.detach().clone() for part in (output, maps["first"], gradient)]
    later, others = run(captured, 3 * images)
    assert not torch.equal(torch.autograd.grad(later.sum(), others["first"])[0], gradient)
    assert all(torch.equal(*pair) for pair in zip((output, maps["first"], gradient), before, strict=True))


def test_a_way_back_after_another_pass_is_that_of_its_own_pass(images):
    captured = graphed(Layers(), images)
    passes = [run(captured, factor * images) for factor in (1, 2, 3)]
    expected = [run(Layers(), factor * images) for factor in (1, 2, 3)]
    for place in (1, 0, 2, 2):
        found, known = (
            torch.autograd.grad(some[place][0].sum(), some[place][1]["first"], retain_graph=True)[0]
            for some in (passes, expected)
        )
        assert torch.equal(found, known)


def test_the_way_there_is_gone_once_for_several_labels(images):
    captured = graphed(Layers(), images)
    [program] = captured._programs.values()
    there, back = program.forward.__self__.there, program.forward.__self__.back
    before = there.replays, back.replays
    output, maps = run(captured, images)
    for _ in range(3):
        torch.autograd.grad(output.sum(), maps["first"], retain_graph=True)
    assert (there.replays, back.replays) == (before[0] + 1, before[1] + 3)


def test_threads_share_a_graph(images):
    captured, found = graphed(Layers(), images), {}
    expected = [run(Layers(), factor * images) for factor in range(1, 5)]

    def work(factor):
        for _ in range(20):
            output, maps = run(captured, factor * images)
            found.setdefault(factor, []).append((output, *torch.autograd.grad(output.sum(), maps["first"])))

    threads = [threading.Thread(target=work, args=[factor]) for factor in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for factor, (output, maps) in enumerate(expected, 1):
        (gradient,) = torch.autograd.grad(output.sum(), maps["first"])
        assert len(found[factor]) == 20
        assert all(torch.equal(of[0], output) and torch.equal(of[1], gradient) for of in found[factor])


class Looking(nn.Module):
    """One that waits for a value, which no graph can."""

    def forward(self, images):
        return images * float(images.sum())


class Counting(nn.Module):
    """One whose pass is not the same each time."""

    passes = 0

    def forward(self, images):
        self.passes += 1
        return images * self.passes


@pytest.mark.parametrize("layers", [Looking(), Counting()], ids=lambda layers: type(layers).__name__)
def test_what_no_graph_can_tell_is_run_layer_by_layer(images, layers):
    captured = executable.programmed(layers, torch.device("cuda"))
    outputs = [run(captured, images, frozenset(), frozenset())[0] for _ in range(3)]
    assert list(captured._programs.values()) == [None]
    assert torch.equal(outputs[1], outputs[2]) is isinstance(layers, Looking)


def test_a_real_network_is_one_graph(monkeypatch):
    """Logits, maps of two layers, and gradients to them of two classes, to the last bit."""
    monkeypatch.setattr(executable, "programmed", lambda layers, _: Programmed(layers, cuda_graphs.capture))
    classifier = load_classifier("efficientnet_lite0")
    layers = frozenset([classifier.layer("16"), classifier.layer("32[-2]")])
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(3):
        forward = ForwardPass(classifier, classifier.normalize(pixels), layers | {LAST}, gradients=layers)
        found.append([forward.logits, *map(forward.maps, sorted(layers | {LAST}))])
        for ids in ([1, 2], [5, 6]):
            found[-1] += [forward.gradients(layer, torch.tensor(ids)) for layer in sorted(layers)]
    assert all(torch.equal(*pair) and pair[0].any() for pair in zip(found[0], found[-1], strict=True))
    [program] = classifier._executed()._programs.values()
    assert program is not None and program.forward.__self__.there.replays
