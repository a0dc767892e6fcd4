"""The steps of a labelling job as Beam transforms, and the plain functions that do their work.

    p | ReadLabeledImages(source, plan) | InferClassMaps(model) | BoxesFromMaps(threshold) | WriteCoco(output)

Importing this package imports no torch; the worker that runs `InferClassMaps` does.
"""

from camboxes.transforms.boxes.from_map import BoxRule as BoxRule
from camboxes.transforms.boxes.from_map import boxes_from_map as boxes_from_map
from camboxes.transforms.boxes_from_maps import BoxesFromMaps as BoxesFromMaps
from camboxes.transforms.infer import InferClassMaps as InferClassMaps
from camboxes.transforms.plain_maps import PlainMaps as PlainMaps
from camboxes.transforms.plan_on_workers import PlanOnWorkers as PlanOnWorkers
from camboxes.transforms.planning.plan import Plan as Plan
from camboxes.transforms.planning.plan import PlannedRun as PlannedRun
from camboxes.transforms.read import BatchImages as BatchImages
from camboxes.transforms.read import ReadLabeledImages as ReadLabeledImages
from camboxes.transforms.read import ReadShards as ReadShards
from camboxes.transforms.records import LabeledImage as LabeledImage
from camboxes.transforms.records import Shard as Shard
from camboxes.transforms.worker_command import quote_python
from camboxes.transforms.write import WriteCoco as WriteCoco

quote_python()
