from types import SimpleNamespace

import pytest

from camboxes.pipeline.commands.conclusion import cut_short

AGAIN, CONTINUES = "the same command begins again", "the same command continues"


@pytest.mark.parametrize(
    ("command", "overwrite", "begun", "expected"),
    [
        ("label", False, False, CONTINUES),  # perhaps a run that an earlier call began
        ("label", False, True, CONTINUES),
        ("label", True, True, "the same command without --overwrite continues"),
        ("label", True, False, AGAIN),
        ("train", True, True, "the same command without --overwrite continues"),
        ("selftrain", False, False, AGAIN),  # what it learns is kept at the end alone
        ("selftrain", False, True, CONTINUES),
        ("rebox", False, True, AGAIN),  # all boxes are drawn anew
        ("export", False, True, "the same command with --overwrite begins again"),  # it refuses what is there
        ("export", True, True, AGAIN),
        ("evaluate", False, False, AGAIN),
    ],
)  # fmt: skip
def test_what_the_same_call_does_after_one_that_was_cut_short(command, overwrite, begun, expected):
    assert cut_short(command, SimpleNamespace(overwrite=overwrite), begun=begun) == expected


def test_a_job_without_overwrite():
    assert cut_short("demo", SimpleNamespace(), begun=True) == AGAIN
    assert cut_short("review", SimpleNamespace(), begun=False) == CONTINUES
