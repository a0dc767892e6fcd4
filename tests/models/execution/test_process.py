import os
import platform
import subprocess
import sys

import pytest
import torch

from camboxes.models.execution.process import out_of_memory, passes_side_by_side

# The faults of 20 rounds in a thread other than the first: in each, 24 MB are taken and given back.
FAULTS = """
import resource
from concurrent.futures import ThreadPoolExecutor
import torch
{before}
def work(_):
    maps = [torch.ones(750_000) for _ in range(8)]
with ThreadPoolExecutor(1) as threads:
    list(threads.map(work, range(10)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    list(threads.map(work, range(20)))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
KEEP = "from camboxes.models.execution.process import keep_freed_memory; keep_freed_memory()"


def faults(before):
    done = subprocess.run([sys.executable, "-c", FAULTS.format(before=before)], check=True, capture_output=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_serves_the_next_pass():
    assert faults(before=KEEP) < faults(before="") / 3


RETURNED = """
import torch
from camboxes.models.execution.process import keep_freed_memory
def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
taken = [torch.ones(1_000_000) for _ in range(100)]
last = torch.ones(1_000)  # behind them, so that they do not end the heap
del taken
before = held()
keep_freed_memory()
print((before - held()) * 4096 / 2**20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_memory_that_was_free_before_goes_back():
    """Of 100 tensors of 4 MB each, as a call before has kept them."""
    options = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
    done = subprocess.run(
        [sys.executable, "-c", RETURNED], check=True, capture_output=True, env={**os.environ, **options}
    )
    assert float(done.stdout) > 300


CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("4,2", 4), ("0", 1), ("", CORES), ("many", CORES)])
def test_passes_side_by_side(monkeypatch, asked, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert passes_side_by_side("cpu") == expected
    assert passes_side_by_side("cuda") == 1


def test_errors_of_a_full_memory():
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory(refused.value)
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError())
    assert not out_of_memory(RuntimeError("a matrix of another shape"))
