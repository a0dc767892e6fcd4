"""Starts `camboxes label` from a Dataflow flex template, and prints the template's parameters.

A template's launcher runs this file with its parameters as --name=value: names with underscores, flags as true or
false. The file of its parameters is written by
`python -m camboxes.pipeline.flex_template --metadata > pipeline/flex_template.json`.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from camboxes.pipeline import cli
from camboxes.pipeline.label_job import LabelJob
from camboxes.pipeline.options import fields

# An option of Beam's: without it, workers would not have camboxes.
_IMAGE = {
    "name": "sdk_container_image",
    "label": "sdk container image",
    "helpText": "the image that the template was built with, for the workers to run",
}


def metadata() -> dict[str, Any]:
    """The template's parameters: the options of `camboxes label`, and the workers' image."""
    return {
        "name": "camboxes label",
        "description": "Image-level labels in, pseudo bounding boxes out.",
        "parameters": [*map(_parameter, dataclasses.fields(LabelJob)), _IMAGE],
    }


def call(parameters: Sequence[str]) -> list[str]:
    """Turns a launcher's --name=value into arguments of `camboxes`; other options than its own stay as they are.

    Raises:
      ValueError: a flag that is neither true nor false.
    """
    return ["label", *(argument for given in parameters for argument in _arguments(given))]


def _arguments(given: str) -> Iterator[str]:
    name, _, value = given.removeprefix("--").partition("=")
    field = {field.name: field for field in dataclasses.fields(LabelJob)}.get(name)
    if field is None:
        yield given
    elif not _takes_no_value(field):
        yield f"{fields.option_name(field)}={value}"
    elif value.lower() not in ("true", "false"):
        raise ValueError(f"parameter {name} is {value!r}; expected true or false")
    elif value.lower() == "true":
        yield fields.option_name(field)
    elif field.metadata["argparse"].get("action") is argparse.BooleanOptionalAction:
        yield fields.option_name(field).replace("--", "--no-", 1)


def _takes_no_value(field: "dataclasses.Field[Any]") -> bool:
    return fields.is_flag(field) or "action" in field.metadata["argparse"]


def _parameter(field: "dataclasses.Field[Any]") -> dict[str, Any]:
    values = ["true", "false"] if _takes_no_value(field) else field.metadata["argparse"].get("choices")
    name = field.name
    parameter: dict[str, Any] = {"name": name, "label": name.replace("_", " "), "helpText": fields.help_text(field)}
    if values:
        parameter["regexes"] = [f"^({'|'.join(map(re.escape, values))})$"]
    return parameter | ({} if fields.is_required(field) else {"isOptional": True})


def main(arguments: Sequence[str]) -> int:
    """Labels, and returns the command's exit code; with --metadata prints the template's parameters instead."""
    if list(arguments) == ["--metadata"]:
        print(json.dumps(metadata(), indent=2, ensure_ascii=False))
        return 0
    return cli.main(call(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
