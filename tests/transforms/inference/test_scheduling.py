"""Which images are asked about together, and that each gets its own answers; the network is a stand-in."""

import threading
from types import SimpleNamespace

import pytest

from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference.image_loading import LoadedImage, PlannedImage
from camboxes.transforms.inference.scheduling import Scheduler

CLASSES = [{"class_indices": (1, 2)}, {"class_indices": ()}, {"class_indices": (3,)}]


class _Network:
    """Answers with what it was asked: pixels are texts here, whose length is their shape."""

    batch_size = 2
    classifier = SimpleNamespace(spec=SimpleNamespace(device="cpu", batch_size=2))

    def __init__(self):
        self.passes = []

    def companions(self, pixels):
        return len(pixels)

    def localize(self, pixels, candidates):
        assert {tuple(map(tuple, of_image)) for of_image in candidates} == {((1, 2), (3,))}
        self.passes.append(list(pixels))
        return [text.upper() for text in pixels]


@pytest.fixture
def network():
    """A stand-in for the network."""
    return _Network()


@pytest.fixture
def scheduler(network):
    """Its scheduler. An image is read by its row: the pixels of each rectangle, or an error."""

    def read(planned):
        if isinstance(found := planned.row["found"], BadImageError | dict):
            return LoadedImage(planned, finished=found)
        return LoadedImage(planned, rectangles=((0, 0, 1, 1),) * len(found), pixels=tuple(found))

    scheduler = Scheduler(network, read)
    yield scheduler
    scheduler.close()


def _put(scheduler, *shards):
    """The answers for shards that hold images as they are found; by shard and number."""
    answered = {}

    def take(found):
        for image, answers in found:
            assert answered.setdefault((image.planned.shard, image.planned.number), list(answers)) == list(answers)

    for name, of_shard in shards:
        for number, found in enumerate(of_shard):
            row = {"found": found, "labels": CLASSES}
            take(scheduler.put(PlannedImage(name, number, row, None, number == len(of_shard) - 1)))
    take(scheduler.rest())
    return answered


def test_each_image_gets_the_answers_of_its_own_rectangles_in_their_order(scheduler, network):
    answered = _put(scheduler, ("a", [("w", "xx", "y"), ("vv",), ("z", "uu")]))
    assert answered == {("a", 0): ["W", "XX", "Y"], ("a", 1): ["VV"], ("a", 2): ["Z", "UU"]}
    assert sorted(network.passes) == [["uu"], ["w", "y"], ["xx", "vv"], ["z"]]


def test_rejected_and_reused_images_are_answered_without_a_pass(scheduler, network):
    answered = _put(scheduler, ("a", [BadImageError("missing", "it"), {"a": "row"}, ("x",)]))
    assert answered == {("a", 0): [], ("a", 1): [], ("a", 2): ["X"]}
    assert network.passes == [["x"]]


def test_shards_share_batches_and_wait_for_the_next_shard_alone(scheduler, network):
    """ "ww" of the first shard would fit with that of the third, and is not held back for it."""
    answered = _put(
        scheduler,
        ("a", [("x",), ("y",), ("z",), ("ww",)]),
        ("b", [("u",), ("vvv",)]),
        ("c", [("tt",), ("sss",)]),
    )
    assert len(answered) == 8
    assert sorted(network.passes) == [["tt"], ["vvv", "sss"], ["ww"], ["x", "y"], ["z", "u"]]


def test_an_error_in_reading_comes_out_and_closing_ends_the_threads(network):
    before = set(threading.enumerate())
    scheduler = Scheduler(network, lambda planned: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        _put(scheduler, ("a", [("x",)]))
    scheduler.close()
    scheduler.close()
    assert set(threading.enumerate()) <= before
