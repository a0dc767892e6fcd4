import logging
import sys

from camboxes.pipeline.reporter import LOG, TERMINAL


def test_callers_in_python_are_told_by_the_log(caplog, capfd, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [caplog.handler])  # not those of the commands of other tests
    with caplog.at_level(logging.INFO, "camboxes"):
        LOG.say("5 images")
        LOG.say("WARNING: two labels are alike")
        with LOG.progress(10, "image") as advance:
            advance(10)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [("INFO", "5 images"), ("WARNING", "two labels are alike")]
    assert capfd.readouterr() == ("", "")


def test_the_command_is_told_on_stderr(capsys, monkeypatch):
    TERMINAL.say("WARNING: two labels are alike")
    with TERMINAL.progress(10, "image") as advance:
        advance(10)
    assert capsys.readouterr() == ("", "WARNING: two labels are alike\n"), "and no bar, for it is no terminal"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with TERMINAL.progress(10, "image", "drawing") as advance:
        advance(4)
    assert "drawing:  40%" in capsys.readouterr().err
