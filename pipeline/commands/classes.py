"""Lists the classes of a network: a class a line, its index and its names.

With WORD it lists those that WORD stands for as a label, or that have it in a name: camboxes classes dog.
"""

import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.options.network import ClassOptions

if TYPE_CHECKING:
    from camboxes.models.networks.class_names import Names
    from camboxes.transforms.planning.class_words import ClassWords


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Word(Options):
    word: str | None = option(None, "a label", stated="all classes", metavar="WORD", positional=True, nargs="?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassesJob(ClassOptions, _Word):
    """Which classes to list."""


JOB = ClassesJob


def run(job: ClassesJob) -> None:
    """Prints the classes to the standard output; what the word was taken for, to the standard error."""
    from camboxes.transforms.planning.class_words import ClassWords

    with blaming_the_call():
        words = ClassWords(job.known_class_names() or _class_names(job))
    found = range(len(words.class_names)) if job.word is None else _standing_for(job.word, words)
    try:
        for index in found:
            print(f"{index}\t{', '.join(words.class_names[index])}")
        sys.stdout.flush()
    except BrokenPipeError:  # of a reader that has seen enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _class_names(job: ClassesJob) -> "Names":
    from camboxes.models import load_classifier

    return tuple(load_classifier(job.model_spec()).class_names)


def _standing_for(word: str, words: "ClassWords") -> Sequence[int]:
    """The classes of a word; says what it was taken for. Raises a CallError where there are none."""
    from camboxes.transforms.planning.unmatched import described, explained

    match = words.find(word)
    if match is None and (named := words.with_words(word)):
        print(f"{word}: no label by itself; {counted(len(named), 'class')} with it in a name", file=sys.stderr)
        return named
    if match is None or not match.classes:
        raise CallError(str(explained(word, match, words)))
    if match.meaning:
        print(f"{match.name or word}: {match.meaning.gloss}", file=sys.stderr)
    for meaning in match.others:
        print(f"it may also mean {described(meaning, words)}", file=sys.stderr)
    return match.classes
