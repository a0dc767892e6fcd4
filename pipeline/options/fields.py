"""An option is a field of a frozen dataclass: its default and its help stand there, and nowhere else.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class ReboxJob(BoxOptions):
        run: str = option(help="a finished run's folder", metavar="OUT")
        plain: bool = option(False, "draw from the maps before refinement")

A command's parser is made from the fields of its job, in their order. Dataclasses put a base class's fields before the
class's own; of several base classes the last one's come first.
"""

import argparse
import dataclasses
import numbers
import os
from collections.abc import Sequence
from typing import Any, TypeVar

from camboxes.pipeline.errors import blaming_the_call

_Job = TypeVar("_Job", bound="Options")

_NUMBERS = {int: (numbers.Integral, "a whole number"), float: (numbers.Real, "a number")}


def option(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    stated: str | None = None,
    group: str | None = None,
    one_of: str | None = None,
    needed: bool = False,
    positional: bool = False,
    **argparse: Any,
) -> Any:
    """Declares a field that is an option, too, under the field's name with hyphens.

    Args:
      default: the value of an option that is not given; without a default it must be given. False makes a flag.
      help: what the option does, without its default.
      stated: the default in words; None to state the value, if there is one.
      group: the heading of the option in the help; None for the command's own options.
      one_of: a name that several options share of which at most one may be given.
      needed: one of those must be given.
      positional: the option is given by its place, without a name.
      argparse: for `ArgumentParser.add_argument`: type, metavar, choices, action.
    """
    values: dict[str, Any] = {"help": help, "stated": stated, "group": group, "one_of": one_of, "needed": needed}
    return dataclasses.field(default=default, metadata={**values, "positional": positional, "argparse": argparse})


def changed(options: "type[Options]", name: str, default: Any, **changes: Any) -> Any:
    """Declares a field of a base class again, with another default and other arguments of `option`."""
    values = dict({field.name: field for field in dataclasses.fields(options)}[name].metadata)
    return option(default, **{**values.pop("argparse"), **values, **changes})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What every job has in common: it checks its values when it is made.

    Raises:
      ValueError: a value that is not what its field expects, or options together that exclude each other.
    """

    def __post_init__(self) -> None:
        given: dict[str, str] = {}
        for field in dataclasses.fields(self):
            value, group = _checked(field, getattr(self, field.name)), field.metadata["one_of"]
            object.__setattr__(self, field.name, value)
            if group and value != field.default:
                if group in given:
                    raise ValueError(f"{given[group]} and {field.name} were both given; leave one out")
                given[group] = field.name
        for field in dataclasses.fields(self):
            if field.metadata["needed"] and field.metadata["one_of"] not in given:
                raise ValueError(f"{field.name} is missing; expected it, or the option that replaces it")


def _checked(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """A field's value from Python as the command would give it: a path is a text, and a text is parsed."""
    if value is field.default:
        return value
    parse, choices = (field.metadata["argparse"].get(name) for name in ("type", "choices"))
    expected = None
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif parse and isinstance(value, str):
        try:
            value = parse(value)
        except (ValueError, argparse.ArgumentTypeError) as error:
            raise ValueError(f"{field.name} is {value!r}: {error}") from None
    if is_flag(field) or "action" in field.metadata["argparse"]:
        expected = None if isinstance(value, bool) else "True or False"
    elif parse in _NUMBERS:
        kind, name = _NUMBERS[parse]
        expected = None if isinstance(value, kind) and not isinstance(value, bool) else name
    elif isinstance(field.default, tuple):
        expected = None if isinstance(value, Sequence) else "several values, as a tuple"
    elif choices:
        expected = None if value in choices else f"one of {', '.join(choices)}"
    if expected:
        raise ValueError(f"{field.name} is {value!r}; expected {expected}")
    return value


def add_arguments(parser: argparse.ArgumentParser, job: type[Options]) -> None:
    """Declares an option for each field of a job."""
    groups: dict[str | None, Any] = {None: parser}
    for field in dataclasses.fields(job):
        values, group, one_of = field.metadata, field.metadata["group"], field.metadata["one_of"]
        if group not in groups:
            groups[group] = parser.add_argument_group(group)
        if one_of and one_of not in groups:
            groups[one_of] = parser.add_mutually_exclusive_group(required=values["needed"])
        given = {"help": help_text(field).replace("%", "%%"), **values["argparse"]}
        if not values["positional"]:
            given |= {"required": True} if is_required(field) else {"default": field.default}
        if is_flag(field):
            given["action"] = "store_true"
        groups[one_of or group].add_argument(option_name(field), **given)


def job_from(arguments: argparse.Namespace, job: type[_Job]) -> _Job:
    """The job that parsed arguments ask for.

    Raises:
      CallError: see `Options`.
    """
    with blaming_the_call():
        return job(**{field.name: getattr(arguments, field.name) for field in dataclasses.fields(job)})


def arguments_of(job: Options) -> list[str]:
    """The arguments of a call that asks for a job; defaults are left out."""
    arguments = []
    for field in dataclasses.fields(job):
        value, name = getattr(job, field.name), option_name(field)
        if value == field.default:
            continue
        if isinstance(value, bool):
            arguments.append(name if value else name.replace("--", "--no-", 1))
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            arguments += [text] if field.metadata["positional"] else [name, text]
    return arguments


def option_name(field: "dataclasses.Field[Any]") -> str:
    """What an option is called on the command line."""
    return field.name if field.metadata["positional"] else f"--{field.name.replace('_', '-')}"


def option_names(job: type[Options]) -> list[str]:
    """What the options of a job are called on the command line, but for those that are given by their place."""
    named = [field for field in dataclasses.fields(job) if not field.metadata["positional"]]
    switches = [field for field in named if field.metadata["argparse"].get("action") is argparse.BooleanOptionalAction]
    return [*map(option_name, named), *(f"--no-{option_name(field)[2:]}" for field in switches)]


def help_text(field: "dataclasses.Field[Any]") -> str:
    """What an option does, and its default."""
    text, default = field.metadata["help"], default_text(field)
    if default is None:
        return text
    return f"{text} (default: {default})" if text else f"default: {default}"


def default_text(field: "dataclasses.Field[Any]") -> str | None:
    """The default of an option in words; None where there is none to state."""
    stated = field.metadata["stated"]
    if stated is None and not is_required(field) and not is_flag(field) and field.default is not None:
        return str(field.default)
    return stated


def is_flag(field: "dataclasses.Field[Any]") -> bool:
    """Whether an option takes no value, and is off unless it is given."""
    return field.default is False and "action" not in field.metadata["argparse"]


def is_required(field: "dataclasses.Field[Any]") -> bool:
    """Whether an option must be given."""
    return field.default is dataclasses.MISSING
