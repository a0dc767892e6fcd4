"""Lets Beam's local runner start worker processes where Python's path has a space.

Beam passes the path to a shell without quoting it. Then no worker starts, and the job waits for ever.
"""

import shlex
import sys
from typing import Any


def quote_python() -> None:
    """Changes how Beam starts worker processes in this process from now on: with Python's path quoted.

    Needed once before a job of --direct_running_mode=multi_processing. Does nothing where the path needs no quotes.
    """
    if shlex.quote(sys.executable) == sys.executable:
        return

    from apache_beam.portability import python_urns
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    def handler(command: bytes, *beam: Any) -> worker_handlers.WorkerHandler:
        return worker_handlers.SubprocessSdkWorkerHandler(quoted(command.decode()).encode(), *beam)

    worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(handler)


def quoted(command: str) -> str:
    """Quotes this Python's path at the beginning of a shell command, unless it is quoted there already."""
    arguments = command.removeprefix(f"{sys.executable} ")
    return command if arguments == command else f"{shlex.quote(sys.executable)} {arguments}"
