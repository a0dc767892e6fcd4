"""Draws a run's boxes again from its stored maps: another threshold in seconds, without a GPU or a model.

What was decided in a review (OUT/review.jsonl) is carried over: accepted images keep exactly their boxes.
"""

import argparse
from collections.abc import Sequence

from camboxes.pipeline.options import fields
from camboxes.pipeline.rebox_job import ReboxJob, rebox
from camboxes.pipeline.reporter import TERMINAL

TAKES_BEAM_OPTIONS = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    fields.add_arguments(parser, ReboxJob)


def run(arguments: argparse.Namespace, beam_options: Sequence[str]) -> None:
    """Runs the command."""
    from camboxes.pipeline.commands.conclusion import concluded

    job = fields.job_from(arguments, ReboxJob)
    with concluded(job.output):
        rebox(job, beam_options, TERMINAL)
