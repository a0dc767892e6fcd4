"""Writes docs/reference.md: the public names of each package, from their signatures and docstrings.

python docs/make_reference.py > docs/reference.md
"""

import dataclasses
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

PACKAGES = ("camboxes", "camboxes.models", "camboxes.transforms", "camboxes.transforms.wsol", "camboxes.pipeline")

OPENING = """# Reference

What camboxes offers to Python, by package; every other name is internal and may change. Where a line ends early,
`help(NAME)` has the rest: shapes, dtypes, ranges, errors, sources. `python docs/make_reference.py` writes this page.
"""


def reference() -> str:
    """The page."""
    return OPENING + "".join(section(importlib.import_module(package)) for package in PACKAGES)


def section(package: ModuleType) -> str:
    """What a package offers, in the order of names."""
    lines = ["", f"## {package.__name__}", "", _first_paragraph(package), ""]
    for name in package.__all__:
        value = getattr(package, name)
        if not callable(value):
            lines.append(f"- `{name}` = `{value!r}`")
            continue
        lines.append(f"- `{name}{_parameters(value)}`: {_first_paragraph(value)}")
    jobs = [value for name in package.__all__ if _is_job(value := getattr(package, name))]
    return "\n".join([*lines, *(line for job in jobs for line in _options(job)), ""])


def _options(job: Any) -> Iterator[str]:
    """A table of a job's fields, from which the help of its command is made, too."""
    from camboxes.pipeline.options.fields import help_text, is_required

    yield from ("", f"### {job.__name__}", "")
    yield from ("| field | value where it is not given | what it does |", "| --- | --- | --- |")
    for field in dataclasses.fields(job):
        default = "must be given" if is_required(field) else f"`{field.default!r}`"
        text = help_text(field).replace("|", "\\|").replace("\n", " ")
        yield f"| `{field.name}` | {default} | {text} |"


def _is_job(value: Any) -> bool:
    return inspect.isclass(value) and value.__name__.endswith("Job")


def _parameters(value: Any) -> str:
    """The parameters by name; of a job none, for its table has them."""
    if _is_job(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return ""
    shown = []
    for parameter in inspect.signature(value).parameters.values():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={_shown(parameter.default)}"
        shown.append(f"{star}{parameter.name}{default}")
    return f"({', '.join(shown)})"


def _shown(default: Any) -> str:
    """A default as it is written; of an object that has no such form, the name of its class."""
    shown = repr(default)
    return f"{type(default).__name__}()" if " object at 0x" in shown else shown


def _first_paragraph(value: Any) -> str:
    text = inspect.getdoc(value) or ""
    return " ".join(text.split("\n\n")[0].split())


if __name__ == "__main__":
    print(reference(), end="")
