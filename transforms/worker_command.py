"""Lets Beam's local runner start worker processes of a Python whose path has a space.

Beam hands the path to a shell without quoting it. No worker starts then, and the job waits for them for ever.
"""

import shlex
import sys
from typing import Any


def quote_python() -> None:
    """Has the path quoted in jobs that this process runs with --direct_running_mode=multi_processing."""
    if shlex.quote(sys.executable) == sys.executable:
        return

    from apache_beam.portability import python_urns
    from apache_beam.runners.portability.fn_api_runner import worker_handlers

    def handler(command: bytes, *beam: Any) -> worker_handlers.WorkerHandler:
        return worker_handlers.SubprocessSdkWorkerHandler(quoted(command.decode()).encode(), *beam)

    worker_handlers.WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(handler)


def quoted(command: str) -> str:
    """A shell command with this Python's path quoted, where it begins with the path as it is."""
    arguments = command.removeprefix(f"{sys.executable} ")
    return command if arguments == command else f"{shlex.quote(sys.executable)} {arguments}"
