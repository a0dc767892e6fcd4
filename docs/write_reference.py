"""Writes docs/reference/commands.md and docs/reference/python.md from what the code declares.

python docs/write_reference.py
"""

import argparse
import dataclasses
import html
import importlib
import inspect
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from camboxes.pipeline.cli import COMMANDS
from camboxes.pipeline.options import fields

FOLDER = Path(__file__).parent / "reference"
PACKAGES = ("camboxes", "camboxes.models", "camboxes.transforms", "camboxes.transforms.wsol", "camboxes.pipeline")

COMMANDS_OPENING = """# Commands

Every command and every option, from the declarations that `--help` shows, too. `python docs/write_reference.py` writes
this page; do not edit it. In Python an option is a field of the command's job, with underscores for hyphens:
`--min-area 0.01` is `min_area=0.01`.

All commands have `--help` and `--verbose`, which logs what happens and prints tracebacks of errors.
`camboxes --version` prints the version.

Exit codes: 0 done; 1 the job failed; 2 the call was wrong; 130 interrupted by Ctrl-C; 143 ended by SIGTERM.

| command | what it does |
| --- | --- |
"""

PYTHON_OPENING = """# Python

The public names of each package; every other name is internal and may change. `python docs/write_reference.py` writes
this page; do not edit it. The site (`make docs`) has signatures and whole docstrings; so has `help(NAME)`.
"""


def commands() -> str:
    """The page of the commands."""
    index = [f"| [`camboxes {name}`](#camboxes-{name}) | {summary} |" for name, summary in COMMANDS.items()]
    return COMMANDS_OPENING + "\n".join([*index, *(line for name in COMMANDS for line in _command(name)), ""])


def python() -> str:
    """The page of the public names."""
    return PYTHON_OPENING + "\n".join([*(line for name in PACKAGES for line in _package(name)), ""])


def _command(name: str) -> Iterator[str]:
    module = importlib.import_module(f"camboxes.pipeline.commands.{name}")
    options = dataclasses.fields(module.JOB)
    beam = "[BEAM_OPTION ...]" if getattr(module, "TAKES_BEAM_OPTIONS", False) else ""
    usage = [f"camboxes {name}", *filter(None, map(_in_usage, options)), "[OPTION ...]" if options else "", beam]
    yield from ("", f"## camboxes {name}", "", "```text", " ".join(filter(None, usage)), "```", "")
    yield from _description(inspect.getdoc(module) or "")
    for group in dict.fromkeys(field.metadata["group"] for field in options):
        yield from ("", f"| {group or 'option'} | meaning | default |", "| --- | --- | --- |")
        yield from (_row(field) for field in options if field.metadata["group"] == group)


def _in_usage(field: "dataclasses.Field[Any]") -> str:
    """What a call must have of an option; nothing of one that may be left out."""
    if field.metadata["positional"] or fields.is_required(field):
        return _spelled(field) if fields.is_required(field) else f"[{_spelled(field)}]"
    return ""


def _description(text: str) -> Iterator[str]:
    """Indented lines are a block of their own."""
    for indented, group in itertools.groupby(text.splitlines(), lambda line: line.startswith("  ")):
        lines = list(group)
        yield from ("```text", *map(str.strip, lines), "```") if indented else map(_escaped, lines)


def _row(field: "dataclasses.Field[Any]") -> str:
    if fields.is_required(field):
        default = "must be given"
    elif field.metadata["needed"]:
        default = "one of these must be given"
    else:
        default = fields.default_text(field) or ""
    return f"| {_code(_spelled(field))} | {_escaped(field.metadata['help'])} | {_escaped(default)} |"


def _spelled(field: "dataclasses.Field[Any]") -> str:
    """An option as it is given, with what follows it."""
    values = field.metadata["argparse"]
    value = values.get("metavar") or "{" + ",".join(values.get("choices", ())) + "}"
    if field.metadata["positional"]:
        return value
    name = fields.option_name(field)
    if values.get("action") is argparse.BooleanOptionalAction:
        return f"{name}, --no-{name[2:]}"
    return name if fields.is_flag(field) or "action" in values else f"{name} {value}"


def _code(text: str) -> str:
    """Code for a cell of a table, where a backtick does not shield a bar."""
    return f"<code>{html.escape(text).replace('|', '&#124;')}</code>"


def _escaped(text: str) -> str:
    """Plain text as Markdown; pages that it names are links."""
    escaped = re.sub(r"([\\*_|\[\]])", r"\\\1", " ".join(text.split())).replace("<", "&lt;")
    return re.sub(r"\bdocs/([\w/-]+\.md)", r"[\1](../\1)", escaped)


def _package(name: str) -> Iterator[str]:
    package = importlib.import_module(name)
    yield from ("", f"## {name}", "", _first_paragraph(package), "", "| name | |", "| --- | --- |")
    values = {public: getattr(package, public) for public in package.__all__}
    for public, value in values.items():
        meaning = _first_paragraph(value).replace("|", "\\|") if callable(value) else f"`{value!r}`"
        yield f"| `{public}` | {meaning} |"
    for public, value in values.items():
        if callable(value):
            yield from ("", f"::: {name}.{public}")


def _first_paragraph(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    (FOLDER / "commands.md").write_text(commands())
    (FOLDER / "python.md").write_text(python())
