"""The line between a wrong call and a failed job."""

import contextlib
import difflib
import errno
from collections.abc import Collection, Iterable, Iterator, Sequence

# The machine's faults, which may come up in any check: no disk space, no memory, a failing disk, too many open files.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EIO, errno.EMFILE, errno.ENFILE}


class CallError(ValueError):
    """What was asked for cannot be done as asked. Its text is one line with the remedy; the exit code is 2."""


@contextlib.contextmanager
def blaming_the_call() -> Iterator[None]:
    """Turns what a check finds wrong (an input, a name, a device, a setting) into a CallError.

    Only checks belong inside, and the first write to the output, which checks it. What fails in the work itself is a
    failed job, and so is a fault of the machine, wherever it comes up: it is raised as it is.
    """
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if _of_the_machine(error):
            raise
        raise CallError(str(error)) from error


def did_you_mean(given: Sequence[str], known: Iterable[str]) -> str | None:
    """A question that names the known words nearest to those that were given; None where none is near."""
    names = [*known]
    near = dict.fromkeys(name for word in given for name in difflib.get_close_matches(word, names, n=2, cutoff=0.75))
    return f"did you mean {' or '.join(near)}?" if near else None


def unknown_options(arguments: Iterable[str], known: Collection[str]) -> list[str]:
    """The names of options among arguments that are none of those that are known."""
    names = [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]
    return [name for name in names if name not in known]


def refuse_unknown(arguments: Sequence[str], known: Collection[str], where: str) -> None:
    """Raises a CallError where arguments are left that no command takes.

    Args:
      arguments: those that are left.
      known: the names of options that are taken.
      where: says what is listed where, for options that resemble none of these.
    """
    if not arguments:
        return
    if not any(argument.startswith("-") for argument in arguments):
        more = f" and {len(arguments) - 3} more" if len(arguments) > 3 else ""
        raise CallError(
            f"unexpected {', '.join(arguments[:3])}{more}: if the shell made them of a pattern, put it in quotes, as "
            "--input 'train-*.tar'; else each of them needs an option before it"
        )
    remedy = did_you_mean(unknown_options(arguments, known), known) or where
    raise CallError(f"unknown option {' '.join(arguments)}; {remedy}")


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether an error, or one of those that it was made of, is the machine's fault."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            return True
        error = error.__cause__
    return False
