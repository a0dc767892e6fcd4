"""Draws the boxes of a run again into another folder: the common part of `camboxes rebox` and `camboxes selftrain`."""

import contextlib
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from camboxes.pipeline.errors import blaming_the_call
from camboxes.pipeline.jobs import execution, run_folder
from camboxes.pipeline.reporter import Reporter
from camboxes.transforms import WriteCoco
from camboxes.transforms.review.decisions import Decision, check_carried
from camboxes.transforms.review.keep_decided import KeepDecided


@contextlib.contextmanager
def locked_output(run: str, output: str, reporter: Reporter) -> Iterator[None]:
    """Locks the folder for the new run, and checks that the decisions about the old run can be carried over to it.

    Raises:
      CallError: another job is writing to the folder, or something in it would be lost.
    """
    with contextlib.ExitStack() as held:
        with blaming_the_call():
            held.enter_context(run_folder.locked(output, reporter))
            run_folder.check_contents(output)
            check_carried(run, output)
        yield


def redraw(
    steps: Sequence[beam.PTransform],
    decisions: Mapping[str, Decision],
    output: str,
    options: PipelineOptions,
    reporter: Reporter,
) -> None:
    """Runs the steps that read shards and draw boxes, keeps the accepted boxes, and writes the new run."""
    # No limit to what is rejected: the run that the images come from had its own.
    steps = [*steps, KeepDecided(decisions), WriteCoco(output, max_reject_rate=1)]
    execution.execute(lambda p: functools.reduce(operator.or_, steps, p), options, output, reporter)
