"""The arithmetic of benchmarks/steady.py: rates from times, and what cannot be."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

STEADY = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "steady.py"))
Mark, steady_rates, check_possible = STEADY["Mark"], STEADY["steady_rates"], STEADY["check_possible"]


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


def test_an_impossible_rate_ends_the_benchmark():
    """122 images/s on one core where the bare pass gives 25: what the difference of two calls once said."""
    with pytest.raises(SystemExit, match=r"one_process: 122\.0 images/s, where 2 measurements .* gave 24\.0 to 25\.0"):
        check_possible("one_process", [21.0, 122.0, 22.0], [24.0, 25.0])


@pytest.mark.parametrize(
    ("rate", "limits", "possible"),
    [
        (26.2, [24.9, 25.0], True),  # 5% more than the highest
        (26.3, [24.9, 25.0], False),
        (31.2, [20.0, 25.0], True),  # the limit varies by a quarter
        (31.3, [20.0, 25.0], False),
    ],
)
def test_a_rate_may_be_above_its_limit_by_what_the_limit_varies(rate, limits, possible):
    if possible:
        check_possible("a job", [rate], limits)
    else:
        with pytest.raises(SystemExit, match="a job"):
            check_possible("a job", [rate], limits)


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
