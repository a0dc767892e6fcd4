import contextlib
import shutil
import socket
from types import SimpleNamespace

import pytest

from camboxes.pipeline.errors import CallError
from camboxes.pipeline.review import ReviewJob, app_server, fiftyone_dataset, serve, serving
from camboxes.transforms.review.decisions import Decision, append_decision


@pytest.fixture
def no_app(monkeypatch):
    """Neither FiftyOne nor a server: the App answers, and is interrupted at once."""
    for name in ("quiet", "install_plugin"):
        monkeypatch.setattr(app_server, name, lambda: None)
    monkeypatch.setattr(app_server, "delegated_worker", contextlib.nullcontext)
    monkeypatch.setattr(fiftyone_dataset, "first_view", lambda dataset: "?view=first")
    monkeypatch.setattr(app_server, "serve_app", lambda port, ready: ready())
    monkeypatch.setattr(serving, "load_dataset", lambda run, **_: SimpleNamespace(name="photographs"))


def test_a_review_from_its_begin_to_its_end(run, tmp_path, rows, no_app):
    shutil.copytree(run, tmp_path / "run")
    first, second, third, *others = rows(run)
    for row, verdict in ((first, "accepted"), (second, "accepted"), (third, "rejected")):
        append_decision(str(tmp_path / "run"), Decision(row["path"], row["image_id"], verdict))
    addresses = []
    with socket.socket() as free:
        free.bind((app_server.ADDRESS, 0))
        port = free.getsockname()[1]
    found = serve(ReviewJob(run=tmp_path / "run", port=port), addresses.append)
    assert addresses == [f"http://127.0.0.1:{port}/datasets/photographs?view=first"]
    assert found.verdicts == {"accepted": 2, "rejected": 1} and found.images == 3 + len(others)
    assert found.decisions == str(tmp_path / "run" / "review.jsonl")


def test_what_cannot_be_served(run, tmp_path, monkeypatch, no_app):
    with socket.create_server((app_server.ADDRESS, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CallError, match=f"port {port} is in use"):
            serve(ReviewJob(run=run, port=port))
    with pytest.raises(CallError, match="holds no run"):
        serve(ReviewJob(run=tmp_path))

    def gone(run, **_):
        raise ValueError("photographs are gone")

    monkeypatch.setattr(serving, "load_dataset", gone)
    with pytest.raises(CallError, match="photographs are gone"):
        serve(ReviewJob(run=run))
