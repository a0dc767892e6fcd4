"""The arithmetic of benchmarks/steady.py: rates from times, and what cannot be."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

STEADY = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "steady.py"))
Mark, steady_rates, Rates, paired = (STEADY[name] for name in ("Mark", "steady_rates", "Rates", "paired"))


def test_a_steady_rate_knows_neither_start_up_nor_the_end():
    """Ten seconds without an image, 10 images/s, then the last ones in one slow step."""
    marks = [Mark(0, 0), *(Mark(10 + second, 10 * second) for second in range(1, 15)), Mark(60, 160)]
    assert steady_rates(marks).by_clock == 10  # (140 - 20) / (24 - 12); all images over all seconds would be 2.7


def test_a_steady_rate_is_that_of_uneven_steps():
    marks = [Mark(0, 0), Mark(5, 8), Mark(6, 16), Mark(6.5, 32), Mark(9, 52), Mark(11, 56), Mark(12, 64)]
    assert steady_rates(marks).by_clock == pytest.approx((56 - 8) / (11 - 5))


def test_a_rate_by_cpu_time_knows_no_other_programs():
    """Two cores for a second, then half of one for eight: as many images in a second of CPU time."""
    marks = [Mark(0, 0, 0.0), Mark(10, 10, 8.0), Mark(11, 30, 10.0), Mark(19, 70, 14.0), Mark(20, 80, 15.0)]
    assert steady_rates(marks) == ((70 - 10) / (19 - 10), (70 - 10) / (14.0 - 8.0))


def test_too_few_steps_tell_no_rate():
    with pytest.raises(SystemExit, match="changed 2 times in the middle of 100 images"):
        steady_rates([Mark(0, 0), Mark(1, 30), Mark(2, 60), Mark(3, 100)])


def repeated(*rates):
    """Gives rates by clock, one a call; by CPU time they are half."""
    left = list(rates)
    return lambda: Rates(rate := left.pop(0), rate / 2)


def test_a_rate_is_paired_with_the_limit_around_it():
    assert paired("a job", repeated(21.0), repeated(24.0, 26.0)) == ((21.0, 10.5), (25.0, 12.5))


def test_an_impossible_rate_ends_the_benchmark():
    """122 images/s on one core where the bare pass gives 25: what the difference of two calls once said."""
    limits = repeated(25.0, 24.0, 24.5, 24.5, 24.0, 25.0)
    message = r"one_process: 122\.0 images/s and 61\.0 .* no more than 25\.0 and 12\.5 were measured .* last of 3 times"
    with pytest.raises(SystemExit, match=message):
        paired("one_process", repeated(122.0, 122.0, 122.0), limits)


def test_a_job_beside_a_disturbed_limit_is_measured_again_and_told(capsys):
    """The limit of another time, 40, makes a rate of 30 no more possible where 25 is."""
    limits = repeated(25.0, 24.0, 40.0, 40.0)
    assert paired("a job", repeated(30.0, 31.0), limits) == ((31.0, 15.5), (40.0, 20.0))
    assert "a job: Rates(by_clock=30.0, by_cpu=15.0) where Rates(by_clock=25.0" in capsys.readouterr().err


@pytest.mark.parametrize(("rate", "again"), [(26.2, False), (26.3, True)])  # 5% more than the higher one of 25
def test_a_rate_may_be_above_its_limit_by_what_two_measurements_differ(rate, again):
    own, _ = paired("a job", repeated(rate, 20.0), repeated(25.0, 20.0, 25.0, 20.0))
    assert own.by_clock == (20.0 if again else rate)


def test_a_rate_by_cpu_time_is_checked_too():
    rates = [Rates(20.0, 13.2), Rates(20.0, 12.0)]
    assert paired("a job", lambda: rates.pop(0), repeated(25.0, 25.0, 25.0, 25.0))[0].by_cpu == 12.0


def test_the_spread_of_three_rounds():
    assert STEADY["spread"]([3.0, 1.0, 2.5]) == {"median": 2.5, "lowest": 1.0, "highest": 3.0}


def test_images_are_marked_while_a_job_runs(tmp_path):
    """A stand-in for a job tells of 4 images, of 8 more half a second later, and of 4 after 0.3 s of work."""
    job = """
import pathlib, sys, time
file = pathlib.Path(sys.argv[1], "camboxes-images-1")
file.write_bytes(bytes(4))
time.sleep(0.5)
file.write_bytes(bytes(12))
start = time.process_time()
while time.process_time() - start < 0.3:
    pass
file.write_bytes(bytes(16))
time.sleep(0.5)
"""
    process = subprocess.Popen([sys.executable, "-c", job, str(tmp_path)])
    marks = STEADY["watch"](process, tmp_path)
    assert [mark.images for mark in marks] == [0, 4, 12, 16]
    assert marks[2].seconds - marks[1].seconds >= 0.25
    assert marks[3].cpu - marks[2].cpu == pytest.approx(0.3, abs=0.1)
