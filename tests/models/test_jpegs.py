"""The GPU's way of decoding, as far as it goes without one: the same calls, on the CPU."""

import functools
import io
import threading
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from camboxes.models import Localizer, decode_jpeg, decodes_jpegs, jpeg_decoder
from camboxes.models.jpegs import Gathered, decode_jpegs


@pytest.fixture(scope="module")
def files(photographs):
    """Photographs as JPEGs, of several sizes."""
    encoded = []
    for path in sorted(photographs.glob("*/*.*")):
        stream = io.BytesIO()
        Image.open(path).convert("RGB").save(stream, "JPEG")
        encoded.append(stream.getvalue())
    assert len({len(data) for data in encoded}) == 5
    return encoded


def test_jpegs_are_decoded_together_as_each_by_itself(files):
    together = decode_jpegs("cpu", files)
    assert all(np.array_equal(pixels, decode_jpeg(data)) for pixels, data in zip(together, files, strict=True))


@pytest.mark.parametrize("missing", [1, 300])
def test_a_jpeg_without_its_end_is_left_to_the_cpu(files, missing):
    with pytest.raises(RuntimeError, match="without its end"):
        decode_jpegs("cpu", [files[0], files[1][:-missing]])


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), False), ((7, 5), False), ((8, 0), True), ((8, 6), False), ((9, 0), True), ((10, 0), True)],
    ids=["V100", "T4", "A100", "A10", "H100", "B200"],
)
def test_gpus_with_circuits_decode(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert decodes_jpegs("cuda") is expected and not decodes_jpegs("cpu")
    assert isinstance(jpeg_decoder("cuda"), Gathered) is expected
    assert jpeg_decoder("cpu") is decode_jpeg


class Work:
    """Doubles items; the first call ends when so many others wait. A negative item fails those that it comes with."""

    def __init__(self, others):
        self.calls = []
        self.others = others
        self.gathered = Gathered(self)

    def __call__(self, items):
        self.calls.append(items)
        while len(self.calls) == 1 and len(self.gathered._waiting) < self.others:
            threading.Event().wait(0.001)
        if min(items) < 0:
            raise RuntimeError(f"{items} could not be done")
        return [2 * item for item in items]

    def ask(self, first, others):
        """What each item gets: a result or an error. The first one is at work when the others ask."""
        answers = {}

        def one(item):
            try:
                answers[item] = self.gathered(item)
            except RuntimeError as error:
                answers[item] = str(error)

        threads = [threading.Thread(target=one, args=[item]) for item in (first, *others)]
        threads[0].start()
        while not self.calls:
            threading.Event().wait(0.001)
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        return answers


def test_calls_that_come_meanwhile_are_answered_together():
    work = Work(others=5)
    assert work.ask(1, [2, 3, 4, 5, 6]) == {item: 2 * item for item in range(1, 7)}
    assert [sorted(items) for items in work.calls] == [[1], [2, 3, 4, 5, 6]]


def test_one_that_fails_costs_itself_alone():
    work = Work(others=3)
    assert work.ask(1, [2, -3, 4]) == {1: 2, 2: 4, -3: "[-3] could not be done", 4: 8}
    assert work.gathered(5) == 10, "and it goes on"


def test_gathering_goes_on_when_every_thread_asks_again_and_again(files):
    gathered, found = Gathered(functools.partial(decode_jpegs, "cpu")), []

    def one(number):
        for place in range(10):
            data = files[(number + place) % len(files)]
            found.append(np.array_equal(gathered(data), decode_jpeg(data)))

    threads = [threading.Thread(target=one, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 80


def test_a_photograph_is_resized_where_it_is(classifier, files):
    """A tensor, as a GPU gives it, and an array: to the same pixels."""
    localizer = Localizer(classifier)
    [tensor] = decode_jpegs("cpu", files[:1])
    assert torch.equal(localizer.resize(tensor)[0], localizer.resize(decode_jpeg(files[0]))[0])


def test_what_does_not_fit_on_the_gpu_is_resized_by_the_cpu(classifier, files, monkeypatch):
    """By then what the first attempt held is free."""
    localizer, resized, attempts, held = Localizer(classifier), Localizer._resized, [], []

    def full(self, image):
        attempts.append(image)
        if len(attempts) == 1:
            on_gpu = torch.ones(8)
            held.append(weakref.ref(on_gpu))
            raise torch.OutOfMemoryError("CUDA out of memory")
        assert held[0]() is None
        return resized(self, image)

    expected = localizer.resize(decode_jpeg(files[0]))[0]
    monkeypatch.setattr(Localizer, "_resized", full)
    assert torch.equal(localizer.resize(decode_jpegs("cpu", files[:1])[0])[0], expected) and len(attempts) == 2


def test_what_calls_that_fail_together_held_is_free_when_each_is_made_by_itself():
    held, alive = [], []

    def work(items):
        alive.append([pixels() is not None for pixels in held])
        pixels = torch.ones(8)
        held.append(weakref.ref(pixels))
        if len(held) == 1:
            raise RuntimeError("one of them cannot be decoded")
        return items

    assert Gathered(work)(b"a JPEG") == b"a JPEG"
    assert alive == [[], [False]]
