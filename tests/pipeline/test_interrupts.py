"""Processes of their own that are interrupted: what they say, how fast and how they end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from camboxes.pipeline.interrupts import interrupted, telling

# Says "ready" and waits; once interrupted, it takes `TIDY` seconds to put things away.
_PROCESS = """
import atexit, sys, time
from camboxes.pipeline.interrupts import Answer, telling
atexit.register(print, "the end")
answer = Answer(lambda notes: f"interrupted {notes}")
try:
    with telling(lambda: "1 of 3 done", "another machine goes on"):
        print("ready", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    print("tidy", flush=True)
    sys.stderr.write("a traceback")
    time.sleep(TIDY)
    print("tidied")
    answer.end()
"""


def _started(tidy=0, **options):
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS.replace("TIDY", str(tidy))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_one_line_and_ends_the_process_by_its_signal(number):
    process = _started()
    process.send_signal(number)
    output, errors = process.communicate(timeout=30)
    assert output == "tidy\ntidied\nthe end\n"
    assert errors == "interrupted ['1 of 3 done', 'another machine goes on']\n"
    assert process.returncode == -number  # as a shell sees it 128 + number, and it ends its loop


def test_a_second_interrupt_ends_it_at_once():
    process = _started(tidy=60)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "tidy\n"
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=30)
    assert time.monotonic() - start < 1
    assert (output, errors.count("\n"), process.returncode) == ("", 1, -signal.SIGINT)


def test_an_interrupt_after_the_last_word_ends_it_without_one():
    code = (
        "import signal, time; from camboxes.pipeline.interrupts import Answer; answer = Answer(lambda _: 'told')\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # as asyncio does\n"
        "answer.stop(); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("", "") and process.returncode == -signal.SIGINT


def test_what_takes_long_to_put_away_is_left():
    process = _started(tidy=60)
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    assert time.monotonic() - start < 5
    process.communicate()


def test_a_job_in_the_background_is_not_interrupted():
    """Its shell has it ignore Ctrl-C."""
    process = _started(preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30)[0] == "tidy\ntidied\nthe end\n" and process.returncode == -signal.SIGTERM


def test_an_error_gets_a_note_of_what_is_done_and_an_interrupt_one_of_other_machines_too():
    for error, notes in (
        (ValueError(), ["1 of 3"]),
        (KeyboardInterrupt(), ["1 of 3", "it goes on"]),
    ):
        with pytest.raises(type(error)) as caught, telling(lambda: "1 of 3", "it goes on"):
            raise error
        assert caught.value is error and error.__notes__ == notes


def test_where_nothing_can_be_told_the_error_stays():
    with pytest.raises(ValueError, match="the job's") as caught, telling(lambda: Path("/nowhere").read_text()):
        raise ValueError("the job's")
    assert not hasattr(caught.value, "__notes__")


def test_an_interrupt_of_which_another_error_was_made():
    try:
        try:
            raise KeyboardInterrupt
        except BaseException as error:
            raise RuntimeError("KeyboardInterrupt [while running 'Map']") from error
    except RuntimeError as error:
        assert interrupted(error)
    assert not interrupted(RuntimeError()) and not interrupted(None)
