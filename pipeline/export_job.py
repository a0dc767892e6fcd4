"""Writes a finished run as a data set to train a detector on: the job of `camboxes export`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from camboxes.pipeline.errors import CallError, blaming_the_call
from camboxes.pipeline.options.data import background_option
from camboxes.pipeline.options.fields import Options, option
from camboxes.pipeline.reporter import LOG, Reporter

if TYPE_CHECKING:
    from camboxes.pipeline.detection_data.selected_images import Exported
    from camboxes.transforms import PlannedRun

# What an export may leave in its folder. export.json marks the folder as an export, and is deleted last.
_CONTENTS = ("images", "labels", "annotations", "VOCdevkit", "data.yaml", "classes.txt", "boxes.parquet", "export.json")
_VAL = 0.2  # share of the images for validation


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportJob(Options):
    """What to export, and how. Its fields are the options of `camboxes export`, whose help describes them."""

    run: str = option(help="a finished run's folder", metavar="OUT")
    output: str = option(help="local folder for the data set", metavar="DIR")
    format: str = option("coco", "form of the data set", choices=["coco", "yolo", "voc", "parquet"])
    val: float | None = option(
        None,
        "share of the images for validation",
        stated=f"{_VAL}; none if the input has splits",
        type=float,
        metavar="SHARE",
    )
    seed: int = option(0, "decides, with an image's content, whether it goes to train or val", type=int, metavar="N")
    min_score: float = option(
        0.0,
        "smallest score of a box that was not accepted, 0 to 1; the calibrated score if there is one",
        type=float,
        metavar="S",
    )
    include: Literal["accepted", "reviewed", "all"] = option(
        "all",
        "images that a person accepted; also those that a person rejected, without a box; or also those that nobody "
        "reviewed",
        choices=["accepted", "reviewed", "all"],
    )
    include_empty: bool = option(False, "also export images of the background, as images without objects")
    background: tuple[str, ...] = background_option(stated="those of the run")
    classes: str | None = option(
        None,
        "the classes in the order of their numbers, one a line, or the data.yaml of an earlier export, to keep its "
        "numbers",
        stated="the run's labels, sorted",
        metavar="FILE",
    )
    copy: bool = option(False, "copy images instead of linking them")
    overwrite: bool = option(False, "replace the export that DIR holds")


def export(job: ExportJob, reporter: Reporter = LOG) -> "Exported":
    """Writes a run as a data set, and export.json, which says what is in it.

    Images whose files are gone or changed since the run are not exported: the result's `unreadable` names them.

    Raises:
      CallError: the call is wrong; the message says what to change.
    """
    with reporter.step("loading libraries"):
        from camboxes.pipeline.detection_data.datasets import class_list, write_dataset
        from camboxes.pipeline.detection_data.selected_images import SelectedImages
        from camboxes.pipeline.detection_data.selection import Selection
        from camboxes.pipeline.jobs import run_folder
        from camboxes.transforms import storage
        from camboxes.transforms.review.keep_decided import decided
        from camboxes.transforms.sources.background import check_background

    with blaming_the_call():
        run = run_folder.finished(job.run)
        val = _VAL if job.val is None else job.val
        names = {category.name: category.id for category in run.categories}
        check_background(job.background, [*names, *run.background])
        background = frozenset(names[label] for label in job.background if label in names)
        decisions, empty = decided(run), job.include_empty
        selection = Selection(val, job.seed, job.min_score, job.include, decisions, run.splits, background, empty)
        if job.val is not None and "val" in selection.given:
            raise ValueError(
                f"--val is {job.val:g}, and the run's input comes split, in folders {', '.join(sorted(run.splits))}; "
                "leave --val out"
            )
        _check_output(job, run)
        classes = _classes(job, [name for name in names if name not in job.background])
        if job.format in ("yolo", "voc"):
            class_list(classes)  # refuses names that it cannot hold
    if job.overwrite:
        run_folder.remove(job.output, _CONTENTS)
    path = str(Path(job.output) / "export.json")
    asked = ("format", "run", "val", "seed", "min_score", "include", "include_empty", "background")
    record: dict[str, Any] = {name: getattr(job, name) for name in asked}
    record |= {"val": None if "val" in selection.given else val, "classes": classes}
    with blaming_the_call():  # the first write checks the output
        storage.write_json(path, record)
    images = SelectedImages(run, selection, classes, job.copy, reporter)
    exported = write_dataset(job.format, images, Path(job.output))
    record |= {
        "images": {
            "planned": exported.planned,
            **exported.images,
            "left_out": dict(sorted(exported.left_out.items())),
            "unreadable": len(exported.unreadable),
        },
        "without_objects": {"background": exported.background, "reviewed": exported.empty},
        "boxes": exported.boxes,
        "copies": exported.copies.images,
        "unreadable": exported.unreadable,
    }
    storage.write_json(path, record)
    exported.files.append(path)
    return exported


def _classes(job: ExportJob, labels: list[str]) -> list[str]:
    """The classes of the export in the order of their numbers."""
    if job.classes is None:
        return labels
    from camboxes.pipeline.formats import class_lists

    classes = class_lists.read(job.classes)
    class_lists.check_complete(classes, labels, job.classes)
    return classes


def _check_output(job: ExportJob, run: "PlannedRun") -> None:
    """Refuses a folder that is no place for an export, or whose contents an export would destroy."""
    from camboxes.transforms import storage

    given = f"--output {job.output!r}"
    if not storage.is_local(job.output):
        raise CallError(f"{given} is no local folder; export to one, and copy it from there")
    output = Path(job.output).resolve()
    if storage.is_local(job.run) and output.is_relative_to(Path(job.run).resolve()):
        raise CallError(f"{given} lies in the run's own folder; choose another folder")
    if any(storage.is_local(path) and Path(path).resolve().is_relative_to(output) for path in (run.root, job.run)):
        raise CallError(f"{given} holds the run itself or its images; choose another folder")
    if job.format != "parquet" and storage.is_local(run.root) and not Path(run.root).is_dir():
        raise CallError(
            f"the run's images are not at {run.root!r} any more; put them back, or, where that is a relative path, "
            "call export from the folder that the run was made from"
        )
    if output.exists() and not output.is_dir():
        raise CallError(f"{given} is a file; expected a folder")
    if output.is_dir() and any(output.iterdir()):
        if not job.overwrite:
            raise CallError(f"{given} is not empty; choose another folder, or replace an export with --overwrite")
        others = [name for name in _CONTENTS if (output / name).exists()]
        if others and "export.json" not in others:
            raise CallError(
                f"{given} holds {', '.join(others)}, which are not from an export (export.json is missing); "
                "choose another folder"
            )
