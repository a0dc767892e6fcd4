"""A run in a real FiftyOne and out of it again. Started as a script, this file is the process that imports FiftyOne."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam
import numpy as np
import pytest
from PIL import Image

from camboxes.pipeline.commands import doctor
from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.pipeline.review import load_dataset
from camboxes.transforms import BoxesFromMaps, BoxRule, Plan, PlannedRun, Shard, WriteCoco
from camboxes.transforms.boxes_from_maps import draw
from camboxes.transforms.records import MAPPED, table
from camboxes.transforms.review.decisions import FILE, DecidedBox, Decision, append_decision, read_decisions

SIZES = {"cats/one.png": (120, 80), "cats/ü 2.png": (33, 77), "deep/er/one.png": (50, 50), "two.jpg": (61, 97)}
CAT = [[0, 0, 0, 0, 0, 90], [255, 200, 0, 0, 0, 200], [180, 150, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]
DOG = [[0, 0, 0, 255, 255, 0], [0, 0, 10, 20, 0, 0], [0, 0, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0]]
SECOND_CAT = [[0, 1], [3, 255], [0, 254]]
NO_DOG = [[1, 255]]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A run of all four statuses, its maps written by hand: two labels on an image, two boxes of one of them."""
    folder = tmp_path_factory.mktemp("drawn")
    for path, size in SIZES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (90, 120, 150)).save(folder / path)
    (folder / "labels.csv").write_text(
        "path,label\nbroken.jpg,cat\ncats/one.png,cat\ncats/one.png,dog\ncats/ü 2.png,cat\ndeep/er/one.png,thing\n"
        "two.jpg,dog\n"
    )
    output = str(folder / "run")
    planned = Plan(output, [("cat",), ("dog",)], {"thing": []}).make(str(folder / "labels.csv"))
    [key] = planned.shards
    maps = {
        "cats/one.png": [(1, CAT, 2.0), (2, DOG, 2.0)],
        "cats/ü 2.png": [(1, SECOND_CAT, 2.0)],
        "two.jpg": [(2, NO_DOG, -1.0)],  # nowhere positive: no box
    }
    rows = []
    for row in planned.planned_rows(key).to_pylist():
        width, height = SIZES.get(row["path"], (None, None))
        status = "rejected" if width is None else "ok" if row["path"] in maps else "skipped"
        for label in row["labels"]:
            found = {"class_index": label["category_id"] - 1, "probability": 0.75} if status == "ok" else {}
            label |= {"class_index": None, **found}
        rows.append(
            {name: row[name] for name in ("image_id", "path")}
            | {"digest": hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() if width else None}
            | {"width": width, "height": height, "status": status, "reason": "missing: x" if width is None else None}
            | {"labels": row["labels"], "maps": [_map(*a_map, width, height) for a_map in maps.get(row["path"], [])]}
        )
    with beam.Pipeline(options=beam_options([])) as pipeline:
        shards = pipeline | beam.Create([Shard(key, table(rows, MAPPED, {"method": "cam"}))])
        shards | BoxesFromMaps(0.25, boxes="all") | WriteCoco(output)
    return Path(output)


def _map(category_id, cells, raw_max, width, height):
    rows, columns = np.shape(cells)
    found = {"category_id": category_id, "height": rows, "width": columns, "cells": np.uint8(cells).tobytes()}
    return found | {"raw_min": -2.0, "raw_max": raw_max, "rectangle": [0, 0, width, height], "method": "cam"}


@pytest.fixture(scope="module")
def found(drawn, database, tmp_path_factory):
    """What `_through_fiftyone` wrote, in a process that ended."""
    folder = tmp_path_factory.mktemp("fiftyone")
    shutil.copytree(drawn.parent, folder / "copy")
    settings = {"FIFTYONE_DATABASE_URI": database, "FIFTYONE_DATABASE_VALIDATION": "false"}
    settings |= {"FIFTYONE_DO_NOT_TRACK": "1", "HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, __file__, folder, drawn.parent],
        env=os.environ | settings, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "said.txt").write_text(done.stderr)
    return folder


def _through_fiftyone(folder, root):
    """Loads the run, reviews it, loads it again; notes what FiftyOne holds after each step, and lets it export COCO."""
    import fiftyone as fo

    from camboxes.pipeline.review import fiftyone_dataset
    from camboxes.pipeline.review.actions import Reviewed, ReviewError, Rule

    run = folder / "copy" / "run"
    steps = {}

    def load():
        return load_dataset(str(run))

    def note(step, dataset):
        dataset.reload()
        steps[step] = [sample.to_dict() for sample in dataset.iter_samples()]

    def refused(call, *arguments):
        try:
            call(*arguments)
        except ReviewError as error:
            return str(error)
        raise AssertionError(f"{call} took {arguments}")

    dataset = load()
    note("loaded", dataset)
    steps["view names"] = sorted(dataset.list_saved_views())
    steps["persistent"] = dataset.persistent
    steps["fields"] = [*dataset.get_field_schema(flat=True)]
    steps["annotate"] = dataset.label_schemas["boxes"]["classes"]
    steps["views"] = {name: dataset.load_saved_view(name).values("path") for name in sorted(dataset.list_saved_views())}
    dataset.match(fo.ViewField("status") != "rejected").export(
        dataset_type=fo.types.COCODetectionDataset,
        labels_path=str(folder / "exported.json"),
        label_field="boxes",
        categories=dataset.info["categories"],
        coco_id="coco_id",
        annotation_id="coco_id",
        rel_dir=str(root),
    )
    ids = dict(zip(*dataset.values(["path", "id"]), strict=True))
    one, two, broken = ids["cats/one.png"], ids["cats/ü 2.png"], ids["broken.jpg"]

    steps["lowest points"] = [int(sample.heat_map.map.min()) for sample in dataset if sample.heat_map]

    reviewed = Reviewed(dataset)

    def decide(key, verdict):
        return reviewed.decide(key, verdict, reviewed.seen(reviewed.sample(key))["boxes"])

    steps["seen"] = reviewed.seen(reviewed.sample(one))
    steps["redrawn"] = reviewed.redraw(one, Rule(BoxRule(0.75, 0.0, "all")))["boxes"]
    steps["of one label"] = reviewed.redraw(one, Rule(BoxRule(0.1, 0.0, "largest"), "dog"))["boxes"]
    reviewed.reset(one)

    sample = dataset[one]  # what people may note about a box that a machine drew
    sample.boxes.detections[1].tags.append("look")
    sample.boxes.detections[1]["occluded"] = True
    sample.save()
    tagged = sample.boxes.detections[1].box_uid
    steps["tagged"] = [
        box for box in reviewed.redraw(one, Rule(BoxRule(0.3, 0.0, "all")))["boxes"] if box["box_uid"] == tagged
    ]
    steps["reset"] = reviewed.reset(one)["boxes"]
    steps["tagged"] += [box for box in steps["reset"] if box["box_uid"] == tagged]

    sample = dataset[one]  # as the App's Annotate tab changes it
    sample.boxes.detections[0].bounding_box = [0.5, 0.5, 0.25, 0.25]
    sample.boxes.detections.append(fo.Detection(label="dog", bounding_box=[0.0, 0.0, 0.1, 0.1]))
    sample.save()
    steps["around a person's"] = reviewed.redraw(one, Rule(BoxRule(0.75, 0.0, "all")))["boxes"]
    for step, label in (("one label as in the run", "dog"), ("all as in the run", None)):
        assert [*reviewed.apply([one], Rule(None, label))] == [1]
        steps[step] = reviewed.seen(reviewed.sample(one))["boxes"]
    reviewed.redraw(one, Rule(BoxRule(0.75, 0.0, "all")))

    steps["not shown"] = refused(reviewed.decide, one, "accepted", steps["seen"]["boxes"])
    steps["accepted"] = decide(one, "accepted")
    steps["tagged"] += [box for box in steps["accepted"]["boxes"] if box.get("box_uid") == tagged]
    steps["unreadable"] = refused(decide, broken, "accepted")
    steps["decided"] = refused(reviewed.redraw, one, Rule(BoxRule(0.5, 0.0, "all")))
    decide(two, "rejected")
    decide(ids["two.jpg"], "skipped")
    steps["counts"] = reviewed.counts()
    steps["progress"] = reviewed.progress()
    steps["applied"] = [*reviewed.apply([*ids.values()], Rule(BoxRule(0.6, 0.0, "largest")))]
    note("after applying", dataset)
    steps["undone"] = reviewed.undo(two)["verdict"]
    steps["nothing to undo"] = refused(reviewed.undo, two)
    steps["applied again"] = [*reviewed.apply([*ids.values()], Rule(BoxRule(0.999, 0.0, "largest")))]
    note("before loading again", dataset)
    note("loaded again", load())

    fo.delete_dataset(dataset.name)
    note("after the database was lost", load())

    append_decision(str(run), Decision("cats/ü 2.png", 3, "accepted"))  # reviewed elsewhere: nothing is there
    dataset = load()
    note("decided elsewhere", dataset)

    fiftyone_dataset.load(PlannedRun.load(str(run)), dataset.name, {"two.jpg": str(root / "two.jpg")})
    note("of one photograph", dataset)

    dataset.add_sample(fo.Sample(str(root / "two.jpg"), tags=["mine"]))
    [mine] = dataset.match_tags("mine").values("id")
    ids = dict(zip(*dataset.values(["path", "id"]), strict=True))
    dataset.save_view("no box", dataset.match_tags("mine"), overwrite=True)
    sample = dataset[ids["two.jpg"]]
    sample.tags.append("ours")
    sample.boxes.detections.append(fo.Detection(label="cat", bounding_box=[0.0, 0.0, 0.5, 0.5]))
    sample.save()
    note("before what stays", dataset)
    note("what stays", load())
    steps["edited view"] = dataset.load_saved_view("no box").values("id") == [mine]
    reviewed = Reviewed(dataset)
    steps["mine"] = refused(reviewed.sample, mine)
    steps["applied with mine"] = [*reviewed.apply([*ids.values()], Rule(BoxRule(0.5, 0.0, "all")))]
    note("after applying again", dataset)
    for step, verdict in (("rejected", "rejected"), ("undone", "undone"), ("accepted", "accepted")):
        append_decision(str(run), Decision("two.jpg", 5, verdict))
        note(f"{step} elsewhere", load())

    fo.Dataset("not ours", persistent=True)
    shutil.copytree(folder / "copy", folder / "another")
    for step, output, name in (
        ("no run's name", run, "not ours"),
        ("another run's name", folder / "another" / "run", dataset.name),
    ):
        try:
            load_dataset(str(output), name)
        except ValueError as error:
            steps[step] = str(error)
    note("after another run", dataset)

    name, plan = dataset.name, run / "plan" / "plan.json"
    plan.write_text(plan.read_text().replace(PlannedRun.load(str(run)).fingerprints["configuration"], "another"))
    steps["reloaded"] = refused(Reviewed, dataset)
    dataset = load()
    steps["new"] = [dataset.name == name, sorted(dataset.list_saved_views())]
    kept = fo.load_dataset(f"{name}-before-1")
    note("kept", kept)
    steps["kept view"] = kept.load_saved_view("no box").values("id") == [mine]
    steps["closed"] = refused(Reviewed, kept)
    plan.write_text(plan.read_text().replace("another", "a third one"))
    load()
    steps["datasets"] = [each.removeprefix(name) for each in fo.list_datasets() if each.startswith(name)]
    (folder / "steps.json").write_text(json.dumps(steps, default=str))


@pytest.fixture(scope="module")
def steps(found):
    return json.loads((found / "steps.json").read_text())


def _by_path(samples):
    return {sample["path"]: sample for sample in samples}


def _boxes(sample):
    return [(box["label"], box["source"], box.get("rank")) for box in sample["boxes"]["detections"]]


def test_every_image_is_a_sample_with_its_state(drawn, steps, rows):
    expected = [(row["image_id"], row["path"], row["status"], row["reason"]) for row in rows(drawn)]
    loaded = steps["loaded"]
    assert [(s["coco_id"], s["path"], s["status"], s.get("reason")) for s in loaded] == expected
    assert [status for _, _, status, _ in expected] == ["rejected", "ok", "ok", "skipped", "no_box"]
    assert [(s.get("metadata") or {}).get("width") for s in loaded] == [None, 120, 33, 50, 61]
    assert [s["filepath"] for s in loaded] == [str(drawn.parent / path) for _, path, _, _ in expected]
    assert [[(c["label"], c.get("confidence")) for c in s["labels"]["classifications"]] for s in loaded] == [
        [("cat", None)], [("cat", 0.75), ("dog", 0.75)], [("cat", 0.75)], [("thing", None)], [("dog", 0.75)],
    ]  # fmt: skip
    assert [s.get("verdict") for s in loaded] == [None] * 5
    assert [s.get("review_priority") for s in loaded] == [
        None if row["review"] is None else row["review"]["priority"] for row in rows(drawn)
    ]
    assert [s["heat_map"] is not None for s in loaded] == [False, True, True, False, True]
    assert steps["persistent"]


def test_boxes_keep_their_ids_scores_ranks_and_names(drawn, steps, rows):
    names = {1: "cat", 2: "dog"}
    for row, sample in zip(rows(drawn), steps["loaded"], strict=True):
        assert len(row["boxes"]) == len(sample["boxes"]["detections"])
        for box, loaded in zip(row["boxes"], sample["boxes"]["detections"], strict=True):
            assert loaded["label"] == loaded["drawn_label"] == names[box["category_id"]]
            assert loaded["confidence"] == box["score"]
            assert (loaded["source"], loaded["method"]) == ("machine", "cam")
            same = ("rank", "box_uid", "threshold", "component_area")
            assert {name: loaded[name] for name in same} == {name: box[name] for name in same}
            pixels = np.multiply(loaded["bounding_box"], [row["width"], row["height"]] * 2)
            assert pixels == pytest.approx(box["bbox"], rel=1e-6)
    attributes = {"rank", "box_uid", "source", "threshold", "method"}
    assert {f"boxes.detections.{name}" for name in attributes} <= set(steps["fields"])
    assert steps["annotate"] == ["cat", "dog", "thing"]


def test_the_saved_views(steps, drawn, rows):
    views = steps["views"]
    readable = [row for row in rows(drawn) if row["status"] != "rejected"]
    by_priority = sorted(readable, key=lambda row: -row["review"]["priority"])
    assert [row["review"]["priority"] for row in by_priority] == [
        _by_path(steps["loaded"])[path]["review_priority"] for path in views.pop("most worth reviewing")
    ]
    assert views == {
        "accepted": [],
        "no box": ["two.jpg"],
        "rejected files": ["broken.jpg"],
        "several boxes": ["cats/one.png"],
        "suspected wrong label": [],
    }


def test_the_coco_that_fiftyone_exports(drawn, found, annotations):
    before, after = annotations(drawn), json.loads((found / "exported.json").read_text())
    assert after["categories"] == before["categories"]
    names = {image["id"]: image["file_name"] for image in after["images"]}
    assert names == {image["id"]: image["file_name"] for image in before["images"]}
    exported = {annotation["box_uid"]: annotation for annotation in after["annotations"]}
    assert len(exported) == len(before["annotations"]) == 4
    for annotation in before["annotations"]:
        found_again = exported[annotation["box_uid"]]
        assert found_again["bbox"] == pytest.approx(annotation["bbox"], rel=1e-6)
        same = ("image_id", "category_id", "score", "rank", "iscrowd")
        assert {name: found_again[name] for name in same} == {name: annotation[name] for name in same}


def test_what_the_panel_shows(steps):
    seen = steps["seen"]
    assert (seen["path"], seen["status"], seen["verdict"], seen["corrected"]) == ("cats/one.png", "ok", None, 0)
    assert seen["labels"] == [
        {"label": "cat", "probability": 0.75, "level": 0.25}, {"label": "dog", "probability": 0.75, "level": 0.25}
    ]  # fmt: skip
    assert len(seen["boxes"]) == 3
    with Image.open(io.BytesIO(base64.b64decode(seen["map"].removeprefix("data:image/png;base64,")))) as picture:
        lowest, (red, green, blue) = picture.getpixel((0, 0)), picture.getpixel((0, 21))
    assert lowest == (68, 1, 84)  # viridis begins with it, and ends in yellow
    assert min(red, green) > 200 > 50 > blue
    assert steps["lowest points"] == [1, 1, 1]  # the App leaves 0 out


def test_a_decision_is_about_the_boxes_that_were_shown(steps):
    assert steps["not shown"] == "its boxes were changed meanwhile, here or in another window; look at it again"


def test_boxes_drawn_anew_are_those_of_the_beam_job(drawn, steps, rows):
    [row] = [row for row in rows(drawn) if row["path"] == "cats/one.png"]
    before = {box["box_uid"]: box for box in row["boxes"]}
    expected = draw(row, BoxRule(0.75, boxes="all"))["boxes"]
    assert [(box["box_uid"], box["confidence"], box["threshold"]) for box in steps["redrawn"]] == [
        (box["box_uid"], box["score"], 0.75) for box in expected
    ]
    assert all(box["bounding_box"][2] * 120 < before[box["box_uid"]]["bbox"][2] for box in steps["redrawn"])
    assert [(box["label"], box["threshold"]) for box in steps["of one label"]] == [
        ("cat", 0.75), ("cat", 0.75), ("dog", 0.1)
    ]  # fmt: skip
    assert [(box["box_uid"], box["threshold"]) for box in steps["reset"]] == [(uid, 0.25) for uid in before]


def test_a_persons_boxes_are_not_drawn_over(steps):
    boxes = steps["around a person's"]
    first = steps["reset"][0]
    assert [(box["label"], box["bounding_box"], box.get("box_uid")) for box in boxes[:2]] == [
        ("cat", [0.5, 0.5, 0.25, 0.25], first["box_uid"]), ("dog", [0.0, 0.0, 0.1, 0.1], None)
    ]  # fmt: skip
    assert [box["threshold"] for box in boxes[2:]] == [0.75, 0.75]
    assert first["box_uid"] not in [box["box_uid"] for box in boxes[2:]]


def test_many_images_go_back_to_the_boxes_of_the_run(steps):
    of_the_run = {box["box_uid"]: box for box in steps["reset"]}
    moved, added, second_cat, dog = steps["around a person's"]
    for step, back, expected in (
        ("one label as in the run", [dog], [("cat", 0.75), ("dog", 0.25)]),
        ("all as in the run", [second_cat, dog], [("cat", 0.25), ("dog", 0.25)]),
    ):
        boxes = steps[step]
        assert boxes[:2] == [moved, added]  # a person's
        assert [(box["label"], box["threshold"]) for box in boxes[2:]] == expected
        for box in back:
            assert [found for found in boxes if found["_id"] == box["_id"]] == [
                of_the_run[box["box_uid"]] | {"_id": box["_id"]}
            ]


def test_a_decision_is_in_the_file_and_in_the_database(found, steps):
    decision = read_decisions(str(found / "copy" / "run"))["cats/one.png"]
    assert (decision.verdict, decision.image_id) == ("accepted", 2)
    moved, added, *drawn = decision.boxes
    uid = steps["reset"][0]["box_uid"]
    assert moved == DecidedBox("cat", 1, (60.0, 40.0, 30.0, 20.0), "person", uid)
    assert added == DecidedBox("dog", 2, (0.0, 0.0, 12.0, 8.0), "person")
    assert [(box.source, box.threshold, box.method) for box in drawn] == [("machine", 0.75, "cam")] * 2
    sample = _by_path(steps["after applying"])["cats/one.png"]
    assert (sample["verdict"], sample["decided"]) == ("accepted", decision.time)
    assert [box["source"] for box in sample["boxes"]["detections"]] == ["person", "person", "machine", "machine"]
    assert steps["accepted"]["verdict"] == "accepted"
    assert steps["accepted"]["corrected"] == 2


def test_what_is_refused(steps):
    assert steps["unreadable"] == "broken.jpg could not be read (missing: x); there is nothing to review"
    assert steps["decided"] == "this image was accepted; undo that to draw its boxes again"
    assert steps["nothing to undo"] == "cats/ü 2.png was not decided; there is nothing to take back"


def test_counts(steps):
    assert steps["counts"] == {"accepted": 1, "rejected": 1, "skipped": 1, "open": 1, "unreadable": 1}
    assert steps["progress"] == [
        {"label": "cat", "images": 2, "accepted": 1, "rejected": 1, "skipped": 0},
        {"label": "dog", "images": 2, "accepted": 1, "rejected": 0, "skipped": 1},
        {"label": "thing", "images": 1, "accepted": 0, "rejected": 0, "skipped": 0},
    ]


def test_a_threshold_for_many_leaves_decided_images_alone(steps):
    assert steps["applied"] == [1]  # the skipped label's image: it has no map, and no box
    assert (
        _by_path(steps["after applying"])["cats/ü 2.png"]["boxes"] == _by_path(steps["loaded"])["cats/ü 2.png"]["boxes"]
    )
    assert steps["undone"] is None
    assert steps["applied again"] == [2]
    [box] = _by_path(steps["before loading again"])["cats/ü 2.png"]["boxes"]["detections"]
    assert box["threshold"] == 0.999


def test_loading_again_changes_nothing(steps):
    def without_times(samples):
        return [{name: value for name, value in sample.items() if name != "last_modified_at"} for sample in samples]

    assert without_times(steps["loaded again"]) == without_times(steps["before loading again"])


def test_a_lost_database_loses_no_decision(steps):
    before, after = _by_path(steps["loaded again"]), _by_path(steps["after the database was lost"])
    assert {path: s.get("verdict") for path, s in after.items()} == {
        path: s.get("verdict") for path, s in before.items()
    }
    assert _boxes(after["cats/one.png"]) == _boxes(before["cats/one.png"])
    # What was drawn anew and not decided is the run's again.
    assert [box["threshold"] for box in after["cats/ü 2.png"]["boxes"]["detections"]] == [0.25]


def test_a_decision_made_elsewhere_is_taken_over(steps):
    sample = _by_path(steps["decided elsewhere"])["cats/ü 2.png"]
    assert (sample["verdict"], sample["boxes"]["detections"]) == ("accepted", [])


def test_an_image_without_a_photograph_stays_as_it_was(found, steps):
    assert steps["of one photograph"] == steps["decided elsewhere"]
    said = "4 images loaded before have no photograph here now; they stay as they were"
    assert said in (found / "said.txt").read_text().splitlines()


def test_what_people_noted_about_a_box_stays_with_it(steps):
    assert [(box["tags"], box["occluded"]) for box in steps["tagged"]] == [(["look"], True)] * 3
    assert [box["threshold"] for box in steps["tagged"]] == [0.3, 0.25, 0.75]
    assert len({box["_id"] for box in steps["tagged"]}) == 1


def test_what_people_added_stays(steps):
    assert steps["what stays"] == steps["before what stays"]
    assert len(steps["what stays"]) == 6
    assert steps["edited view"]
    assert steps["mine"] == "this image was added to the dataset by hand, and is none of the run's"
    assert steps["applied with mine"] == [1]  # the skipped label's: what was added has no map


def test_of_decisions_made_elsewhere_an_accepted_one_alone_replaces_corrections(found, steps):
    before = _by_path(steps["after applying again"])["two.jpg"]
    for step, verdict, boxes in (
        ("rejected elsewhere", "rejected", 1),
        ("undone elsewhere", "skipped", 1),
        ("accepted elsewhere", "accepted", 0),
    ):
        sample = _by_path(steps[step])["two.jpg"]
        assert (sample.get("verdict"), sample["tags"]) == (verdict, ["ours"])
        assert sample["boxes"]["detections"] == before["boxes"]["detections"][:boxes]
    said = (found / "said.txt").read_text()
    assert "1 image accepted elsewhere, which replaces boxes that were corrected here: two.jpg\n" in said


def test_a_dataset_of_another_run_is_not_touched(found, steps):
    assert steps["no run's name"] == "FiftyOne has a dataset 'not ours' already that holds no run; choose another name"
    assert re.fullmatch(
        f"FiftyOne's dataset 'run-.{{6}}' holds the run in '{found}/copy/run'; choose another name",
        steps["another run's name"],
    )
    assert steps["after another run"] == steps["accepted elsewhere"]


def test_the_dataset_of_a_run_that_was_replaced_is_kept(found, steps):
    assert steps["kept"] == steps["accepted elsewhere"]
    assert steps["kept view"]
    assert steps["new"] == [True, steps["view names"]]
    assert steps["datasets"] == ["", "-before-1", "-before-2"]
    for step, suffix in (("reloaded", ""), ("closed", "-before-1")):
        assert re.fullmatch(
            f"dataset 'run-.{{6}}{suffix}' holds the run that was in '{found}/copy/run' before; to review the one that "
            "is there now, call camboxes review again",
            steps[step],
        )
    said = (found / "said.txt").read_text()
    assert re.search(
        f"'{found}/copy/run' holds another run than before; what was done with that one in FiftyOne is kept in its "
        r"dataset '(run-.{6}-before-1)' \(to delete it: fiftyone datasets delete \1\)\n",
        said,
    )


def test_what_cannot_be_loaded_is_told_before_fiftyone_starts(drawn, tmp_path):
    with pytest.raises(ValueError, match=r"holds no run; expected the --output of camboxes label"):
        load_dataset(str(tmp_path))
    shutil.copytree(drawn.parent, tmp_path / "copy")
    plan = tmp_path / "copy" / "run" / "plan" / "plan.json"
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"root": str(tmp_path / "copy")}))
    (tmp_path / "copy" / "two.jpg").unlink()
    with pytest.raises(ValueError, match=r"photographs below '.*copy' that are gone.*: 1 of 5.*two.jpg' \(missing: "):
        load_dataset(str(tmp_path / "copy" / "run"))
    (tmp_path / "copy" / "run" / FILE).write_text("no decision\n")
    shutil.copy(drawn.parent / "two.jpg", tmp_path / "copy")
    with pytest.raises(ValueError, match=r"review.jsonl', line 1 is no decision"):
        load_dataset(str(tmp_path / "copy" / "run"))
    assert "fiftyone" not in sys.modules


def test_the_doctor_asks_the_server_of_ones_own(database, monkeypatch):
    [check] = [check for check in doctor.CHECKS if check.name == "mongod"]
    monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
    _, packaged = check.line()
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", database)
    assert check.line() == ("ok", f"{packaged.partition(',')[0]}, the server that FIFTYONE_DATABASE_URI names")


if __name__ == "__main__":
    _through_fiftyone(Path(sys.argv[1]), Path(sys.argv[2]))
