import copy
import gc
import threading
import weakref

import pytest
import torch
from torch import nn

from camboxes.models import load_classifier
from camboxes.models.cam.forward_pass import ForwardPass
from camboxes.models.execution.torchscript import scripted_layers
from camboxes.models.execution.torchscript.scripted_layers import ScriptedLayers
from camboxes.models.introspection.recording import LAST, recording
from camboxes.models.introspection.taps import Tap


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A program after the first pass of a shape: when it is written is a matter of costs, and changes no results."""
    monkeypatch.setattr(scripted_layers, "_PATIENCE", 1)


def counted(layers):
    """The layers, which now count how often Python runs them."""

    class Counted(nn.Module):
        calls = 0
        inner = layers

        def forward(self, images):
            Counted.calls += 1
            return layers(images)

    return Counted()


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )


def run(scripted, images, layers=frozenset(), gradients=frozenset()):
    with recording(layers, images.shape[2:], gradients) as found:
        output = scripted(images)
    return output, found.maps


def noted(layers, images, *wanted):
    """Layers that have their program for such images."""
    scripted = ScriptedLayers(layers)
    for _ in range(2):
        run(scripted, images, *wanted)
    assert scripted._programs
    return scripted


def test_a_program_runs_without_python_and_gives_the_same_bits(images):
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    layers = counted(nn.Sequential(convolution, Tap("middle"), nn.ReLU6(inplace=True), nn.MaxPool2d(2)))
    scripted = noted(layers, images, frozenset(["middle"]))
    before = layers.calls
    for given in (images, 2 * images):
        again, shown = run(scripted, given, frozenset(["middle"]))
        assert layers.calls == before
        with torch.inference_mode():
            assert torch.equal(shown["middle"], convolution(given))
            assert torch.equal(again, nn.functional.max_pool2d(convolution(given).clamp(0, 6), 2))


def test_each_shape_and_each_choice_of_layers_has_a_program_of_its_own(images):
    layers = counted(nn.Sequential(nn.Conv2d(3, 4, 3), Tap("middle"), nn.Flatten(2)))
    scripted = ScriptedLayers(layers)
    for calls in (4, 12, 12):  # two passes more for each: one to note the operations down, and one to compare
        assert not run(scripted, images)[1]
        assert list(run(scripted, images, frozenset(["middle"]))[1]) == ["middle"]
        assert run(scripted, images[:, :, :5])[0].shape == (2, 4, 18)
        assert run(scripted, images[:1])[0].shape == (1, 4, 36)
        assert layers.calls == calls


def test_a_program_is_written_for_a_shape_that_comes_often(images, monkeypatch):
    monkeypatch.setattr(scripted_layers, "_PATIENCE", 5)
    layers = counted(nn.Conv2d(3, 4, 3))
    scripted = ScriptedLayers(layers)
    for _ in range(5):
        run(scripted, images)
    assert layers.calls == 5 and not scripted._programs
    for _ in range(2):
        run(scripted, images)
    assert layers.calls == 7 and scripted._programs


class Skipping(nn.Module):
    """Layers of all kinds whose gradients autograd keeps something for: inputs, outputs, and what is computed."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.norm, self.tap, self.late = nn.GroupNorm(1, 3), Tap("middle"), Tap("late")

    def forward(self, images):
        middle = self.tap(self.first(images).relu_())
        left, right = self.norm(self.second(middle)).chunk(2, 2)
        late = self.late(torch.cat([left.sigmoid() * right, right], 2))
        late += middle
        return self.last(nn.functional.gelu(late).softmax(1)).relu_()


@pytest.mark.parametrize("asked", [["middle"], ["late"], ["middle", "late"]])
def test_gradients_come_from_a_program_to_the_last_bit(images, asked):
    torch.manual_seed(0)
    layers = counted(Skipping())
    wanted = frozenset(["middle", "late"]), frozenset(asked)
    scripted = noted(layers, images, *wanted)
    before = layers.calls
    for given in (images, 2 * images):
        (ours, maps), (theirs, expected) = (run(one, given, *wanted) for one in (scripted, layers.inner))
        assert layers.calls == before
        assert [maps[name].requires_grad for name in asked] == [True] * len(asked)
        for towards in (torch.ones_like(theirs), torch.randn_like(theirs)):  # as for two labels
            found, known = (
                torch.autograd.grad(output, [of[name] for name in asked], towards, retain_graph=True)
                for output, of in ((ours, maps), (theirs, expected))
            )
            assert all(torch.equal(*pair) and pair[0].any() for pair in zip(found, known, strict=True))
        assert torch.equal(ours, theirs)
        assert all(torch.equal(maps[name], expected[name]) for name in ("middle", "late"))


def test_gradients_by_hand(images):
    """relu6(x)^2 has the gradient 2x where x is between 0 and 6, else 0."""

    class Squared(nn.Module):
        def forward(self, maps):
            return maps.square_()

    layers = nn.Sequential(Tap("first"), nn.ReLU6(inplace=True), Squared())
    wanted = frozenset(["first"]), frozenset(["first"])
    output, maps = run(noted(layers, images, *wanted), 5 * images, *wanted)
    (gradient,) = torch.autograd.grad(output.sum(), maps["first"])
    values = 5 * images
    torch.testing.assert_close(gradient, torch.where((values > 0) & (values < 6), 2 * values, 0))
    assert torch.equal(maps["first"], values), "they are as they were shown, though the network changed its own"


def test_nothing_is_kept_of_a_pass_that_is_over(images):
    layers = nn.Sequential(Tap("first"), nn.Conv2d(3, 3, 1), nn.Sigmoid(), nn.Conv2d(3, 3, 1))
    wanted = frozenset(["first"]), frozenset(["first"])
    scripted = noted(layers, images, *wanted)
    gc.collect()
    gc.disable()  # which would free circles
    try:
        output, maps = run(scripted, images.clone(), *wanted)
        kept = [weakref.ref(part) for part in output.grad_fn.kept]
        assert kept
        del output, maps
        assert [part() for part in kept] == [None] * len(kept)
    finally:
        gc.enable()


class Wavering(torch.autograd.Function):
    """One whose gradient is not the same each time."""

    @staticmethod
    def forward(ctx, maps):
        return maps.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.rand_like(gradient)


class Steep(torch.autograd.Function):
    """One whose gradient depends on values in a way that no operation tells."""

    @staticmethod
    def forward(ctx, maps):
        ctx.steep = float(maps.sum()) > 0
        return maps.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient if ctx.steep else gradient


@pytest.mark.parametrize("function", [Wavering, Steep])
def test_gradients_that_are_not_the_same_each_time_stay_in_python(images, function):
    class Layer(nn.Module):
        def forward(self, maps):
            return function.apply(maps)

    wanted = frozenset(["first"]), frozenset(["first"])
    scripted = noted(nn.Sequential(Tap("first"), Layer()), abs(images), *wanted)
    gradients = []
    for given in (abs(images), abs(images), -abs(images)):
        output, maps = run(scripted, given, *wanted)
        gradients.append(torch.autograd.grad(output.sum(), maps["first"])[0])
    if function is Steep:
        assert [set(gradient.unique().tolist()) for gradient in gradients] == [{2.0}, {2.0}, {1.0}]
    else:
        assert not torch.equal(gradients[0], gradients[1])


def test_maps_that_the_output_does_not_depend_on_have_their_error_from_python(images):
    class Aside(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.aside = Tap("first"), Tap("aside")

        def forward(self, maps):
            first = self.first(maps)
            self.aside(first * 2)
            return first * 3

    wanted = frozenset(["first", "aside"]), frozenset(["first", "aside"])
    output, maps = run(noted(Aside(), images, *wanted), images, *wanted)
    assert torch.autograd.grad(output.sum(), maps["first"])[0].unique().tolist() == [3.0]


class Doubled(nn.Module):
    def forward(self, images):
        return 2 * images if float(images.sum()) > 0 else images


class Noisy(nn.Module):
    def forward(self, images):
        return images + torch.rand_like(images)


class Counting(nn.Module):
    """One that operations alone do not tell all of."""

    passes = 0

    def forward(self, images):
        self.passes += 1
        return images * self.passes


class Hidden(nn.Module):
    """One that takes something from its images that is no operation."""

    def forward(self, images):
        return images + torch.from_numpy(images.numpy().max(keepdims=True))


@pytest.mark.parametrize("layers", [Hidden(), nn.ReLU(inplace=True)], ids=["hidden", "in place"])
def test_images_are_seen_as_they_are(images, layers):
    scripted = noted(copy.deepcopy(layers), images.clone())
    for factor in (1, 1, 3, -2):
        with torch.inference_mode():
            expected = layers(factor * images)
        assert torch.equal(run(scripted, factor * images)[0], expected)


@pytest.mark.parametrize("layers", [Doubled(), Noisy(), Counting()], ids=lambda layers: type(layers).__name__)
def test_what_is_not_the_same_each_time_stays_in_python(images, layers):
    scripted = noted(layers, abs(images))
    found = [run(scripted, abs(images))[0] for _ in range(3)]
    assert torch.equal(run(scripted, -abs(images))[0], -abs(images)) or not isinstance(layers, Doubled)
    assert not torch.equal(found[1], found[2]) or isinstance(layers, Doubled)


def test_threads_that_meet_a_shape_at_the_same_time(images):
    layers = nn.Sequential(Tap("first"), nn.Conv2d(3, 4, 3), nn.ReLU())
    wanted = frozenset(["first"]), frozenset(["first"])
    scripted, found = ScriptedLayers(layers), []

    def work():
        for _ in range(6):
            output, maps = run(scripted, images, *wanted)
            found.append((output, *torch.autograd.grad(output.sum(), maps["first"])))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    leaf = images.clone().requires_grad_()
    expected = layers(leaf)
    expected.sum().backward()
    assert len(found) == 24
    assert all(torch.equal(output, expected) and torch.equal(gradient, leaf.grad) for output, gradient in found)
    assert list(scripted._programs.values()) != [None]


@pytest.mark.parametrize("gradients", [False, True])
def test_a_real_network_is_one_program(gradients):
    """It gives the same logits, maps and gradients as before, to the last bit."""
    classifier = load_classifier("efficientnet_lite0")
    layers = frozenset([classifier.layer("16"), classifier.layer("32[-2]")])
    pixels = torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    for _ in range(2):
        images = classifier.normalize(pixels)
        forward = ForwardPass(classifier, images, layers | {LAST}, gradients=layers if gradients else frozenset())
        ids = [torch.tensor(ids) for ids in ([1, 2, 3, 4], [5, 6, 7, 8])]
        found.append([forward.logits, *map(forward.maps, sorted(layers | {LAST}))])
        found[-1] += [forward.gradients(layer, some) for layer in sorted(layers) for some in ids if gradients]
    assert all(torch.equal(*pair) for pair in zip(found[0], found[-1], strict=True))
    [program] = classifier._executed()._programs.values()
    assert program is not None and set(program.layers) == layers
