import copy
import threading

import pytest
import torch
from torch import nn

from camboxes.models import load_classifier
from camboxes.models.parts import LAST, Tap, recording
from camboxes.models.programs import Programmed


def counted(layers):
    """The layers, which now count how often Python runs them."""

    class Counted(nn.Module):
        calls = 0

        def forward(self, images):
            Counted.calls += 1
            return layers(images)

    return Counted()


@pytest.fixture
def images():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )


def run(programmed, images, layers=frozenset(), *, gradients=False):
    with recording(layers, images.shape[2:], gradients=gradients) as found:
        output = programmed(images)
    return output, found.maps


def test_a_program_runs_without_python_and_gives_the_same_bits(images):
    convolution = nn.Conv2d(3, 4, 3, padding=1)
    layers = counted(nn.Sequential(convolution, Tap("middle"), nn.ReLU6(inplace=True), nn.MaxPool2d(2)))
    programmed = Programmed(layers)
    first, maps = run(programmed, images, frozenset(["middle"]))
    before = layers.calls
    for given in (images, 2 * images):
        again, shown = run(programmed, given, frozenset(["middle"]))
        assert layers.calls == before
        with torch.inference_mode():
            assert torch.equal(shown["middle"], convolution(given))
            assert torch.equal(again, nn.functional.max_pool2d(convolution(given).clamp(0, 6), 2))
    assert torch.equal(run(programmed, images)[0], first)
    assert torch.equal(maps["middle"], run(programmed, images, frozenset(["middle"]))[1]["middle"])


def test_each_shape_and_each_choice_of_layers_has_a_program_of_its_own(images):
    layers = counted(nn.Sequential(nn.Conv2d(3, 4, 3), Tap("middle"), nn.Flatten(2)))
    programmed = Programmed(layers)
    for _ in range(2):
        assert not run(programmed, images)[1]
        assert list(run(programmed, images, frozenset(["middle"]))[1]) == ["middle"]
        assert run(programmed, images[:, :, :5])[0].shape == (2, 4, 18)
        assert run(programmed, images[:1])[0].shape == (1, 4, 36)
        calls = layers.calls
    assert layers.calls == calls == 12, "for each once to prepare weights, to note the operations down, and to compare"


def test_gradients_are_taken_layer_by_layer(images):
    layers = counted(nn.Sequential(Tap("first"), nn.Conv2d(3, 4, 3)))
    programmed = Programmed(layers)
    run(programmed, images)
    before = layers.calls
    output, maps = run(programmed, images, frozenset(["first"]), gradients=True)
    assert layers.calls == before + 1
    (gradient,) = torch.autograd.grad(output.sum(), maps["first"])
    assert gradient.shape == images.shape and gradient.any()


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
    programmed = Programmed(copy.deepcopy(layers))
    for factor in (1, 1, 3, -2):
        with torch.inference_mode():
            expected = layers(factor * images)
        assert torch.equal(run(programmed, factor * images)[0], expected)


@pytest.mark.parametrize("layers", [Doubled(), Noisy(), Counting()], ids=lambda layers: type(layers).__name__)
def test_what_is_not_the_same_each_time_stays_in_python(images, layers):
    programmed = Programmed(layers)
    found = [run(programmed, abs(images))[0] for _ in range(3)]
    assert torch.equal(run(programmed, -abs(images))[0], -abs(images)) or not isinstance(layers, Doubled)
    assert not torch.equal(found[1], found[2]) or isinstance(layers, Doubled)


def test_threads_that_meet_a_shape_at_the_same_time(images):
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    with torch.inference_mode():
        expected = layers(images)
    programmed, found = Programmed(layers), []
    threads = [threading.Thread(target=lambda: found.append(run(programmed, images)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(one, expected) for one in found)


def test_a_real_network_is_one_program(images):
    """Its first pass, which notes it down, and the program's give the same logits and maps, to the last bit."""
    classifier = load_classifier("efficientnet_lite0")
    layer = classifier.layer("16")
    pixels = torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = frozenset([layer, LAST])
    (first, shown), (again, maps) = (
        classifier.record(classifier.normalize(pixels), wanted, gradients=False) for _ in range(2)
    )
    assert torch.equal(first.logits, again.logits)
    assert list(shown.maps) == list(maps.maps) == [layer, LAST]
    assert all(torch.equal(shown.maps[name], maps.maps[name]) for name in wanted)
    [program] = classifier._executed()._programs.values()
    assert program is not None and program.layers == [layer]
