"""A CSV with a row for each box: path,label and x,y,width,height or xmin,ymin,xmax,ymax.

With corners the width is xmax - xmin. A row without a box names an image that holds none.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from camboxes.pipeline.formats.ground_truth import GroundTruth, GroundTruthBuilder

_EXTENT = ("x", "y", "width", "height")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(data: bytes, source: str) -> GroundTruth:
    """Reads UTF-8 text; errors name `source`. Columns image_width and image_height may give the image's size in pixels.

    Raises:
      ValueError: it is no such CSV, or holds no box.
    """
    found = GroundTruthBuilder(source)
    source = f"ground truth {source!r}"
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source} is not UTF-8 ({error}); save it as UTF-8") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = reader.fieldnames or []
    given = [kind for kind in (_EXTENT, _CORNERS) if set(kind) <= set(columns)]
    # With corners, width and height are the image's, as in many a CSV made from VOC. Both kinds in full are ambiguous.
    if not {"path", "label"} <= set(columns) or len(given) != 1:
        raise ValueError(
            f"{source} begins with {','.join(columns)!r:.200}; expected a header with path,label and either "
            f"{','.join(_EXTENT)} or {','.join(_CORNERS)}"
        )
    for row in reader:
        _read_row(row, given[0], found, f"{source}, line {reader.line_num}")
    return found.build()


def _read_row(row: dict[Any, Any], columns: Sequence[str], found: GroundTruthBuilder, where: str) -> None:
    path, label = row["path"], row["label"]
    if None in row or not path:
        raise ValueError(f"{where}: expected a path, and as many cells as the header has, got {row!r:.200}")
    found.add_image(path, row.get("image_width"), row.get("image_height"), where)
    cells = [row[column] or "" for column in columns]
    if not any(cells):
        return
    if not label:
        raise ValueError(f"{where}: a box without a label; name what it holds, or leave its cells empty")
    try:
        box = [float(cell) for cell in cells]
    except ValueError:
        raise ValueError(
            f"{where}: {','.join(columns)} are {','.join(cells)!r:.80}; expected four numbers, or none of them"
        ) from None
    if columns == _CORNERS:
        box = [*box[:2], box[2] - box[0], box[3] - box[1]]
    found.add_box(path, label, box, False, where)
