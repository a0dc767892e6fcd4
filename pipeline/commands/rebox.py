"""Draws a run's boxes again from its stored maps, in seconds and without a network.

Decisions of a review (OUT/review.jsonl) are carried over: accepted images keep exactly their boxes.
"""

from collections.abc import Sequence

from camboxes.pipeline.rebox_job import ReboxJob, rebox
from camboxes.pipeline.reporter import TERMINAL

JOB, TAKES_BEAM_OPTIONS = ReboxJob, True


def run(job: ReboxJob, beam_options: Sequence[str]) -> None:
    """Runs the command."""
    from camboxes.pipeline.commands.conclusion import concluded

    with concluded(job.output):
        rebox(job, beam_options, TERMINAL)
