"""Writes a finished run as a data set to train a detector on.

  coco     images/, annotations/instances_train.json and instances_val.json; image ids as in the run's annotations.json
  yolo     images/train, images/val, labels/train, labels/val, data.yaml and classes.txt, as ultralytics expects them
  voc      VOCdevkit/VOC2012 with Annotations, ImageSets/Main, JPEGImages and classes.txt; whole pixels counted from 1
  parquet  boxes.parquet, a row for each box, without images

Decisions of a review count. --include accepted exports only the accepted images; reviewed adds the rejected ones,
without a box; all adds the others, as drawn. An image without a known box that nobody reviewed (no_box, skipped, or all
boxes below --min-score) is left out: a trainer would learn that nothing is there. Images of the background are exported
with --include-empty, without an object. Images that the run could not read are never exported.
Each box says where it comes from (a person, or which network, method and threshold), except in yolo, which has no place
for it. Images are hard links if possible, otherwise copies. Images with an EXIF orientation are written upright, and
formats that some trainers cannot read are converted. The seed and an image's content decide whether it goes to train or
val, so copies are on one side; if the run's input has folders train, val and test, that split is kept. Images that are
missing or have changed are listed at the end (exit code 1).
"""

from typing import TYPE_CHECKING

from camboxes.models.counts import counted
from camboxes.pipeline.export_job import ExportJob, export
from camboxes.pipeline.reporter import TERMINAL

if TYPE_CHECKING:
    from camboxes.pipeline.detection_data.selected_images import Exported

JOB = ExportJob

_WITHOUT_BOX = {"no_box", "skipped", "below --min-score"}  # reasons why an image is left out


def run(job: ExportJob) -> None:
    """Runs the command; where files of images are gone or changed, it fails at the end."""
    exported = export(job, TERMINAL)
    _print_counts(exported)
    _print_sides(job, exported)
    _print_copies(exported)
    if exported.left_out.keys() & _WITHOUT_BOX:
        print("left out: images without a known box, from which a trainer would learn that nothing is there")
    if job.include_empty:
        print(f"{counted(exported.background, 'image')} of the background exported, without an object")
    if exported.left_out["background"]:
        print("left out: images of the background; --include-empty exports them, as images without objects")
    if exported.empty:
        print(f"{exported.empty} of the exported images have no box: a person found no object, or rejected the boxes")
    if exported.partial:
        print(
            f"{exported.partial} of the exported images have a label without a box: a trainer learns that it is absent"
        )
    print(f"wrote {', '.join(exported.files)}")
    if exported.unreadable:
        path, reason = next(iter(exported.unreadable.items()))
        raise RuntimeError(
            f"not in the export: {len(exported.unreadable):,} of {counted(exported.planned, 'image')}, because their "
            f"files are missing or have changed since the run, such as {path!r} ({reason}); {exported.files[-1]} lists "
            "all of them. Restore them, or run camboxes label again, and export with --overwrite"
        )


def _print_counts(exported: "Exported") -> None:
    left_out = exported.left_out
    why = f" ({', '.join(f'{number} {reason}' for reason, number in sorted(left_out.items()))})" if left_out else ""
    splits = ", ".join(f"{number} {split}" for split, number in exported.images.items())
    print(
        f"{counted(exported.planned, 'image')}: {sum(exported.images.values())} exported ({splits}) with "
        f"{counted(sum(exported.boxes.values()), 'box')}, {left_out.total()} left out{why}, "
        f"{len(exported.unreadable)} unreadable"
    )
    if exported.kept:
        print(f"the split of the input's folders is kept: {', '.join(exported.kept)}")


def _print_sides(job: ExportJob, exported: "Exported") -> None:
    bare = [side for side in ("train", "val") if not exported.images[side]]
    if bare and job.val != 0 and any(exported.images.values()):
        print(
            f"WARNING: no image is in {bare[0]}: a detector needs both train and val; choose another --val or --seed, "
            "or export more images"
        )
    if job.format == "yolo" and "val" in bare:
        print(
            "data.yaml uses train's images for val, too, because ultralytics needs some: figures on them are too "
            "optimistic"
        )


def _print_copies(exported: "Exported") -> None:
    from camboxes.pipeline.reports import remarks

    copies = exported.copies
    if copies.example:
        print(remarks.of_copies(copies.images, copies.example))
    if copies.differing_example:
        path, other = (f"{remarks.on_one_line(path)} ({split})" for path, split in copies.differing_example)
        print(
            f"WARNING: copies of images on another side: {copies.differing}, such as {path} of {other}; the split is "
            "that of the input's folders, and figures on these images are too optimistic"
        )
