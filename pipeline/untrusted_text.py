"""Strangers' text as people see it: labels, paths and reasons, on a page or in a terminal.

It may hold a million characters, and characters that a terminal obeys instead of showing them.
"""

import re

_ERRNO = re.compile(r"\[Errno \d+\] ")  # the words behind it say the same
_ON_A_PAGE = 500  # characters of a label, a path or a reason, at most
_IN_A_LIST = 100
_OF_A_LINE = 4000

# Of a traceback the lines that say what was raised; and what Beam adds, which helps nobody.
_RAISED = re.compile(r"^[A-Za-z_][\w.<>]*(?:: .*)?$", re.MULTILINE)
_STEP = re.compile(r" \[while running '[^']*'\]")


def shortened(text: str) -> str:
    """A text for a page: its first 500 characters, and an ellipsis where there are more."""
    return text if len(text) <= _ON_A_PAGE else f"{text[:_ON_A_PAGE]}…"


def on_one_line(text: str, most: int = _IN_A_LIST) -> str:
    """A text for a terminal, of at most so many characters; what cannot be printed is escaped as in a literal."""
    shown = _printable(text[: most + 1])
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def error_text(error: Exception) -> str:
    """What an error says, for a terminal. Of a very long line the middle is left out: its end has the remedy."""
    half = _OF_A_LINE // 2
    lines = _ERRNO.sub("", str(error)).split("\n")
    return "\n".join(
        _printable(line if len(line) <= _OF_A_LINE else f"{line[:half]} … {line[-half:]}") for line in lines
    )


def failure_text(error: BaseException) -> str:
    """What made a job fail, for a terminal: of an error that holds tracebacks, as Beam's do, what was raised last."""
    text = str(error)
    if "Traceback (most recent call last):" in text:
        text = [text, *_RAISED.findall(text)][-1]
    return error_text(Exception(_STEP.sub("", text)))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
