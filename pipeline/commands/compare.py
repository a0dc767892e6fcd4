"""Compares two runs, given true boxes: which one is better, and could the difference be chance?

Both runs are judged on what they share: images that are in both runs and in the ground truth, and pairs of an image and
a label that have a true box. Resamples contain the same images for both runs (a paired bootstrap). A difference is
run 2 minus run 1. Its p-value is twice the smaller share of resamples on either side of 0, not corrected for the number
of figures and classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from camboxes.models.counts import counted
from camboxes.pipeline.compare_job import CompareJob, compare
from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.untrusted_text import on_one_line

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.comparison import Comparison, Difference, Shared

JOB = CompareJob

_CLASSES_SHOWN = 10
_SETTINGS = 500  # characters of the settings that differ: there may be a threshold for each of a thousand labels


def run(job: CompareJob) -> None:
    """Runs the command."""
    found = compare(job, TERMINAL)
    _print_runs([job.first, job.second], found.shared)
    _print_figures(found)
    _print_classes(found)
    if job.output:
        print(f"\nwrote {job.output}")


def _print_runs(folders: Sequence[str], both: "Shared") -> None:
    from camboxes.transforms.settings import settings_that_differ

    differ = settings_that_differ(both.first.settings, both.second.settings)
    told = "; ".join(f"{name} {_short(name, one)} and {_short(name, two)}" for name, (one, two) in differ.items())
    print(f"they differ in {on_one_line(told, _SETTINGS)}" if told else "they differ in no setting")
    for number, folder in enumerate(folders, start=1):
        print(f"run {number}: {folder}")
    print(
        f"judged: {counted(len(both.images), 'image')}, {counted(len(both.first.categories), 'category')}, "
        f"{counted(len(both.first.image), 'pair')} of an image and a label that both runs have"
    )
    for number, alone in enumerate(both.left_out, start=1):
        for what, count in alone.items():
            if count:
                print(f"left out: {what} of run {number} alone: {count:,}")


def _short(name: str, value: Any) -> str:
    """A setting for one line."""
    if name == "calibration":
        return "none" if value is None else "fitted"
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _print_figures(comparison: "Comparison") -> None:
    from camboxes.pipeline.evaluation import figures, resampling

    print(
        f"\nIn percent; a difference is run 2 minus run 1, with its {resampling.LEVEL}% interval from "
        f"{figures.RESAMPLES} resamples of the images (COCO: {figures.RESAMPLES_OF_DETECTION}). * marks intervals "
        "without 0; errors should be low.\n"
    )
    print(_line("", "run 1", "run 2", "difference", "p"))
    for name, of in comparison.figures.items():
        print(_line(figures.NAMES[name], *_cells(of)))
    print(
        f"\nright at IoU 0.5: {counted(comparison.both_right, 'pair')} in both runs, {comparison.first_right} in "
        f"run 1 only, {comparison.second_right} in run 2 only, {comparison.neither_right} in neither"
    )


def _print_classes(comparison: "Comparison") -> None:
    from camboxes.pipeline.evaluation.comparison import FEWEST_PAIRS

    if not comparison.classes:
        print(f"\nNo category has {FEWEST_PAIRS} pairs.")
        return
    print(
        f"\nThe largest differences of {counted(len(comparison.classes), 'category')} with at least {FEWEST_PAIRS} "
        "pairs, GT-known Loc at IoU 0.5; selected by size, so some are due to chance:\n"
    )
    print(_line("", "run 1", "run 2", "difference", "p") + "  pairs")
    for name, (pairs, of) in list(comparison.classes.items())[:_CLASSES_SHOWN]:
        print(_line(on_one_line(name, 23), *_cells(of)) + f"  {pairs:>5}")


def _line(name: str, first: str, second: str, difference: str, p: str) -> str:
    return f"{name:<23}  {first:>5}  {second:>5}  {difference:<25}  {p:>6}"


def _cells(of: "Difference") -> tuple[str, str, str, str]:
    first, second = ("-" if value is None else f"{value:.1f}" for value in (of.first, of.second))
    value, low, high = of.difference
    if value is None:
        return first, second, "-", "-"
    if low is None or high is None:
        return first, second, f"{value:+.1f}", "-"
    mark = " *" if of.told_apart else ""
    return first, second, f"{value:+.1f} ({low:+.1f} to {high:+.1f}){mark}", f"{of.p:.3f}"
