"""Trains a small network on a run's own confident boxes and draws the run's boxes again from the maps that it gives.

No box is asked of anybody: the network learns what objects look like to the run's classifier, of whatever class. After
each round the maps are compared with those before, and the better ones are kept; where no round is better, the new run
has the maps of the old one. The photographs are read again. Started again with the same options, a call that was cut
short continues. What was decided in a review (OUT/review.jsonl) is carried over.
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
