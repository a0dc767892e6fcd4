"""Two finished runs compared, given true boxes: the job of `camboxes compare`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.options.data import truth_option
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.reporter import LOG, Reporter

if TYPE_CHECKING:
    from camboxes.pipeline.evaluation.comparison import Comparison


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareJob(Options):
    """What to compare, and by which boxes. Its fields are the options of `camboxes compare`, described there."""

    first: str = option(help="a finished run's folder", positional=True, metavar="OUT1")
    second: str = option(help="another's", positional=True, metavar="OUT2")
    ground_truth: str = truth_option()
    output: str | None = option(None, "file for all figures, those of each class too", metavar="FILE.json")


def compare(job: CompareJob, reporter: Reporter = LOG) -> "Comparison":
    """Compares two runs on what they share, and writes the JSON file if `output` names one.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.evaluation.comparison import compare_shared, shared_part
        from camboxes.pipeline.evaluation.json_files import comparison_json
        from camboxes.pipeline.evaluation.judging import check_libraries, judge
        from camboxes.pipeline.formats.readers import read_ground_truth
        from camboxes.pipeline.jobs import run_folder
        from camboxes.transforms import storage

    with blaming_the_call():
        check_libraries()
        if job.output:
            run_folder.check_output(job.output, job.ground_truth)
        folders = [job.first, job.second]
        one, two = (Path(each).resolve() if storage.is_local(each) else each.rstrip("/") for each in folders)
        if one == two:
            raise CallError(f"OUT1 {job.first!r} and OUT2 {job.second!r} are one run; expected two")
        if job.output and storage.is_local(job.output) and Path(job.output).is_dir():
            raise CallError(f"--output {job.output!r} is a folder; expected a file, as {job.output}/c.json")
        runs = list(map(run_folder.finished, folders))
        with reporter.step(f"reading {job.ground_truth}"):
            truth = read_ground_truth(job.ground_truth)
    judged = [judge(run, truth, reporter) for run in runs]
    with reporter.step("computing differences and their intervals"):
        comparison = compare_shared(shared_part(*judged))
    if job.output:
        storage.write_json(job.output, comparison_json(folders, job.ground_truth, comparison))
    return comparison
