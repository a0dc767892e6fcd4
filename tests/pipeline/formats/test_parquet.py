from camboxes.pipeline.formats import parquet

IMAGE = {"image_id": 1, "path": "a.jpg", "digest": "0f", "width": 40, "height": 30, "split": "train"}
NO_BOX = {name: None for name in parquet.SCHEMA.names if name not in IMAGE}


def _box(category, rank, bbox):
    provenance = {"source": "machine", "model": "timm:net", "method": "cam", "threshold": 0.25}
    scores = {"score": 0.5, "calibrated_score": None, "rank": rank, "box_uid": "u"}
    return {"category_id": category, "category": "dog", "bbox": bbox, "component_area": 0.5} | scores | provenance


def test_an_image_without_boxes_has_a_row_and_others_a_row_for_each_box():
    boxes = [_box(2, 1, [1, 2, 3, 4]), _box(1, 2, [5, 6, 7.25, 8]), _box(1, 1, [0, 0, 40, 30])]
    rows = parquet.table([IMAGE | {"boxes": boxes}, IMAGE | {"image_id": 2, "boxes": []}]).to_pylist()
    places = [[row[name] for name in ("x", "y", "box_width", "box_height")] for row in rows[:3]]
    assert places == [[0, 0, 40, 30], [5, 6, 7.25, 8], [1, 2, 3, 4]], "by category and rank"
    for row, box in zip(rows, [boxes[2], boxes[1], boxes[0]], strict=False):
        assert row.items() >= (IMAGE | {k: v for k, v in box.items() if k not in ("bbox", "component_area")}).items()
    assert rows[3:] == [IMAGE | {"image_id": 2} | NO_BOX]
