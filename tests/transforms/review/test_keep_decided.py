import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms import Plan, Shard
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision
from camboxes.transforms.review.keep_decided import KeepDecided, decided, keep

SECOND = DecidedBox("cat", 1, (1, 2, 3.5, 4), "machine", "00ff", 0.81, 0.7, 0.25, "cam", 2, 0.125)
SMALL, LARGE = DecidedBox("cat", 1, (5, 6, 2, 2), box_uid="00aa"), DecidedBox("cat", 1, (5, 6, 7, 8.25))
OTHER = DecidedBox("dog", 2, (0, 0, 1, 1))


def _row(path="a.jpg", status="ok"):
    return {
        "path": path,
        "status": status,
        "reason": "map_not_positive: ...",
        "boxes": [{"category_id": 1, "bbox": [9.0, 9.0, 9.0, 9.0], "rank": 1, "source": "machine"}],
        "review": {"priority": 1.5, "reasons": ["no_box: dog"]},
    }


def _decision(path, *boxes, verdict="accepted"):
    return Decision(path, 7, verdict, boxes=boxes)


def _person(category, bbox, rank, uid=None):
    return {
        "category_id": category,
        "bbox": bbox,
        "score": 1.0,
        "calibrated_score": None,
        "rank": rank,
        "box_uid": uid,
        "component_area": None,
        "threshold": None,
        "source": "person",
    }


def test_accepted_boxes_by_hand():
    kept = keep(_row(), _decision("a.jpg", SMALL, OTHER, LARGE, SECOND))
    machine = {
        "category_id": 1,
        "bbox": [1.0, 2.0, 3.5, 4.0],
        "score": 0.81,
        "calibrated_score": 0.7,
        "rank": 2,
        "box_uid": "00ff",
        "component_area": 0.125,
        "threshold": 0.25,
        "source": "machine",
    }
    # After the machine's box of rank 2 the person's of that category, the largest first; another category has its own.
    assert kept["boxes"] == [
        machine,
        _person(1, [5.0, 6.0, 7.0, 8.25], 3),
        _person(1, [5.0, 6.0, 2.0, 2.0], 4, "00aa"),
        _person(2, [0.0, 0.0, 1.0, 1.0], 1),
    ]
    assert (kept["status"], kept["reason"]) == ("ok", None)
    assert kept["review"] == {"priority": 0.0, "reasons": []}


def test_a_reviewed_negative():
    kept = keep(_row(), _decision("a.jpg"))
    assert (kept["status"], kept["boxes"]) == ("no_box", [])
    assert kept["reason"] == "reviewed: a person found nothing to box"


def test_an_image_that_could_not_be_read_stays_rejected():
    row = _row(status="rejected")
    assert keep(row, _decision("a.jpg", SECOND)) == row


def test_only_accepted_images_change():
    rows = [{"image_id": number, **_row(path)} for number, path in enumerate(("a", "b", "c", "d"), start=1)]
    decisions = {
        "a": _decision("a", LARGE),
        "b": _decision("b", LARGE, verdict="rejected"),
        "c": _decision("c", LARGE, verdict="skipped"),
        "elsewhere": _decision("elsewhere"),
    }
    shards = [Shard("k", table(rows, LABELED, {"method": "cam"})), Shard("l", table(rows[1:], LABELED, {}))]
    with beam.Pipeline(options=beam_options([])) as pipeline:
        kept = pipeline | beam.Create(shards) | KeepDecided(decisions)
        assert kept.element_type is Shard
        found = kept | beam.FlatMap(
            lambda shard: [(shard.key, row["path"], row["boxes"][0]["bbox"]) for row in shard.rows.to_pylist()]
        )
        drawn, accepted = [9.0, 9.0, 9.0, 9.0], [5.0, 6.0, 7.0, 8.25]
        expected = [("k", "a", accepted), *((key, path, drawn) for key in "kl" for path in "bcd")]
        assert_that(found, equal_to(expected))
        settings = kept | beam.Map(lambda shard: (shard.key, shard.settings))
        assert_that(
            settings,
            equal_to([("k", {"method": "cam", "schema_version": 3}), ("l", {"schema_version": 3})]),
            label="settings",
        )


def test_decisions_for_other_categories_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("path,label\na.jpg,cat\n")
    run = Plan(str(tmp_path / "run"), [["cat"]]).make(str(tmp_path / "labels.csv"))
    assert decided(run) == {}
    append_decision(run.output, _decision("a.jpg", SECOND))
    assert decided(run)["a.jpg"].boxes == (SECOND,)
    append_decision(run.output, _decision("a.jpg", OTHER))
    with pytest.raises(ValueError, match=r"decision about 'a.jpg' has a box of 'dog', category 2, which is none of"):
        decided(run)
