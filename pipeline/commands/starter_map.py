"""A label map for the labels that match nothing, written for somebody to edit."""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camboxes.pipeline.label_job import LabelJob
from camboxes.pipeline.options.fields import arguments_of


def offered(starter: Mapping[str, Any], job: LabelJob, beam_options: Sequence[str]) -> str:
    """Writes a label map beside the run's folder, over no other file, and says how to go on."""
    try:
        named = Path(job.output).name not in ("", "..")  # the current folder has its name elsewhere
        path = _write(starter, job.output.rstrip("/") if named else str(Path(job.output).resolve()))
    except OSError as error:
        return f"A label map to begin with cannot be written beside {job.output}: {error.strerror or error}"
    again = ["camboxes", "label", *arguments_of(dataclasses.replace(job, label_map=path)), *beam_options]
    train = ["camboxes", "train", "--input", job.input, "--output", "CKPT"]
    return (
        f'Edit {path}, which lists all labels: remove each "?" and keep what the label stands for. '
        f"Then call\n  {shlex.join(again)}\n"
        f"If the network has no class for a label, train a classifier:\n  {shlex.join(train)}"
    )


def _write(starter: Mapping[str, Any], output: str) -> str:
    """Writes the map, a label a line, to the first name that no other file has."""
    from camboxes.transforms import storage

    entries = (f"  {_json(label)}: {_json(classes)}" for label, classes in starter.items())
    content = ("{\n" + ",\n".join(entries) + "\n}\n").encode()
    names = (
        f"{output}-label-map{number}.json" for number in itertools.chain([""], map("-{}".format, itertools.count(2)))
    )
    path = next(path for path in names if not storage.exists(path) or storage.read_bytes(path) == content)
    storage.write_bytes(path, content)
    return path


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
