"""The steps of a labelling job as Beam transforms, and the plain functions that do their work.

    p | ReadLabeledImages(source, plan) | InferClassMaps(model) | BoxesFromMaps(threshold) | WriteCoco(output)

Importing this package imports no torch; the worker that runs `InferClassMaps` does.
"""

from camboxes.transforms.boxes.calibration import Calibration
from camboxes.transforms.boxes.from_map import BoxRule, boxes_from_map
from camboxes.transforms.boxes.stored_maps import StoredMap, quantize
from camboxes.transforms.boxes_from_maps import BoxesFromMaps
from camboxes.transforms.containers.members import ContainerError
from camboxes.transforms.images.bad_images import BadImageError
from camboxes.transforms.images.decoding import Limits
from camboxes.transforms.infer import InferClassMaps
from camboxes.transforms.inference.salvage import BrokenNetworkError
from camboxes.transforms.plain_maps import PlainMaps
from camboxes.transforms.plan_on_workers import PlanOnWorkers
from camboxes.transforms.planning.label_matching import LabelMatcher, UnmatchedLabelsError
from camboxes.transforms.planning.plan import Plan, PlanConflictError, PlannedRun
from camboxes.transforms.read import BatchImages, ReadLabeledImages, ReadShards
from camboxes.transforms.records import LabeledImage, Shard
from camboxes.transforms.review.decisions import read_decisions
from camboxes.transforms.review.keep_decided import KeepDecided
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.entries import SourceError
from camboxes.transforms.worker_command import quote_python
from camboxes.transforms.write import IncompleteRunError, TooManyRejectedError, WriteCoco
from camboxes.transforms.wsol.combiners import BoxedMap, MaskedMap, MaxBoxAcc, PxAP

__all__ = [
    "BadImageError",
    "BatchImages",
    "BoxRule",
    "BoxedMap",
    "BoxesFromMaps",
    "BrokenNetworkError",
    "Calibration",
    "Columns",
    "ContainerError",
    "IncompleteRunError",
    "InferClassMaps",
    "KeepDecided",
    "LabelMatcher",
    "LabeledImage",
    "Limits",
    "MaskedMap",
    "MaxBoxAcc",
    "PlainMaps",
    "Plan",
    "PlanConflictError",
    "PlanOnWorkers",
    "PlannedRun",
    "PxAP",
    "ReadLabeledImages",
    "ReadShards",
    "Shard",
    "SourceError",
    "StoredMap",
    "TooManyRejectedError",
    "UnmatchedLabelsError",
    "WriteCoco",
    "boxes_from_map",
    "quantize",
    "quote_python",
    "read_decisions",
]


def __dir__() -> list[str]:
    return __all__
