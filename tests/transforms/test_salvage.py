import numpy as np
import pytest
import torch

from camboxes.models import Localizer
from camboxes.models.spec import MapSpec
from camboxes.transforms.images import BadImageError
from camboxes.transforms.salvage import Question, localize

CANDIDATES = [[(285,)], [(871,), (480, 745)], [(967,)], [(1,)]]


@pytest.fixture(scope="module")
def localizer(classifier):
    return Localizer(classifier, MapSpec(scales=(96, 192)))


@pytest.fixture
def questions(localizer):
    """Noise, the third image brighter than the others."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 128, (4, 100, 100, 3), np.uint8)
    noise[2] += 127
    return [Question(localizer.resize(image), ids) for image, ids in zip(noise, CANDIDATES, strict=True)]


@pytest.fixture
def failing(localizer, monkeypatch):
    """Makes a pass of certain images fail."""

    def fail(error, of):
        def failing_or(forward):
            def pass_or_fail(images, *arguments):
                if of(images):
                    raise error
                return forward(images, *arguments)

            return pass_or_fail

        for methods in localizer._methods:
            monkeypatch.setattr(methods, "forward", failing_or(methods.forward))

    return fail


def _bytes(answer):
    return [np.asarray(value).tobytes() for value in answer._asdict().values() if value is not None]


def test_an_image_that_the_network_fails_on_costs_itself_alone(localizer, questions, failing):
    expected = localizer.localize(*zip(*questions, strict=True))
    failing(RuntimeError("index out of range"), of=lambda images: (images.mean((1, 2, 3)) > 0.2).any())
    answers, halved = localize(localizer, questions)
    assert isinstance(answers[2], BadImageError)
    assert str(answers[2]) == "network_failed: RuntimeError: index out of range"
    assert halved == 0
    for number in (0, 1, 3):
        assert _bytes(answers[number]) == _bytes(expected[number])


FULL = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
]


@pytest.mark.parametrize("error", FULL)
def test_a_batch_that_does_not_fit_is_halved(localizer, questions, failing, error):
    expected = localizer.localize(*zip(*questions, strict=True))
    failing(error, of=lambda images: len(images) > 2)
    answers, halved = localize(localizer, questions)
    assert halved == 1
    for answer, wanted in zip(answers, expected, strict=True):
        assert answer.class_ids == wanted.class_ids
        np.testing.assert_allclose(answer.maps, wanted.maps, atol=1e-4)


def test_images_that_do_not_fit_one_by_one(localizer, questions, failing):
    failing(torch.OutOfMemoryError("CUDA out of memory"), of=lambda images: True)
    answers, halved = localize(localizer, questions)
    assert {answer.code for answer in answers} == {"out_of_memory"}
    assert halved == 3  # four into two and two, and each of these


def test_a_batch_that_fits_is_passed_once(localizer, questions, failing):
    passes = []
    failing(RuntimeError, of=lambda images: passes.append(len(images)))
    assert localize(localizer, questions)[1] == 0
    assert passes == [4, 1, 1, 1, 1]  # the second scale has four times the pixels
