"""Spellings of a name that count as the same name, and the singular forms of a word."""

import re
import unicodedata
from collections.abc import Iterator

# WordNet's rules for plurals (morphy). A result counts where it is a known word.
_ENDINGS = {"s": "", "ses": "s", "xes": "x", "zes": "z", "ches": "ch", "shes": "sh", "men": "man", "ies": "y"}


def plain(name: str) -> str:
    """A name without what does not matter: case, the encoding of accents; hyphens and underscores are spaces."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()


def joined(name: str) -> str:
    """A plain name without spaces: "diningtable"."""
    return name.replace(" ", "")


def singulars(word: str) -> Iterator[str]:
    """What a plain word may be the regular plural of."""
    for ending, singular in _ENDINGS.items():
        if word.endswith(ending) and not word.endswith("ss"):
            yield word.removesuffix(ending) + singular
