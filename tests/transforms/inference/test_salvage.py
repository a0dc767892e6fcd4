import logging
import weakref

import numpy as np
import pytest
import torch

from camboxes.models import Localizer
from camboxes.models.spec import MapSpec
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference import salvage
from camboxes.transforms.inference.salvage import BrokenNetworkError, Question, localize

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

        for methods in (look.methods for look in localizer._looks):
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


@pytest.mark.parametrize("in_a_cycle", [False, True])
def test_the_tensors_of_a_failed_pass_are_gone_when_it_is_made_again(localizer, questions, monkeypatch, in_a_cycle):
    """The error's traceback holds the pass's frames, and those its tensors; a frame may hold the error, too."""
    [forward, *_] = [look.methods.forward for look in localizer._looks]
    held, alive = [], []

    def pass_or_fail(images, *arguments):
        alive.append([tensor() is not None for tensor in held])
        if len(images) > 1:
            activations = torch.ones(len(images), 8)
            held.append(weakref.ref(activations))
            error = torch.OutOfMemoryError("CUDA out of memory")
            try:
                raise error
            finally:
                if not in_a_cycle:
                    del error
        return forward(images, *arguments)

    monkeypatch.setattr(localizer._looks[0].methods, "forward", pass_or_fail)
    answers, halved = localize(localizer, questions)
    assert halved == 3 and not any(isinstance(answer, BadImageError) for answer in answers)
    assert len(held) == 3 and len(alive) == 7
    assert not any(map(any, alive))


def test_a_pass_that_fails_otherwise_leaves_nothing_either(localizer, questions, monkeypatch):
    [forward, *_] = [look.methods.forward for look in localizer._looks]
    held, alive = [], []

    def pass_or_fail(images, *arguments):
        alive.append([tensor() is not None for tensor in held])
        if len(held) < 3:
            activations = torch.ones(len(images), 8)
            held.append(weakref.ref(activations))
            raise RuntimeError("not this one")
        return forward(images, *arguments)

    monkeypatch.setattr(localizer._looks[0].methods, "forward", pass_or_fail)
    answers, _ = localize(localizer, questions)
    assert [isinstance(answer, BadImageError) for answer in answers] == [True, True, False, False]
    assert not any(map(any, alive))


@pytest.mark.parametrize("error", [TypeError("unexpected keyword argument"), RuntimeError("no kernel for this layer")])
def test_a_network_that_fails_on_everything_fails_the_job(localizer, questions, failing, error):
    passes = []
    failing(error, of=lambda images: passes.append(len(images)) or True)
    with pytest.raises(BrokenNetworkError) as failure:
        localize(localizer, questions)
    assert str(failure.value) == (
        "the network failed on every image of a batch, and then on random pixels, so the images are not at fault: "
        f"{type(error).__name__}: {error}"
    )
    assert len(passes) == 1 + 4 + 1


def test_a_batch_of_bad_images_alone_fails_no_job(localizer, questions, failing):
    """A data set's last batch may hold a single image."""
    failing(RuntimeError("index out of range"), of=lambda images: (images.mean((1, 2, 3)) > 0.2).any())
    answers, _ = localize(localizer, questions[2:3])
    assert [str(answer) for answer in answers] == ["network_failed: RuntimeError: index out of range"]


@pytest.fixture
def nothing_logged(monkeypatch):
    """As in a new process."""
    monkeypatch.setattr(salvage, "_logged", set())


def test_each_kind_of_error_is_logged_once_with_its_traceback(localizer, questions, failing, caplog, nothing_logged):
    failing(RuntimeError("index out of range"), of=lambda images: (images.mean((1, 2, 3)) > 0.2).any())
    for _ in range(3):
        localize(localizer, questions)
    [record] = [record for record in caplog.records if record.name == salvage.__name__]
    assert record.levelno == logging.ERROR
    assert "RuntimeError: index out of range" in caplog.text and "in pass_or_fail" in caplog.text
    failing(ValueError("another"), of=lambda images: (images.mean((1, 2, 3)) > 0.2).any())
    localize(localizer, questions)
    assert len([record for record in caplog.records if record.name == salvage.__name__]) == 2


def test_a_batch_that_does_not_fit_is_no_error_to_log(localizer, questions, failing, caplog, nothing_logged):
    failing(FULL[0], of=lambda images: len(images) > 2)
    localize(localizer, questions)
    assert not caplog.records


def test_a_batch_that_fits_is_passed_once(localizer, questions, failing):
    passes = []
    failing(RuntimeError, of=lambda images: passes.append(len(images)))
    assert localize(localizer, questions)[1] == 0
    assert passes == [4, 1, 1, 1, 1]  # the second scale has four times the pixels
