"""The line between a wrong call and a failed job."""

import contextlib
import errno
from collections.abc import Iterator, Sequence

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


def refuse_unknown(arguments: Sequence[str], where: str) -> None:
    """Raises a CallError where arguments are left that no command takes; `where` says what is listed where."""
    if not arguments:
        return
    if not any(argument.startswith("-") for argument in arguments):
        more = f" and {len(arguments) - 3} more" if len(arguments) > 3 else ""
        raise CallError(
            f"unexpected {', '.join(arguments[:3])}{more}: if the shell made them of a pattern, put it in quotes, as "
            "--input 'train-*.tar'; else each of them needs an option before it"
        )
    raise CallError(f"unknown option {' '.join(arguments)}; {where}")


def _of_the_machine(error: BaseException | None) -> bool:
    """Whether an error, or one of those that it was made of, is the machine's fault."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _MACHINE:
            return True
        error = error.__cause__
    return False
