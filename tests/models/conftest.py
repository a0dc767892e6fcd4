import pytest
import torch


@pytest.fixture(autouse=True)
def _seeded():
    """Networks that a test makes have the same weights in every run."""
    torch.manual_seed(0)
