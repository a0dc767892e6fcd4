import errno
import json
import os
import re

import pytest
from apache_beam.io.filesystems import FileSystems

from camboxes.models.training import selftraining
from camboxes.pipeline import cli, errors
from camboxes.pipeline.commands import review
from camboxes.pipeline.review import serving
from camboxes.pipeline.selftraining import examples, rounds


def _full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _said(fault):
    """Without its number."""
    return getattr(fault, "strerror", None) or str(fault)


@pytest.mark.parametrize("number", sorted(errors._MACHINE))
def test_a_fault_of_the_machine_is_raised_as_it_is(number):
    fault = OSError(number, os.strerror(number))
    with pytest.raises(OSError, match=os.strerror(number)) as found, errors.blaming_the_call():
        raise fault
    assert found.value is fault
    with pytest.raises(OSError, match="weights could not be had"), errors.blaming_the_call():
        raise OSError("weights could not be had") from fault
    with pytest.raises(ValueError, match="weights could not be had"), errors.blaming_the_call():
        try:
            raise RuntimeError("the hub failed") from fault
        except RuntimeError as error:
            raise ValueError("weights could not be had") from error


@pytest.mark.parametrize(
    "fault",
    [
        ValueError("no such name"),
        RuntimeError("no such device"),
        OSError("the weights could not be had"),
        *(OSError(number, os.strerror(number)) for number in (errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EROFS)),
    ],
)
def test_what_a_check_finds_is_blamed_on_the_call(fault):
    with pytest.raises(errors.CallError, match=re.escape(str(fault))), errors.blaming_the_call():
        raise fault


@pytest.fixture
def calls(run, photographs, tmp_path):
    """For each command that writes a call that is right."""
    (tmp_path / "truth.json").write_text((run / "annotations.json").read_text())
    truth = ["--ground-truth", str(tmp_path / "truth.json")]
    own, out = ["--run", str(run)], ["--output", str(tmp_path / "out")]
    return {
        "label": ["--input", str(photographs), *out],
        "train": ["--input", str(photographs), *out, "--size", "64"],
        "rebox": [*own, *out],
        "selftrain": [*own, *out, "--rounds", "1"],
        "export": [*own, *out],
        "evaluate": [*own, *truth, *out],
        "tune": [*own, *truth, "--output", str(tmp_path / "tuning.json")],
        "compare": [str(run), str(tmp_path / "second"), *truth, "--output", str(tmp_path / "c.json")],
        "explain": [
            str(photographs / "tripod" / "camera.png"),
            "--labels",
            "tripod",
            "--output",
            str(tmp_path / "x.png"),
        ],
    }


@pytest.mark.parametrize(
    "command", ["label", "train", "rebox", "selftrain", "export", "evaluate", "tune", "compare", "explain"]
)
def test_a_full_disk_is_a_failed_job(command, calls, run, tmp_path, capsys, monkeypatch):
    if command == "compare":
        assert cli.main(["rebox", "--run", str(run), "--output", str(tmp_path / "second")]) == 0
    monkeypatch.setattr(selftraining, "_EPOCHS", (1, 1))
    # The kernel itself says that there is no space, at the first byte.
    monkeypatch.setattr(FileSystems, "create", lambda path, **_: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    assert cli.main([command, *calls[command]]) == 1, capsys.readouterr().err
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [_full(), RuntimeError("not enough memory"), ValueError("shapes do not match")])
def test_what_fails_in_a_self_training_is_a_failed_job(fault, calls, tmp_path, capsys, monkeypatch):
    def fit(*_, **__):
        raise fault

    monkeypatch.setattr(rounds, "fit", fit)
    assert cli.main(["selftrain", *calls["selftrain"]]) == 1
    assert f"the job failed: {_said(fault)}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists(), "nothing was learnt, nothing stays"


def test_a_self_training_that_cannot_begin_does_not_cost_the_run_that_it_would_replace(
    run, calls, tmp_path, capsys, monkeypatch
):
    assert cli.main(["rebox", *calls["rebox"]]) == 0
    monkeypatch.setattr(examples, "load_classifier", lambda spec: (_ for _ in ()).throw(ValueError("no network")))
    assert cli.main(["selftrain", *calls["selftrain"], "--overwrite"]) == 2
    assert "the network of --run" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]


def test_what_fails_while_a_run_is_loaded_to_review_is_a_failed_job(run, capsys, monkeypatch):
    monkeypatch.setattr(review, "_check_fiftyone", lambda: None)
    for fault, code in [(_full(), 1), (RuntimeError("the database went away"), 1), (ValueError("gone"), 2)]:

        def load(*_, fault=fault, **__):
            raise fault

        monkeypatch.setattr(serving, "load_dataset", load)
        assert cli.main(["review", "--run", str(run), "--no-browser"]) == code
        assert _said(fault) in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_the_calls_fault(calls, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for command in ("label", "train", "rebox", "selftrain", "export"):
        call = calls[command][: calls[command].index("--output")]
        assert cli.main([command, *call, "--output", str(tmp_path / "file" / "out")]) == 2, command
        assert "file" in capsys.readouterr().err
