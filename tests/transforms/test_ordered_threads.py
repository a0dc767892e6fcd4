"""Order, and how far ahead, of work in threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.transforms.ordered_threads import BatchesByKind, OrderedMap, batched, through_network


@pytest.fixture
def threads():
    """Three threads."""
    with ThreadPoolExecutor(3) as pool:
        yield pool


@pytest.mark.parametrize("together", [1, 4])
def test_results_come_in_the_order_of_the_items(threads, together):
    def work(number):
        time.sleep(0.01 * (number % 3 == 0))
        return number**2

    ordered = OrderedMap("work", threads, work, 5, together=together)
    assert list(ordered.all(range(30))) == [number**2 for number in range(30)]
    assert list(ordered.rest()) == []


@pytest.mark.parametrize(("most", "together", "waiting"), [(0, 1, 0), (3, 1, 3), (8, 4, 8), (5, 4, 8)])
def test_at_most_so_many_items_are_in_work(threads, most, together, waiting):
    """Of items in groups, groups that hold at least so many."""
    ordered = OrderedMap("work", threads, str, most, together=together)
    taken = 0
    for number in range(40):
        for result in ordered.put(number):
            assert result == str(taken)
            taken += 1
        in_work = (number + 1) // together * together - taken
        assert in_work <= waiting
    assert in_work == waiting, "and as many, if there are so many"


def test_what_fails_in_a_thread_fails_where_its_result_is_taken(threads):
    results = OrderedMap("work", threads, lambda number: 6 // number, 1).all([3, 2, 0, 1])
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_batches_hold_items_of_one_kind():
    batches = BatchesByKind(2, kind=len)
    assert list(batches.put(["a", "bb", "cc", "ddd", "e", "f"])) == [["bb", "cc"], ["a", "e"]]
    assert list(batches.rest(lambda text: text == "f")) == [["f"]]
    assert list(batches.rest(lambda text: text == "f")) == []
    assert list(batches.rest()) == [["ddd"]]
    assert list(batches.rest()) == []


@given(st.lists(st.integers()), st.integers(1, 9))
def test_lists_of_so_many(items, size):
    found = list(batched(items, size))
    assert [item for batch in found for item in batch] == items
    assert all(len(batch) == size for batch in found[:-1])
    assert all(0 < len(batch) <= size for batch in found[-1:])


CLASSIFIER = SimpleNamespace(spec=SimpleNamespace(device="cpu", batch_size=3))


def test_items_go_through_a_network_in_batches():
    """Every fifth cannot be decoded; of what is left, three at a time, in order, and the last one is alone."""
    found = through_network(CLASSIFIER, lambda number: number if number % 5 else None, list, range(13))
    assert list(found) == [[1, 2, 3], [4, 6, 7], [8, 9, 11], [12]]


def test_a_network_s_threads_end_with_what_it_gives():
    def threads():
        return {thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")}

    before = threads()
    found = through_network(CLASSIFIER, lambda number: number, list, range(1000))
    assert next(found) == [0, 1, 2] and threads() - before
    found.close()
    assert threads() == before
    with pytest.raises(ZeroDivisionError):
        list(through_network(CLASSIFIER, lambda number: 1 // number, list, range(9)))
    assert threads() == before
