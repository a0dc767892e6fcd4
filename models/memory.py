"""What a process does with memory that it does not need any more."""

import ctypes

_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD = -3, -1  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Lets this process keep the memory of maps and photographs for the next ones; with glibc, else nothing happens.

    By default what a thread other than the first one frees goes back to the system at once, and every pass begins with
    the system's zeros: up to a fifth of a job's time (measured: docs/speed.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc allows
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)  # what an arena keeps at its end: more than is ever free there
