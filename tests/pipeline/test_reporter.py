import contextlib
import logging
import re
import sys
import time

from camboxes.pipeline import reporter
from camboxes.pipeline.reporter import LOG, TERMINAL


def _on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(reporter, "_TICK", 0.1)


def test_callers_in_python_are_told_by_the_log(caplog, capfd, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [caplog.handler])  # not those of the commands of other tests
    with caplog.at_level(logging.INFO, "camboxes"):
        LOG.say("5 images")
        LOG.say("WARNING: two labels are alike")
        with LOG.step("loading a network"), LOG.progress(10, "image", "drawing") as advance:
            advance(10)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("INFO", "5 images"), ("WARNING", "two labels are alike"), ("INFO", "loading a network")]
    assert capfd.readouterr() == ("", "")


def test_a_file_gets_lines_now_and_then_and_none_of_what_is_short(capsys, monkeypatch):
    monkeypatch.setattr(reporter, "_PLAIN_FIRST", 0.2)
    monkeypatch.setattr(reporter, "_PLAIN_TICK", 0.2)
    TERMINAL.say("WARNING: two labels are alike")
    with TERMINAL.step("listing photographs"), TERMINAL.progress(10, "image", "looking") as advance:
        advance(10)
    assert capsys.readouterr() == ("", "WARNING: two labels are alike\n")
    with TERMINAL.step("loading a network"):
        time.sleep(0.3)
    with TERMINAL.progress(10, "image", "drawing") as advance:
        advance(3)
        advance(1)
        time.sleep(0.3)
    assert capsys.readouterr() == ("", "loading a network …\ndrawing: 4 of 10 images\n")


def test_a_step_on_a_terminal_ticks_and_stays_if_it_took_long(capsys, monkeypatch):
    _on_a_terminal(monkeypatch)
    with TERMINAL.step("listing photographs"):
        pass
    assert capsys.readouterr().err.endswith("\r"), "the line is cleared"
    with contextlib.suppress(ZeroDivisionError), TERMINAL.step("loading a network"):
        time.sleep(0.35)
        TERMINAL.say("said meanwhile")
        raise ZeroDivisionError
    said = capsys.readouterr().err
    assert len(re.findall(r"loading a network … 00:00", said)) >= 4, "as it begins, and with each tick"
    assert re.search(r"\rsaid meanwhile\n", said), "on a line of its own"
    with TERMINAL.step("loading another"):
        time.sleep(0.2)
    assert re.search(r"\rloading another … 00:00 *\n$", capsys.readouterr().err)


def test_the_time_left_does_not_count_what_came_before_the_first_image(capsys, monkeypatch):
    _on_a_terminal(monkeypatch)
    with TERMINAL.progress(100, "image", "drawing") as advance:
        time.sleep(2)
        advance(10)
        time.sleep(0.15)
        before = capsys.readouterr().err
        for _ in range(4):
            time.sleep(0.2)
            advance(10)
        after = capsys.readouterr().err
    assert re.findall(r"(\d+)/100 \[00:0\d<(\S+),", before)[-1] == ("10", "?"), "one sign says nothing of the rate"
    assert set(re.findall(r"<([^,]+),", before)) == {"?"}
    done, left = re.findall(r"(\d+)/100 \[00:0\d<00:0(\d),", after)[-1]
    assert done == "50" and 0 <= int(left) <= 2, "1 s, for 50 images a second; with the first two seconds it were 3 s"
    assert "drawing:  50%" in after and " image/s" in after
