"""What the docs say to type is parsed: by the commands, and as Beam, pip, make and the benchmarks read it."""

import argparse
import ast
import contextlib
import importlib.util
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import NamedTuple

import markdown_it
import pytest
from packaging.requirements import Requirement

from camboxes.pipeline import cli
from camboxes.pipeline.jobs import beam_options
from camboxes.pipeline.options import fields

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = sorted((ROOT / "benchmarks" / "records").rglob("*.md"))
ELSEWHERE = ("apt", "docker", "export", "gcloud", "ssh")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def lines(self):
        """A block of shell's lines, continued ones joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


def blocks(page):
    """The fenced blocks of a page."""
    for token in markdown_it.MarkdownIt().parse(page.read_text()):
        if token.type == "fence":
            yield Block(token.info, token.content)


def typed(page):
    """What a page says to type, in blocks of shell and within sentences; and whether nothing is left out there."""
    for block in blocks(page):
        if block.language == "sh":
            yield from ((line, True) for line in block.lines)
    for token in markdown_it.MarkdownIt().enable("table").parse(page.read_text()):
        for part in token.children or ():
            if part.type == "code_inline" and re.match(r"(camboxes|make|pip|python) ", part.content):
                yield part.content, False


def check_camboxes(words, whole):
    """By the command's own parser, and by Beam's where the command takes Beam's options."""
    if words[0] in ("--help", "--version"):
        return
    module = importlib.import_module(f"camboxes.pipeline.commands.{words[0]}")
    if whole:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "run", lambda job, arguments=(): beam_options.beam_options(arguments))
            assert cli.main(words) == 0
    known = {*fields.option_names(module.JOB), *beam_options._parser()._option_string_actions, "--help", "--verbose"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def check_make(words, whole):
    """By the names of the Makefile's targets and variables."""
    for name, is_variable, _ in (word.partition("=") for word in words):
        assert re.search(rf"^{name} \?=" if is_variable else rf"^{name}:", Path(ROOT, "Makefile").read_text(), re.M)


def check_pip(words, whole):
    """By the names of the extras, and as requirements."""
    extras = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if "--constraint" in words:
        assert Path(ROOT, words.pop(words.index("--constraint") + 1)).exists()
        words.remove("--constraint")
    assert words[0] == "install"
    for word in words[1:]:
        asked = Requirement(word.replace(".", "camboxes", 1) if word.startswith(".") else word)
        assert asked.name != "camboxes" or asked.extras <= extras.keys()


def check_python(words, whole):
    """By what the script declares to argparse, or whether it reads arguments at all; a module must be found."""
    if words[0].startswith("-"):
        assert words[0] != "-m" or importlib.util.find_spec(words[1])
        return
    source, given = Path(ROOT, words[0]).read_text(), [word.strip("[]") for word in words[1:] if word != "..."]
    if "add_argument(" not in source:
        assert not given or "sys.argv" in source
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "add_argument":
            declared = {key.arg: key.value for key in node.keywords if key.arg in ("action", "choices", "nargs")}
            for name, value in declared.copy().items():
                declared.pop(name)
                with contextlib.suppress(NameError):  # choices that the script computes
                    declared[name] = eval(ast.unparse(value), {"argparse": argparse})
            parser.add_argument(*map(ast.literal_eval, node.args), **declared)
    if given or whole:
        parser.parse_args(given)


CHECKS = {"camboxes": check_camboxes, "make": check_make, "pip": check_pip, "python": check_python}
LINES = [
    pytest.param(line, whole, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES + RECORDS
    for line, whole in typed(page)
]


@pytest.mark.parametrize(("line", "whole"), LINES)
def test_a_line_can_be_typed(line, whole):
    words = shlex.split(line.split(" > ")[0].removesuffix("&"), comments=True)
    if words[0] in CHECKS and len(words) > 1:
        CHECKS[words[0]](words[1:], whole and "…" not in line)
    else:
        assert not whole or words[0] in ELSEWHERE or shutil.which(words[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_say_what_they_hold(page):
    """So that none is passed over."""
    assert {block.language for block in blocks(page)} <= {"sh", "python", "json", "text", "yaml"}
