"""Which images, labels and true boxes a job reads."""

import csv
import dataclasses
import functools
from typing import TYPE_CHECKING

from camboxes.pipeline.options.fields import Options, option

if TYPE_CHECKING:
    from camboxes.transforms.sources.columns import Columns

truth_option = functools.partial(
    option, help="COCO .json, a .csv of boxes, YOLO's data.yaml, or a folder of VOC .xml", metavar="FILE"
)


def _labels(text: str) -> tuple[str, ...]:
    return tuple(filter(None, map(str.strip, next(csv.reader([text], skipinitialspace=True), ()))))


background_option = functools.partial(
    option,
    (),
    "labels of images that show none of the classes; a label with a comma in quotes: '\"a, b\",c'",
    stated="none",
    type=_labels,
    metavar="LABEL,…",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceOptions(Options):
    """A data set: see `camboxes.transforms.planning.listing.read_source`."""

    input: str = option(help="class folders, a table or containers (see above)", metavar="DATA")
    root: str | None = option(
        None,
        "folder that paths are relative to; nothing outside of it is read",
        stated="DATA, or the table's folder",
        metavar="DIR",
    )
    path_column: str | None = option(
        None, "column of a table with the images' paths", stated="path, filename, image or the like", metavar="NAME"
    )
    label_column: str | None = option(
        None,
        "column with the labels; or columns of 0 and 1, one for each class: cat,dog",
        stated="label, class, category or the like; without one, all columns if they hold 0 and 1",
        metavar="NAME",
    )
    label_separator: str | None = option(
        None, 'separator of several labels in a cell, such as "|"', stated="a cell is one label", metavar="TEXT"
    )

    def columns(self) -> "Columns":
        """What is said of a manifest's columns; raises a ValueError if it cannot be."""
        from camboxes.transforms.sources.columns import Columns

        return Columns(self.path_column, self.label_column, self.label_separator)
