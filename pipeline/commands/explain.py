"""Draws the heat maps of several methods over one photograph, side by side in one figure.

A row for each class: the photograph, then what each method sees of the class in it. The maps are those that camboxes
label would store with the same options (but for the last bits, which depend on its batches), and the outlined boxes
those that it would draw from them: the first column shows what label does by default. Milliseconds are all passes of
that method alone, for all rows, on one core.
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
