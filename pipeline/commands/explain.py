"""Draws the heat maps of several methods for one photograph, side by side in one figure.

Each row is a class: the photograph, then the map of each method. The first column shows what camboxes label draws by
default. The maps are those that camboxes label would store with the same options, apart from rounding, and the outlines
are the boxes that it would draw from them. The milliseconds are for all rows, on one core.
"""

from camboxes.pipeline.explain_job import ExplainJob, explain
from camboxes.pipeline.reporter import TERMINAL
from camboxes.pipeline.untrusted_text import on_one_line

JOB = ExplainJob


def run(job: ExplainJob) -> None:
    """Runs the command."""
    explanation = explain(job, TERMINAL)
    for note in explanation.notes:
        print(note)
    for row in explanation.rows:
        print(f"{on_one_line(row.name)}  {row.probability:.2f}")
    print(f"wrote {explanation.output}")
