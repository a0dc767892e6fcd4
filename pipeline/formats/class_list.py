"""classes.txt: the names of the categories, one a line."""

import re
from collections.abc import Sequence

# XML cannot hold these characters, and some of them end a line.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe\uffff]")


def write(categories: Sequence[str]) -> str:
    """The lines of the file.

    Raises:
      ValueError: a name holds a control character.
    """
    if wrong := [name for name in categories if _CONTROL.search(name)]:
        raise ValueError(
            f"labels {', '.join(map(repr, wrong))} hold control characters, which classes.txt and XML cannot; "
            "rename them in the input, or export as coco or parquet"
        )
    return "".join(f"{name}\n" for name in categories)
