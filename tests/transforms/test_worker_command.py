"""An environment whose path has a space, as "/Users/Jane Doe/work/.venv"."""

import shlex
import subprocess
import sys
import venv

import pytest

from camboxes.transforms.worker_command import quoted

JOB = """
import pathlib
import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from camboxes.transforms import quote_python

quote_python()
options = PipelineOptions(["--direct_num_workers=2", "--direct_running_mode=multi_processing"])
with beam.Pipeline("apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner", options) as p:
    squares = p | beam.Create([1, 2, 3]) | beam.Map(lambda number: number**2) | beam.combiners.ToList()
    squares | beam.Map(lambda found: pathlib.Path("found").write_text(str(sorted(found))))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of such an environment, which has what this one has installed."""
    folder = tmp_path_factory.mktemp("my env") / "it's here"
    venv.EnvBuilder(symlinks=True).create(folder)
    [packages] = (folder / "lib").glob("python*/site-packages")
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "shared.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in shared))
    return str(folder / "bin" / "python")


def test_a_job_of_ones_own_with_worker_processes(python, tmp_path):
    done = subprocess.run([python, "-c", JOB], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "found").read_text() == "[1, 4, 9]"


def test_a_command_with_worker_processes(python, run, tmp_path):
    call = [python, "-m", "camboxes.pipeline.cli", "rebox", "--run", run, "--output", tmp_path / "boxes"]
    call += ["--threshold", "0.4", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["/my env/bin/python", "/it's/$HOME/python", "/plain/python"])
def test_a_path_is_quoted_once(path, monkeypatch):
    monkeypatch.setattr(sys, "executable", path)
    command = quoted(f"{path} -m worker")
    assert shlex.split(command) == [path, "-m", "worker"]
    assert quoted(command) == command, "as a Beam that quotes would give it"
