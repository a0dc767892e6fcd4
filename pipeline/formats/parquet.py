"""A Parquet table with a row for each box. An image without boxes has a row in which all columns of a box are null."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("path", pa.string()),
        ("digest", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("split", pa.string()),
        ("category_id", pa.int32()),
        ("category", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("box_width", pa.float64()),
        ("box_height", pa.float64()),
        ("score", pa.float64()),
        ("calibrated_score", pa.float64()),
        ("rank", pa.int32()),
        ("box_uid", pa.string()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("method", pa.string()),
        ("threshold", pa.float64()),
    ]
)
_OF_IMAGE = ("image_id", "path", "digest", "width", "height", "split")


def table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """The boxes of images, in the order of the images, the category ids and the ranks."""
    return pa.Table.from_pylist([box for row in rows for box in _boxes(row)], SCHEMA)


def _boxes(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    image = {name: row[name] for name in _OF_IMAGE}
    if not row["boxes"]:
        yield image
    for box in sorted(row["boxes"], key=lambda box: (box["category_id"], box["rank"])):
        yield image | dict(zip(("x", "y", "box_width", "box_height"), box["bbox"], strict=True)) | box
