"""Keeps what was measured on a machine for its next jobs: a file for each question, in the user's cache.

What cannot be read or written there is as if it were not known.
"""

import contextlib
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs


def folder() -> Path:
    """Where the answers are kept; it need not exist."""
    return platformdirs.user_cache_path("camboxes") / "execution"


def recall(question: Mapping[str, Any]) -> dict[str, float]:
    """The milliseconds that were measured, by the names of the ways, the simplest first; none where nothing is known.

    Args:
      question: all that they depend on, for JSON.
    """
    return _read(_file(question))


def remember(question: Mapping[str, Any], milliseconds: Mapping[str, float]) -> None:
    """Keeps what was measured, whole or not at all."""
    file = _file(question)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as own:
            new = Path(own, file.name)
            new.write_text(json.dumps({"milliseconds": milliseconds, "question": question}, indent=1))
            new.replace(file)


def answers() -> list[dict[str, float]]:
    """All that is known, as `recall` gives it."""
    return [found for file in sorted(folder().glob("*.json")) if (found := _read(file))]


def _file(question: Mapping[str, Any]) -> Path:
    return folder() / f"{hashlib.sha256(json.dumps(question, sort_keys=True).encode()).hexdigest()}.json"


def _read(file: Path) -> dict[str, float]:
    try:
        found = {way: float(time) for way, time in json.loads(file.read_bytes())["milliseconds"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return found if all(0 < time < math.inf for time in found.values()) else {}
