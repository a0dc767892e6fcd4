import threading
import time

import pytest
import torch

from camboxes.models.execution.timing import fastest, time_passes


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({"fp32": 100.0}, "fp32"),
        ({"fp32": 100.0, "fused": 95.0}, "fp32"),  # a tie goes to the first one
        ({"fp32": 110.0, "fused": 100.0}, "fp32"),
        ({"fp32": 111.0, "fused": 100.0}, "fused"),
        ({"fp32": 120.0, "fused": 105.0, "bf16": 100.0}, "fused"),
        ({"fp32": 120.0, "fused": 100.0, "bf16": 50.0}, "bf16"),
        ({"fp32": 30.0, "fused": 100.0, "bf16": 900.0}, "fp32"),
    ],
)
def test_the_fastest_is_the_simplest_of_those_that_take_about_as_long(milliseconds, chosen):
    assert fastest(milliseconds) == chosen


class Machine:
    """Runs passes that take the seconds that they are given, one after the other, on a clock of its own."""

    def __init__(self, **seconds):
        self.now, self.left, self.ran = 0.0, {name: list(each) for name, each in seconds.items()}, []

    def passes(self):
        return {name: lambda name=name: self.run(name) for name in self.left}

    def run(self, name):
        self.ran.append(name)
        taken = self.left[name].pop(0)
        if taken is None:
            raise RuntimeError("could not create a primitive")
        self.now += taken

    def times(self):
        return time_passes(self.passes(), 1, lambda: self.now)


def test_the_least_of_four_turns_counts_and_the_first_pass_does_not():
    machine = Machine(plain=[1, 4, 3, 5, 4], fused=[9, 4, 3, 4, 2])
    assert machine.times() == {"plain": 3000, "fused": 2000}
    assert machine.ran == ["plain", "fused"] * 5  # in turns


def test_what_is_clearly_slower_gets_no_further_turn():
    machine = Machine(plain=[1, 2, 2, 2, 2], fused=[3, 3, 2, 1, 2], emulated=[50, 40])
    assert machine.times() == {"plain": 2000, "fused": 1000, "emulated": 40000}
    assert machine.ran == ["plain", "fused", "emulated"] * 2 + ["plain", "fused"] * 2


def test_what_is_alone_is_not_timed_further():
    machine = Machine(plain=[1, 2], emulated=[50, 40])
    assert machine.times() == {"plain": 2000, "emulated": 40000}


def test_what_fails_has_no_time():
    failing = Machine(plain=[2, 2], broken=[None, None])
    assert failing.times() == {"plain": 2000}
    assert Machine(broken=[None] * 5, other=[None] * 5).times() == {}


def test_passes_run_side_by_side_on_one_core_each():
    seen, together = [], threading.Barrier(2)

    def run():
        together.wait(60)  # both have begun
        seen.append((threading.get_ident(), torch.get_num_threads()))

    time_passes({"plain": run}, 2, time.thread_time)
    assert len(seen) == 4 and len({thread for thread, _ in seen}) == 2 and {cores for _, cores in seen} == {1}
