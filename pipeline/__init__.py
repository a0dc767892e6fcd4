"""What a person runs: the command `camboxes`, and its jobs as functions.

Each job is a dataclass of its options, and a function that carries it out:

    from camboxes.pipeline import LabelJob, label

    run = label(LabelJob(input="photos/", output="boxes/"))
    for image in run.images():
        print(image.path, image.boxes)

What is named here is imported when it is first asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camboxes.pipeline.compare_job import CompareJob as CompareJob
    from camboxes.pipeline.compare_job import compare as compare
    from camboxes.pipeline.evaluate_job import EvaluateJob as EvaluateJob
    from camboxes.pipeline.evaluate_job import evaluate as evaluate
    from camboxes.pipeline.explain_job import ExplainJob as ExplainJob
    from camboxes.pipeline.explain_job import explain as explain
    from camboxes.pipeline.export_job import ExportJob as ExportJob
    from camboxes.pipeline.export_job import export as export
    from camboxes.pipeline.label_job import LabelJob as LabelJob
    from camboxes.pipeline.label_job import label as label
    from camboxes.pipeline.rebox_job import ReboxJob as ReboxJob
    from camboxes.pipeline.rebox_job import rebox as rebox
    from camboxes.pipeline.report_job import ReportJob as ReportJob
    from camboxes.pipeline.report_job import report as report
    from camboxes.pipeline.run import Run as Run
    from camboxes.pipeline.selftrain_job import SelftrainJob as SelftrainJob
    from camboxes.pipeline.selftrain_job import selftrain as selftrain
    from camboxes.pipeline.train_job import TrainedClassifier as TrainedClassifier
    from camboxes.pipeline.train_job import TrainJob as TrainJob
    from camboxes.pipeline.train_job import train as train
    from camboxes.pipeline.tune_job import TuneJob as TuneJob
    from camboxes.pipeline.tune_job import tune as tune


_JOBS = ("compare", "evaluate", "explain", "export", "label", "rebox", "report", "selftrain", "train", "tune")
_HOMES = {  # a name: the module that it is imported from
    **{job: f"{job}_job" for job in _JOBS},
    **{f"{job.capitalize()}Job": f"{job}_job" for job in _JOBS},
    "Run": "run",
    "TrainedClassifier": "train_job",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
