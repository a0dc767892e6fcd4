"""Parses the values by which data sets give labels: one rule for every format, a table in docs/how-to/inputs.md."""

import ast
import contextlib
import decimal
import json
import math
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# A list of texts as Python writes it; texts that nothing separates, as NumPy writes them, are no such list.
_TEXT = r"""(?:'[^'\\]*'|"[^"\\]*")"""
_TEXTS = re.compile(rf"\[\s*{_TEXT}(?:\s*,\s*{_TEXT})*\s*\]")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,99})(?:\.0+)?")
# What programs write for a missing value. As a text it is a label like any other, and worth a remark.
_MISSING = frozenset(["nan", "none", "null", "n/a", "na", "<na>", "nat", "undefined", "#n/a"])
# What people call a class folder of photographs on which none of the other labels is.
_BACKGROUND = frozenset(["background", "__background__", "other", "others", "nothing", "negative", "negatives", "neg"])
_NO = re.compile(r"(?:not|non|no)[\s_-]+(?:an?[\s_-]+)?(.+)", re.DOTALL)


def labels_of(value: Any, names: Sequence[str] = ()) -> tuple[str, ...]:
    """The labels that a value stands for, in the order given.

    Args:
      value: a text, a whole number, 3.0 for 3, or a list of them, or the text of one; None, NaN, "" or a number below 0
        for no label; also NumPy values, and bytes of UTF-8.
      names: those of the numbers from 0; empty if a number is its own name.

    Returns:
      Texts that JSON can hold, without space around them. Repeated labels are kept.

    Raises:
      ValueError: it is something else. The message continues the value's name: "is True; expected a text, …".
    """
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, str) and (items := listed_in(value)) is not None:
        value = items
    values = value if isinstance(value, list | tuple) else [value]
    labels = (_label_of(item, value, names) for item in values)
    return tuple(label for label in labels if label)


def labels_in(row: Mapping[str, Any], names: Iterable[str] = ("label", "labels")) -> list[str]:
    """The labels of a row's values with such names, together.

    Raises:
      ValueError: see `labels_of`; the message begins with the name.
    """
    labels: list[str] = []
    for name in names:
        try:
            labels += labels_of(row.get(name))
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return labels


def listed_in(text: str) -> list[Any] | None:
    """The list that a text is, as JSON or as pandas writes it into a CSV; None for any other text."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    return ast.literal_eval(text) if _TEXTS.fullmatch(text) else None


def cell_value(text: str) -> str | int:
    """Reads a text of a format without numbers, as CSV: "3", "3.0" and "-1" are numbers, "03" is a text."""
    text = text.strip()
    return int(text.partition(".")[0]) if _NUMBER.fullmatch(text) else text


def plain_text(text: str) -> str:
    """Makes a label or a path a text that JSON can hold: lone surrogates become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def near_twins(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of labels that differ in case, in the kind or number of spaces, _ and -, or in how accents are encoded."""
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        key = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", label)).strip().casefold()
        groups.setdefault(key, []).append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def joined_labels(labels: Collection[str]) -> list[tuple[str, str]]:
    """The labels that other labels make together, each with what stands between these: ("cat|dog", "|")."""
    return [
        (label, sign)
        for label in sorted(labels)
        for sign in "|;, "
        if sign in label and all(part.strip() in labels for part in label.split(sign))
    ]


def called_missing(labels: Collection[str]) -> list[str]:
    """The labels that programs write for a missing value: "nan", "None", "N/A"."""
    return sorted(label for label in labels if label.casefold() in _MISSING)


def called_background(labels: Collection[str]) -> list[str]:
    """The labels that are called like a background: "other", "negatives"; "no cat", if there is a label "cat"."""
    plain = {label.casefold() for label in labels}
    named = {label: _NO.fullmatch(label.casefold()) for label in labels}
    return sorted(
        label for label, found in named.items() if label.casefold() in _BACKGROUND or (found and found[1] in plain)
    )


def _label_of(item: Any, value: Any, names: Sequence[str]) -> str:
    """The label that a single item stands for; "" for none."""
    if item is None:
        return ""
    if isinstance(item, bytes):
        item = item.decode("utf-8", "backslashreplace")
    if isinstance(item, str):
        label = plain_text(item).strip()
        if _is_list(label):
            raise ValueError(f"is the text {_shown(label)}; expected a list as JSON, or one row for each of its labels")
        return label
    if isinstance(item, float | decimal.Decimal) and not math.isinf(item):
        if math.isnan(item):
            return ""
        item = int(item) if item == int(item) else item
    if isinstance(item, bool) or not isinstance(item, int):
        raise ValueError(f"is {_shown(value)}; expected a text, a whole number, or a list of them")
    if item < 0:
        return ""
    if not names:
        return str(item)
    if item >= len(names):
        raise ValueError(f"is {item}, but there are names for 0 to {len(names) - 1} only")
    return plain_text(names[item]).strip()


def _is_list(label: str) -> bool:
    """Whether a text is a list as Python or JSON writes it; pandas writes such texts to a CSV."""
    if not re.fullmatch(r"""\[\s*(["'].*["'])?\s*\]""", label, re.DOTALL):
        return False
    try:
        return isinstance(ast.literal_eval(label), list)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return False


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"
