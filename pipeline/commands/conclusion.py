"""What the commands say of a run that they have written, and what to do next."""

import contextlib
import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from camboxes.models.counts import counted
from camboxes.pipeline.run import Run
from camboxes.pipeline.untrusted_text import on_one_line

_CONTINUED = {"label", "review", "selftrain", "train"}


def cut_short(command: str, job: Any, *, begun: bool) -> str:
    """What the same call does after one that was cut short.

    Args:
      command: its name.
      job: its options.
      begun: whether it had begun what a next call continues.
    """
    overwrite = getattr(job, "overwrite", False)
    if command == "export" and not overwrite:
        return "the same command with --overwrite begins again"
    if command not in _CONTINUED or (not begun and (overwrite or command == "selftrain")):
        return "the same command begins again"
    return f"the same command {'without --overwrite ' if overwrite else ''}continues"


@contextlib.contextmanager
def concluded(output: str, then: Sequence[str] = ()) -> Iterator[None]:
    """Prints what the job inside has written to a folder, also where it rejected too many images.

    Args:
      output: the folder.
      then: a command that may follow where the job did not fail.
    """
    from camboxes.transforms import storage
    from camboxes.transforms.write import TooManyRejectedError

    try:
        yield
    except TooManyRejectedError:
        _conclude(Run(output))
        raise
    if storage.exists(storage.join(output, "summary.json")):  # not of a job that a launcher is to start later
        _conclude(Run(output))
        if then:
            print(f"draw again: {shlex.join(then)}")


def _conclude(run: Run) -> None:
    from camboxes.pipeline.reports import remarks
    from camboxes.transforms import storage

    summary, counts = run.summary, run.counts
    reasons = {
        status: "".join(f" ({code} {number})" for code, number in summary[status].items())
        for status in ("skipped", "rejected")
    }
    print(
        f"{counted(counts.planned, 'image')}: {counts.ok} with boxes, {counts.no_box} without, "
        f"{counts.skipped} skipped{reasons['skipped']}, {counts.rejected} rejected{reasons['rejected']}; "
        f"{counted(counts.boxes, 'box')} in {summary['run']['seconds']:.1f} s"
    )
    for remark in remarks.of_rejected(summary["rejected"], summary["input"].get("root", "")):
        print(remark)
    if found := summary["copies"]["example"]:
        example = [(image["path"], image["labels"]) for image in found]
        remark = remarks.of_other_labels(summary["copies"]["with_other_labels"], example)
        print(f"{remark}. Now each has boxes of its own labels, and labels of different copies do not compete")
    for warning in summary["warnings"]:
        print(f"WARNING: {on_one_line(warning, 1000)}", file=sys.stderr)
    print(f"wrote {', '.join([run.annotations, run.results, storage.join(run.path, 'summary.json')])}")
    print(f"look at {run.report}")
