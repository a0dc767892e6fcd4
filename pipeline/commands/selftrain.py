"""Trains a small network on a run's own boxes, and draws the boxes again from the maps that it predicts.

No true box is needed: the network learns what objects look like, whatever their class. After each round the new maps
are compared with the old ones, and the better ones are kept. If no round is better, the new run has the old maps. The
photographs are read again. If a call was interrupted, the same command continues it. Decisions of a review
(OUT/review.jsonl) are carried over.
"""

from collections.abc import Sequence

from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.selftrain_job import SelftrainJob, selftrain

JOB, TAKES_BEAM_OPTIONS = SelftrainJob, True


def run(job: SelftrainJob, beam_options: Sequence[str]) -> None:
    """Runs the command."""
    from camboxes.pipeline.commands.conclusion import concluded

    with concluded(job.output):
        selftrain(job, beam_options, TERMINAL)
