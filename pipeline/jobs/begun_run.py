"""A run that an output folder holds, beside the run that a call asks for: told before a network is loaded."""

import contextlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from camboxes.models.spec import ModelSpec
from camboxes.pipeline.errors import CallError
from camboxes.transforms import PlanConflictError, PlannedRun

_RULE = {f"rule.{name}": f"--{name.replace('_', '-')}" for name in ("threshold", "min_area", "boxes")}


def network_settings(before: PlannedRun, spec: ModelSpec) -> dict[str, Any]:
    """The settings `model` of a run, with what a spec asks for; what it leaves open is as in the run."""
    model = before.settings["model"]
    asked = {name: value for name, value in spec.settings().items() if value not in (None, "auto")}
    return {**model, **asked, "name": model["name"] if _same_network(model["name"], spec.name) else spec.name}


def _same_network(qualified: str, name: str) -> bool:
    """Whether a name, or a checkpoint's folder, may stand for a network with this qualified name."""
    description = Path(name, "classifier.json")
    if description.is_file():
        with contextlib.suppress(ValueError, AttributeError):  # who loads it tells what is wrong
            return json.loads(description.read_bytes()).get("network") == qualified
        return True
    bare = name.rpartition(":")[2]
    return qualified.rpartition(":")[2] in (bare, f"tf_{bare}")


@contextlib.contextmanager
def naming_rebox(output: str) -> Iterator[None]:
    """Adds the call of camboxes rebox to a conflict with a finished run from whose maps the boxes can be drawn."""
    try:
        yield
    except PlanConflictError as error:
        run = PlannedRun.load(output)
        if run is None or not error.settings or not error.settings.keys() <= _RULE.keys() or run.missing():
            raise
        rule = [text for name, (_, now) in error.settings.items() for text in (_RULE[name], str(now))]
        call = ["camboxes", "rebox", "--run", output, "--output", f"{output.rstrip('/')}-reboxed", *rule]
        raise CallError(
            f"{error}; to draw boxes by this rule from the stored maps, in seconds: {shlex.join(call)}"
        ) from error
