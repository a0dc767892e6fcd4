"""Serves FiftyOne's App on this machine alone; installs the plugin, and runs the worker for large jobs."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ADDRESS = "127.0.0.1"  # never another one: the App has no authentication
_PLUGIN = Path(__file__).parent / "plugin"

_WORKER = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from fiftyone.core.cli import main
main()
"""

# The App's pages load fonts from another server. This policy makes browsers load from this server alone.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self' data: blob:; worker-src 'self' blob:; frame-ancestors 'self'"
)


def quiet() -> None:
    """Configures FiftyOne for this process and its children. Call it before FiftyOne is imported."""
    os.environ["FIFTYONE_DO_NOT_TRACK"] = "1"
    os.environ["FIFTYONE_DATABASE_VALIDATION"] = "false"
    os.environ["FIFTYONE_LOGGING_DESTINATION"] = "none"  # otherwise it prints each line that our own log prints
    os.environ["FIFTYONE_EXECUTION_STORE_NOTIFICATION_SERVICE_DISABLED"] = "true"  # nothing listens to it
    os.environ["FIFTYONE_SERVER"] = "1"  # caches no documents, which another process may change
    os.environ["FIFTYONE_PLUGINS_CACHE_ENABLED"] = "true"  # otherwise every move of a slider reads every plugin again
    os.environ["FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS"] = "true"  # such as the delegated worker below


def is_free(port: int) -> bool:
    """Whether nothing listens on a port."""
    with socket.socket() as tried:
        return tried.connect_ex((ADDRESS, port)) != 0


def install_plugin() -> Path:
    """Copies the panel to FiftyOne's plugins folder, so that it is there however the App is started."""
    import fiftyone as fo

    folder = Path(fo.config.plugins_dir, "camboxes-review")
    shutil.copytree(_PLUGIN, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@contextlib.contextmanager
def delegated_worker() -> Iterator[None]:
    """Runs FiftyOne's delegated worker as a process, which draws many images while people continue to review.

    It ends when its standard input is closed, and so with this process, however that ends.
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", _WORKER, "delegated", "launch"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C ends this process, which ends the worker
    )
    try:
        yield
    finally:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait()


def serve_app(port: int, ready: Callable[[], None]) -> None:
    """Serves the App until the process is interrupted; calls `ready` once it answers."""
    from fiftyone.server.app import app
    from fiftyone.server.events import set_port
    from hypercorn.asyncio import serve as serve_forever
    from hypercorn.config import Config

    from camboxes.pipeline.review.guard import guarded

    config = Config()
    config.bind = [f"{ADDRESS}:{port}"]
    config.errorlog = None
    set_port(port)
    app.add_middleware(_Policy)
    threading.Thread(target=_when_it_answers, args=(port, ready), daemon=True).start()
    asyncio.run(serve_forever(guarded(app), config))


def _when_it_answers(port: int, ready: Callable[[], None]) -> None:
    while True:
        try:
            with urllib.request.urlopen(f"http://{ADDRESS}:{port}/fiftyone", timeout=5):
                return ready()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)


class _Policy:
    """Adds the content security policy to every page."""

    def __init__(self, app: Any):
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sent(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", _POLICY.encode())]
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)
