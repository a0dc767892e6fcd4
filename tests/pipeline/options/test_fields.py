"""Options as fields: the parser that is made from them, and the job that a call makes."""

import argparse
import dataclasses
import re
from pathlib import Path

import pytest

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.label_job import LabelJob
from camboxes.pipeline.options.fields import Options, add_arguments, arguments_of, changed, job_from, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Sheet(Options):
    image: str = option(help="a photograph", metavar="IMAGE", positional=True)
    columns: int = option(3, "how many, at 100% of the width", type=int, metavar="N")
    colour: str | None = option(None, stated="the page's", choices=["red", "blue"], group="looks")
    frame: bool = option(False, "draw a frame", group="looks")
    smooth: bool | None = option(None, "blur it", stated="where it is large", action=argparse.BooleanOptionalAction)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Wide(_Sheet):
    columns: int = changed(_Sheet, "columns", 5)
    output: str = option(help="the page", metavar="FILE")
    first: str | None = option(None, one_of="end", needed=True)
    second: bool = option(False, one_of="end", needed=True)


def _parser(job):
    parser = argparse.ArgumentParser(prog="page", allow_abbrev=False)
    add_arguments(parser, job)
    return parser


def _parsed(*call):
    return job_from(_parser(_Wide).parse_args(call), _Wide)


def test_the_help_is_made_of_the_fields(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert (
        _parser(_Sheet).format_help()
        == """\
usage: page [-h] [--columns N] [--colour {red,blue}] [--frame] [--smooth | --no-smooth] IMAGE

positional arguments:
  IMAGE                 a photograph

options:
  -h, --help            show this help message and exit
  --columns N           how many, at 100% of the width (default: 3)
  --smooth, --no-smooth
                        blur it (default: where it is large)

looks:
  --colour {red,blue}   default: the page's
  --frame               draw a frame
"""
    )


def test_a_call_without_options_makes_the_job_of_the_defaults():
    job = _Wide(image="a.png", output="p.html", first="x")
    assert _parsed("a.png", "--output", "p.html", "--first", "x") == job
    assert (job.columns, job.colour, job.frame, job.smooth, job.second) == (5, None, False, None, False)


def test_options_that_are_given():
    call = ["a.png", "--output", "p", "--second", "--columns", "7", "--colour", "red", "--frame", "--no-smooth"]
    assert _parsed(*call) == _Wide(
        image="a.png", output="p", second=True, columns=7, colour="red", frame=True, smooth=False
    )


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["a.png", "--first", "x"], "the following arguments are required: --output"),
        (["a.png", "--output", "p"], "one of the arguments --first --second is required"),
        (
            ["a.png", "--output", "p", "--first", "x", "--second"],
            "argument --second: not allowed with argument --first",
        ),
        (["a.png", "--output", "p", "--second", "--colour", "green"], "argument --colour: invalid choice: 'green'"),
    ],
)
def test_calls_that_the_parser_refuses(call, said, capsys):
    with pytest.raises(SystemExit):
        _parser(_Wide).parse_args(call)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "first is missing; expected it, or the option that replaces it"),
        ({"first": "x", "second": True}, "first and second were both given; leave one out"),
        ({"first": "x", "colour": "green"}, "colour is 'green'; expected one of red, blue"),
    ],
)
def test_python_is_refused_the_same_values(values, said):
    with pytest.raises(ValueError, match=said):
        _Wide(image="a.png", output="p", **values)


def test_a_text_means_in_python_what_it_means_in_the_command():
    given = {"image": "cat.jpg", "output": "page", "first": "f"}
    assert _Wide(**given, columns="4") == _parsed("cat.jpg", "--output", "page", "--first", "f", "--columns", "4")
    for name, value, said in (
        ("columns", "four", "columns is 'four': invalid literal for int"),
        ("columns", 2.5, "columns is 2.5; expected a whole number"),
        ("columns", True, "columns is True; expected a whole number"),
        ("frame", "false", "frame is 'false'; expected True or False"),
        ("smooth", 0, "smooth is 0; expected True or False"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            _Wide(**given, **{name: value})


def test_what_a_job_refuses_is_a_wrong_call():
    arguments = _parser(_Wide).parse_args(["a.png", "--output", "p", "--second"])
    arguments.colour = "green"
    with pytest.raises(CallError, match="colour is 'green'"):
        job_from(arguments, _Wide)


def test_paths_may_be_given_as_such():
    assert _Sheet(image=Path("photos", "a.png")) == _Sheet(image="photos/a.png")


def test_the_arguments_of_a_job_ask_for_it_again():
    job = LabelJob(
        input="a b", output="out", scales=(224, 448), compete=False, flip=True, threshold="2*otsu", multilabel=True,
        accelerator="nvidia-l4:g2-standard-8", batch_size=8,
    )  # fmt: skip
    parser = argparse.ArgumentParser()
    add_arguments(parser, LabelJob)
    given = arguments_of(job)
    assert job_from(parser.parse_args(given), LabelJob) == job
    assert "--refine" not in given and given[:4] == ["--input", "a b", "--output", "out"]
