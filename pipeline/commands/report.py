"""Writes a page of one label's images, the worst first: without a box, then by ascending score.

OUT/report.html, which every run has, shows a sample of all labels.
"""

from camboxes.pipeline.report_job import ReportJob, report
from camboxes.pipeline.reporter import TERMINAL

JOB = ReportJob


def run(job: ReportJob) -> None:
    """Runs the command."""
    print(f"look at {report(job, TERMINAL)}")
