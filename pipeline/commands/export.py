"""Writes a finished run as a data set to train a detector on.

  coco     images/, annotations/instances_train.json and instances_val.json; ids as in the run's annotations.json
  yolo     images/train, images/val, labels/train, labels/val, data.yaml and classes.txt, as ultralytics has them
  voc      VOCdevkit/VOC2012 with Annotations, ImageSets/Main, JPEGImages and classes.txt; whole pixels counted from 1
  parquet  boxes.parquet, a row for each box, without images

What was decided in a review counts: --include accepted exports the accepted images alone, reviewed the rejected ones
too, without a box, and all the others as drawn besides. Images of which nobody decided and no box is known (no_box,
skipped, all boxes below --min-score) are left out: a trainer would learn from them that nothing is there. Images that
the run could not read are never exported. Where a box comes from (a person, or which network, method and threshold)
stands beside it, but for yolo, which has no room for it. Images are hard links where that is possible, else
copies. Those with an EXIF orientation are written upright, so that boxes fit whether a trainer turns them or not, and
so are formats that not every trainer reads. The seed and an image's content decide whether it is in train or val, so
copies of the same bytes are on one side; where the run's input comes split, in folders train, val and test, that split
is kept. An image whose file is gone or changed is told at the end (exit code 1).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camboxes.pipeline.detection_data.datasets import Exported
    from camboxes.pipeline.detection_data.selection import Selection
    from camboxes.transforms import PlannedRun

# What an export may leave in its folder; export.json marks it as one, and goes last.
_CONTENTS = (
    "images",
    "labels",
    "annotations",
    "VOCdevkit",
    "data.yaml",
    "classes.txt",
    "boxes.parquet",
    "export.json",
)

_VAL = 0.2  # of the images: for validation
_WITHOUT_BOX = {"no_box", "skipped", "below --min-score"}  # reasons why an image is left out


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--run", required=True, metavar="OUT", help="a finished run's folder")
    parser.add_argument("--output", required=True, metavar="DIR", help="local folder for the data set")
    parser.add_argument(
        "--format", choices=["coco", "yolo", "voc", "parquet"], default="coco", help="default: %(default)s"
    )
    parser.add_argument(
        "--val",
        type=float,
        metavar="SHARE",
        help=f"share of the images for validation (default: {_VAL}; none where the input comes split)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="decides, with its content, on which side an image is (default: %(default)s)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.0,
        metavar="S",
        help="smallest score of a box that was not accepted, 0 to 1; the calibrated one where there is one "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--include",
        choices=["accepted", "reviewed", "all"],
        default="all",
        help="images that a person accepted; those that a person rejected, too, without a box; or those that nobody "
        "decided about, too (default: %(default)s)",
    )
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking them")
    parser.add_argument("--overwrite", action="store_true", help="replace the export that DIR holds")


def run(arguments: argparse.Namespace, beam_arguments: Sequence[str]) -> None:
    """Runs the command.

    Raises:
      CallError: the call cannot be carried out as it was made.
      Exception: the job failed, or files of images are gone or changed.
    """
    from camboxes.pipeline.detection_data.datasets import DatasetWriter
    from camboxes.pipeline.detection_data.selection import Selection
    from camboxes.pipeline.errors import blaming_the_call, refuse_unknown
    from camboxes.pipeline.formats import class_list
    from camboxes.pipeline.jobs import run_folder
    from camboxes.transforms import storage
    from camboxes.transforms.review.keep_decided import decided

    with blaming_the_call():
        refuse_unknown(beam_arguments, "see camboxes export --help")
        source = run_folder.finished(arguments.run)
        selection = Selection(
            _VAL if arguments.val is None else arguments.val,
            arguments.seed,
            arguments.min_score,
            arguments.include,
            decided(source),
            source.splits,
        )
        if arguments.val is not None and "val" in selection.given:
            raise ValueError(
                f"--val is {arguments.val:g}, and the run's input comes split, in folders "
                f"{', '.join(sorted(source.splits))}; leave --val out"
            )
        _check_output(arguments, source)
        if arguments.format in ("yolo", "voc"):
            class_list.write([category.name for category in source.categories])  # refuses names that it cannot hold
    if arguments.overwrite:
        run_folder.remove(arguments.output, _CONTENTS)
    mark = storage.join(arguments.output, "export.json")
    record = {
        "format": arguments.format,
        "run": arguments.run,
        "val": None if "val" in selection.given else selection.val,
        "seed": arguments.seed,
        "min_score": arguments.min_score,
        "include": arguments.include,
    }
    with blaming_the_call():  # the first write checks the output
        storage.write_json(mark, record)
    export = DatasetWriter(source, selection, Path(arguments.output), arguments.copy).write(arguments.format)
    record |= {
        "images": {
            "planned": source.images,
            **{split: export.images[split] for split in selection.splits},
            "left_out": dict(sorted(export.left_out.items())),
            "unreadable": len(export.unreadable),
        },
        "boxes": {split: export.boxes[split] for split in selection.splits},
        "copies": export.copies.found().images,
        "unreadable": export.unreadable,
    }
    storage.write_json(mark, record)
    _conclude(source, selection, export, arguments.output)


def _check_output(arguments: argparse.Namespace, source: "PlannedRun") -> None:
    from camboxes.pipeline.errors import CallError
    from camboxes.transforms import storage

    given = f"--output {arguments.output!r}"
    if not storage.is_local(arguments.output):
        raise CallError(f"{given} is no local folder; export to one, and copy it from there")
    output = Path(arguments.output).resolve()
    if storage.is_local(arguments.run) and output.is_relative_to(Path(arguments.run).resolve()):
        raise CallError(f"{given} lies in the run's own folder; choose another folder")
    if any(
        storage.is_local(path) and Path(path).resolve().is_relative_to(output) for path in (source.root, arguments.run)
    ):
        raise CallError(f"{given} holds the run itself or its images; choose another folder")
    if arguments.format != "parquet" and storage.is_local(source.root) and not Path(source.root).is_dir():
        raise CallError(
            f"the run's images are not at {source.root!r} any more; put them back, or, where that is a relative path, "
            "call export from the folder that the run was made from"
        )
    if output.exists() and not output.is_dir():
        raise CallError(f"{given} is a file; expected a folder")
    if output.is_dir() and any(output.iterdir()):
        if not arguments.overwrite:
            raise CallError(f"{given} is not empty; choose another folder, or replace an export with --overwrite")
        if not (output / "export.json").exists() and (
            others := [name for name in _CONTENTS if (output / name).exists()]
        ):
            raise CallError(
                f"{given} holds {', '.join(others)}, which no export has left there (export.json is missing); "
                "choose another folder"
            )


def _conclude(source: "PlannedRun", selection: "Selection", export: "Exported", output: str) -> None:
    from camboxes.pipeline.reports import remarks

    left_out = export.left_out
    why = f" ({', '.join(f'{number} {status}' for status, number in sorted(left_out.items()))})" if left_out else ""
    sides = ", ".join(f"{export.images[split]} {split}" for split in selection.splits)
    print(
        f"{source.images} images: {export.images.total()} exported ({sides}) with {export.boxes.total()} boxes, "
        f"{left_out.total()} left out{why}, {len(export.unreadable)} unreadable"
    )
    if selection.given:
        print(f"the split of the input's folders is kept: {', '.join(sorted(source.splits))}")
    copies = export.copies.found()
    if copies.example:
        print(remarks.of_copies(copies.images, copies.example))
    if copies.differing_example:
        path, other = (f"{remarks.on_one_line(path)} ({side})" for path, side in copies.differing_example)
        print(
            f"WARNING: copies of images on another side: {copies.differing}, such as {path} of {other}; the input's "
            "folders say so, and figures on them flatter"
        )
    if left_out.keys() & _WITHOUT_BOX:
        print("left out: images without a known box, from which a trainer would learn that nothing is there")
    if export.empty:
        print(f"{export.empty} of the exported images have no box: a person found nothing there, or nothing right")
    if export.partial:
        print(f"{export.partial} of the exported images have a label without a box: a trainer takes it for absent")
    print(f"wrote {', '.join(str(Path(output) / name) for name in [*export.files, 'export.json'])}")
    if export.unreadable:
        path, reason = next(iter(export.unreadable.items()))
        raise RuntimeError(
            f"{len(export.unreadable)} of {source.images} images are not in the export, for their files are "
            f"gone or changed since the run, as {path!r} ({reason}); all of them are listed in "
            f"{Path(output) / 'export.json'}. Put them back, or run camboxes label again, and export with --overwrite"
        )
