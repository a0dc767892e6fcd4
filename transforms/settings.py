"""The settings of two runs compared, for people. Settings are what a plan and its shards record, as JSON holds them."""

from collections.abc import Iterator, Mapping
from typing import Any

_NAMES = {"model.name": "network", "model.class_names_sha256": "class names", "model.classes": "number of classes"}
_OF_LABELS = "rule.thresholds."


def settings_that_differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings of two runs that differ, by dotted name; None where a run does not have one.

    A calibration counts as one setting: its weights tell a reader nothing.
    """
    flat = [dict(_flat(settings)) for settings in (first, second)]
    names = dict.fromkeys([*flat[0], *flat[1]])
    return {name: values for name in names if (values := (flat[0].get(name), flat[1].get(name)))[0] != values[1]}


def in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """The settings of a run, and of a call for another: "threshold 0.4 instead of 1*otsu, refine none instead of …".

    Args:
      differing: what `settings_that_differ` gives for the run and the call.
    """
    another = "model.name" in differing  # its weights, sizes and statistics are others, too
    texts = [
        _in_words(name, *values)
        for name, values in differing.items()
        if not (another and name.startswith("model.") and name != "model.name")
    ]
    return ", ".join(dict.fromkeys(texts))


def _in_words(name: str, before: Any, now: Any) -> str:
    if name.startswith(_OF_LABELS):
        return "other thresholds of labels"
    if name == "calibration":
        return "scores that are calibrated otherwise" if before and now else f"{'calibrated' if now else 'raw'} scores"
    text = _NAMES.get(name, name.rpartition(".")[2].removesuffix("_sha256")).replace("_", "-")
    if name.endswith("sha256"):
        return f"other {text}"
    return f"{text} {_value(now)} instead of {_value(before)}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return ",".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and name != "calibration":
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value
