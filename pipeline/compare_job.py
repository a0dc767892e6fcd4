"""Compares two finished runs, given true boxes: `compare(CompareJob(first, second, ground_truth))`."""

import dataclasses
from pathlib import Path

from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.evaluation.comparison import Comparison, Difference, Shared, compare_shared, shared_part
from camboxes.pipeline.evaluation.json_files import comparison_json
from camboxes.pipeline.evaluation.judging import check_libraries, judge
from camboxes.pipeline.formats.readers import read_ground_truth
from camboxes.pipeline.jobs import run_folder
from camboxes.transforms import storage


@dataclasses.dataclass(frozen=True)
class CompareJob:
    """A comparison of two runs.

    Attributes:
      first: a finished run's folder.
      second: another's.
      ground_truth: true boxes: COCO .json, a .csv of boxes, or a folder of Pascal VOC .xml files.
      output: the JSON file for all figures and classes; None to write nothing.
    """

    first: str
    second: str
    ground_truth: str
    output: str | None = None


@dataclasses.dataclass(frozen=True)
class ComparedRuns:
    """What a comparison found.

    Attributes:
      shared: both runs, restricted to what they share.
      comparison: the differences with their intervals.
    """

    shared: Shared
    comparison: Comparison

    @property
    def figures(self) -> dict[str, Difference]:
        """Differences by name: `figures["ap"].difference.value`, `.low` and `.high`."""
        return self.comparison.figures


def compare(job: CompareJob) -> ComparedRuns:
    """Compares two runs on what they share, and writes the JSON file if one is asked for.

    Raises:
      CallError: the job cannot be done as it was asked for.
      Exception: the job failed.
    """
    with blaming_the_call():
        check_libraries()
        if job.output:
            run_folder.check_output(job.output, job.ground_truth)
        if _same_folder(job.first, job.second):
            raise CallError(f"OUT1 {job.first!r} and OUT2 {job.second!r} are one run; expected two")
        if job.output and storage.is_local(job.output) and Path(job.output).is_dir():
            raise CallError(f"--output {job.output!r} is a folder; expected a file, as {job.output}/c.json")
        runs = [run_folder.finished(folder) for folder in (job.first, job.second)]
        truth = read_ground_truth(job.ground_truth)
    both = shared_part(*(judge(run, truth) for run in runs))
    comparison = compare_shared(both)
    if job.output:
        storage.write_json(job.output, comparison_json([job.first, job.second], job.ground_truth, both, comparison))
    return ComparedRuns(both, comparison)


def _same_folder(first: str, second: str) -> bool:
    if storage.is_local(first) and storage.is_local(second):
        return Path(first).resolve() == Path(second).resolve()
    return first.rstrip("/") == second.rstrip("/")
