"""Which images, labels and true boxes a job reads."""

import dataclasses
import functools

from camboxes.pipeline.options.fields import Options, option

truth_option = functools.partial(
    option, help="COCO .json, a .csv of boxes, YOLO's data.yaml, or a folder of VOC .xml", metavar="FILE"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """A data set: see `camboxes.transforms.planning.listing.read_source`."""

    input: str = option(help="class folders, a manifest or containers (see above)", metavar="DATA")
    root: str | None = option(
        None,
        "what paths are relative to, and nothing is read outside of",
        stated="DATA, or the manifest's folder",
        metavar="DIR",
    )
