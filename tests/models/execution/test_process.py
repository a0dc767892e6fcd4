import os

import pytest
import torch

from camboxes.models.execution.process import out_of_memory, passes_side_by_side

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
