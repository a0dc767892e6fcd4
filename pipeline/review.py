"""A run in FiftyOne: to look at it, to sort it, to correct it. Needs the extra: pip install "camboxes[review]".

    from camboxes.pipeline.review import load_dataset

    dataset = load_dataset("boxes")

FiftyOne starts its database when it is imported, and waits a minute for one that does not answer: `camboxes doctor`
says at once whether it works here.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.plan import shard_file
from camboxes.transforms.records import REJECTED

if TYPE_CHECKING:
    import fiftyone as fo


def load_dataset(run: str, name: str | None = None) -> "fo.Dataset":
    """Imports a finished run's annotations.json, and the heat maps of its shards, as a new FiftyOne dataset.

    A sample is an image of annotations.json, with or without boxes. Its fields:

        coco_id    the image's id
        boxes      detections with label, confidence (the score), rank, box_uid, and coco_id (the annotation's id)
        heat_map   the maps of its labels, fused by each cell's maximum: uint8 [height, width] as they are stored, 0 to
                   255 over each map's own range; none where the image has no map

    The run's categories, ids included, stand in `dataset.info["categories"]`, where FiftyOne's COCO exporter wants
    them: export with these, `coco_id="coco_id"` and `annotation_id="coco_id"`, and every id stays.

    Args:
      run: the run's folder.
      name: the dataset's; None to let FiftyOne choose. Like every dataset of FiftyOne's it is forgotten at the end of
        the session unless its `persistent` is set.

    Raises:
      ValueError: no finished run, photographs that FiftyOne cannot read, or a name that a dataset has already.
    """
    planned = _finished(run)
    photographs = _photographs(planned)

    import fiftyone as fo

    dataset = fo.Dataset(name)
    for field, label in (("boxes", fo.Detections), ("heat_map", fo.Heatmap)):  # also where no image has any
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=label)
    for part in _annotations(run):
        dataset.add_dir(
            dataset_type=fo.types.COCODetectionDataset,
            data_path=photographs,
            labels_path=storage.join(run, part),
            label_types=["detections"],
            label_field={"detections": "boxes"},
            include_id=True,
            include_annotation_id=True,
            dynamic=True,  # declares rank and box_uid, so that the App can filter by them
        )
    dataset.create_index("coco_id", unique=True)
    for rows in _shards(planned, ["image_id", "maps"]):
        heat_maps = {
            row["image_id"]: fo.Heatmap(map=_fused(row["maps"]), range=[0, 255]) for row in rows if row["maps"]
        }
        dataset.set_values("heat_map", heat_maps, key_field="coco_id")
    return dataset


def _annotations(run: str) -> list[str]:
    """annotations.json, or the parts that a large run has instead."""
    return [name for name in storage.names(run, ".json") if name.startswith("annotations")]


def _finished(run: str) -> PlannedRun:
    planned = PlannedRun.load(run)
    if planned is None or not _annotations(run):
        raise ValueError(f"run {run!r} holds no finished run; expected the --output of camboxes label")
    if not (storage.is_local(run) and storage.is_local(planned.root)):
        raise ValueError(
            f"run {run!r} with photographs in {planned.root!r} is on a store, and FiftyOne reads local files alone; "
            "copy both, and give the copy's folder to camboxes label --root"
        )
    return planned


def _photographs(planned: PlannedRun) -> dict[str, str]:
    """Where each image of annotations.json lies, by its file_name there. FiftyOne would give up at the first gap."""
    found = {
        row["path"]: planned.location(row["path"]) or ""
        for rows in _shards(planned, ["path", "status"])
        for row in rows
        if row["status"] != REJECTED
    }
    missing = [path for path, location in found.items() if not Path(location).is_file()]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(found)} photographs are no longer below {planned.root!r}, the first of them "
            f"{missing[0]!r}; put them back, or start where the run was started if that folder is a relative path"
        )
    return found


def _shards(planned: PlannedRun, columns: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for key in planned.shards:
        yield storage.read_table(shard_file(planned.output, key), columns).to_pylist()


def _fused(maps: Sequence[Mapping[str, Any]]) -> np.ndarray:
    cells = [np.frombuffer(stored["cells"], np.uint8).reshape(stored["height"], stored["width"]) for stored in maps]
    return np.maximum.reduce(cells)
