"""What `label` does from Python, and that it is what the command does."""

import subprocess
import sys

import pytest

from camboxes.pipeline import LabelJob, label
from camboxes.pipeline.errors import CallError


def test_in_a_process_of_its_own_it_gives_the_command_s_bytes_and_says_nothing(photographs, run, tmp_path, results):
    code = (
        "import sys\n"
        "from camboxes.pipeline import LabelJob, label\n"
        f"done = label(LabelJob(input={str(photographs)!r}, output={str(tmp_path / 'boxes')!r}, shards=2))\n"
        "sys.stdout.write(repr(tuple(done.counts)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("(5, 5, 0, 0, 0, 5)", "")
    assert results(tmp_path / "boxes") == results(run)


def test_wrong_values_are_value_errors(photographs, tmp_path):
    job = {"input": photographs, "output": tmp_path / "out"}
    with pytest.raises(ValueError, match="refine is 'afinity'; expected one of none, affinity"):
        LabelJob(**job, refine="afinity")
    with pytest.raises(ValueError, match="retry_rejected and reuse were both given; leave one out"):
        LabelJob(**job, retry_rejected=True, reuse="other")
    with pytest.raises(CallError, match=r"threshold is 2\.0; expected a share from 0 to 1"):
        label(LabelJob(**job, threshold=2))
    with pytest.raises(CallError, match="unknown option --nothing"):
        label(LabelJob(**job), ["--nothing"])
    assert not (tmp_path / "out").exists()
