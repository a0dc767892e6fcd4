"""The steps in pipelines of the user's own."""

import collections
import gc
import json
import threading
import tracemalloc

import apache_beam as beam
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import GlobalWindow, IntervalWindow
from apache_beam.utils.timestamp import Timestamp
from PIL import Image

from camboxes.models import Localizer, MapSpec, ModelSpec, load_classifier
from camboxes.models.networks.by_name import empty_network
from camboxes.pipeline.jobs.beam_options import beam_options
from camboxes.transforms import (
    BatchImages,
    BoxesFromMaps,
    InferClassMaps,
    LabeledImage,
    Plan,
    ReadLabeledImages,
    WriteCoco,
    storage,
)
from camboxes.transforms.infer import _InferClassMaps
from camboxes.transforms.inference import image_loading, scheduling
from camboxes.transforms.planning.plan import shard_file
from camboxes.transforms.records import LABELED, PLANNED, Shard, table
from camboxes.transforms.write import IncompleteRunError, TooManyRejectedError, merge


def _pipeline():
    return beam.Pipeline(options=beam_options([]))


def _through(step, *shards):
    """What a step makes of shards in one bundle, without a runner."""
    step.start_bundle()
    emitted = [value for shard in shards for value in step.process(shard, Timestamp(0), GlobalWindow())]
    return [value.value for value in [*emitted, *step.finish_bundle()]]


def test_images_that_arrive_one_by_one(photographs, tmp_path, rows, plain_run):
    """The same maps as in a planned run, ids by path, and every odd image accounted for."""
    cat, cup = photographs / "Egyptian cat" / "chelsea.png", photographs / "espresso" / "coffee.png"
    images = [
        LabeledImage("z/cat.png", ("Egyptian cat",), cat.read_bytes()),
        LabeledImage(str(cup), ("espresso", "no such class", "not a category")),
        LabeledImage("a.jpg", ("espresso",), b"no image"),
        LabeledImage("b.png", ("no such class",), cat.read_bytes()),
        LabeledImage("c.png", ("not a category",), cat.read_bytes()),
        LabeledImage("d.png", ("nothing",), cup.read_bytes()),
        LabeledImage("e.png", ("nothing", "espresso"), cup.read_bytes()),
    ]
    categories = ["espresso", "Egyptian cat", "no such class"]
    with _pipeline() as pipeline:
        summary = (
            pipeline
            | beam.Create(images)
            | BatchImages(4, [*categories, "nothing"], background=["nothing"])
            | InferClassMaps("efficientnet_lite0", label_map={"no such class": []})
            | BoxesFromMaps()
            | WriteCoco(str(tmp_path))
        )
        assert_that(summary | beam.Map(lambda value: value["images"]), equal_to(
            [{"planned": 7, "ok": 2, "no_box": 0, "skipped": 3, "rejected": 2}]))  # fmt: skip
    written = json.loads((tmp_path / "annotations.json").read_text())
    assert [(image["id"], image["file_name"]) for image in written["images"]] == [
        (1, str(cup)), (3, "b.png"), (4, "c.png"), (5, "d.png"), (7, "z/cat.png"),
    ]  # fmt: skip
    counted = json.loads((tmp_path / "summary.json").read_text())
    assert counted["skipped"] == {"background": 1, "no_category": 1, "no_class": 1}
    assert counted["rejected"] == {"contradiction": 1, "not_an_image": 1}
    assert [category["name"] for category in written["categories"]] == sorted(categories)
    shards = [pq.read_table(path).to_pylist() for path in (tmp_path / "shards").glob("*.parquet")]
    reasons = {row["path"]: row["reason"] for shard in shards for row in shard}
    assert reasons["b.png"] == "no_class: none of its labels stands for a class of the network"
    assert reasons["c.png"] == "no_category: none of its labels is among the given categories"
    assert reasons[str(cup)] == (
        "no_class: no such class stands for no class of the network; "
        "no_category: not a category is not among the given categories"
    )
    planned = {row["path"].rpartition("/")[2]: row for row in rows(plain_run)}
    ours = {annotation["image_id"]: annotation for annotation in written["annotations"]}
    assert ours[7]["bbox"] == planned["chelsea.png"]["boxes"][0]["bbox"]
    assert ours[1]["score"] == planned["coffee.png"]["boxes"][0]["score"]
    assert written["info"]["settings"]["model"]["name"] == "timm:tf_efficientnet_lite0"


def test_labels_that_are_one_text():
    with pytest.raises(ValueError, match="labels are 'dog'; expected a list of labels, as \\['dog'\\]"):
        BatchImages(4, "dog")
    with pytest.raises(Exception, match="labels are 'dog'; expected a list of labels"), _pipeline() as pipeline:
        pipeline | beam.Create([LabeledImage("a.png", "dog")]) | BatchImages(4, ["dog"])


def test_a_planned_job_counts_what_it_does(own_photographs, tmp_path, classifier):
    (own_photographs / "broken.csv").write_text("path,label\nnowhere.jpg,tripod\nespresso/coffee.png,espresso\n")
    plan = Plan(str(tmp_path), classifier.class_names)
    pipeline = _pipeline()
    source = str(own_photographs / "broken.csv")
    pipeline | ReadLabeledImages(source, plan) | InferClassMaps() | BoxesFromMaps(0.4) | WriteCoco(str(tmp_path))
    result = pipeline.run()
    result.wait_until_finish()
    counters = {c.key.metric.name: c.committed for c in result.metrics().query()["counters"]
                if c.key.metric.namespace == "camboxes"}  # fmt: skip
    assert {name: counters[name] for name in ("decoded", "rejected_missing", "written")} == {
        "decoded": 1, "rejected_missing": 1, "written": 2,
    }  # fmt: skip
    assert {"milliseconds_decode", "milliseconds_forward", "milliseconds_boxes", "milliseconds_write"} <= set(counters)


def test_the_network_is_only_asked_for_images_that_decode(tmp_path, classifier, rows):
    (tmp_path / "m.csv").write_text("path,label\n" + "".join(f"{n}.jpg,tripod\n" for n in range(3)))
    plan = Plan(str(tmp_path / "out"), classifier.class_names)
    with _pipeline() as pipeline:
        (
            pipeline
            | ReadLabeledImages(str(tmp_path / "m.csv"), plan)
            | InferClassMaps()
            | BoxesFromMaps()
            | WriteCoco(plan.output, max_reject_rate=1)
        )
    assert [(row["status"], row["reason"], row["labels"][0]["label"]) for row in rows(plan.output)] == [
        ("rejected", "missing: there is no file at this path", "tripod")
    ] * 3
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == []


def test_a_path_that_leads_outside_the_root_is_not_read(tmp_path, photographs, classifier, rows):
    (tmp_path / "data").mkdir()
    cat = photographs / "Egyptian cat" / "chelsea.png"
    (tmp_path / "secret.png").write_bytes(cat.read_bytes())
    (tmp_path / "data" / "cat.png").write_bytes(cat.read_bytes())
    paths = ["../secret.png", str(tmp_path / "secret.png"), "cat.png", f"{tmp_path}/data/../data/cat.png"]
    manifest = tmp_path / "data" / "m.csv"
    manifest.write_text("path,label\n" + "".join(f"{path},Egyptian cat\n" for path in paths))
    plan = Plan(str(tmp_path / "out"), classifier.class_names)
    with _pipeline() as pipeline:
        (
            pipeline
            | ReadLabeledImages(str(manifest), plan)
            | InferClassMaps()
            | BoxesFromMaps()
            | WriteCoco(plan.output, max_reject_rate=1)
        )
    found = {row["path"]: (row["status"], row["reason"], row["digest"]) for row in rows(plan.output)}
    outside = "outside_root: the path, or a link on it, leads outside the input root; --root may be wider"
    assert found.pop("cat.png")[:2] == ("ok", None)
    assert found == dict.fromkeys(paths[:2], ("rejected", outside, None))


def _rejecting(output, allowed, rejected, images):
    """A library user's job, in which so many of the images were rejected."""
    row = {"labels": [], "maps": [], "boxes": []}
    bad = row | {"status": "rejected", "reason": "missing: there is no file at this path"}
    good = row | {"status": "skipped", "width": 4, "height": 3}
    rows = [(bad if number < rejected else good) | {"path": f"{number}.jpg"} for number in range(images)]
    rows[0] = rows[0] | {"reason": "truncated: image file is truncated"}
    with _pipeline() as pipeline:
        pipeline | beam.Create([Shard("all", table(rows, LABELED, {}))]) | WriteCoco(str(output), **allowed)


@pytest.mark.parametrize(
    ("allowed", "rejected", "said"),
    [
        ({}, 3, "rejected: 3 of 4 images, more than the share of 0.5 that max_reject_rate allows: "),
        ({"max_reject_rate": 0.25}, 2, "rejected: 2 of 4 images, more than the share of 0.25 that "),
        ({"max_reject_rate": 0}, 1, "rejected: 1 of 4 images, more than the share of 0 that "),
    ],
)
def test_a_library_users_job_fails_where_too_many_images_are_rejected(tmp_path, allowed, rejected, said):
    with pytest.raises(TooManyRejectedError) as failure:
        _rejecting(tmp_path, allowed, rejected, 4)
    counted = {"missing": rejected - 1, "truncated": 1}
    reasons = ", ".join(f"{code} {number}" for code, number in counted.items() if number)  # in order, too
    assert said in str(failure.value) and f"allows: {reasons}" in str(failure.value)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["images"]["rejected"] == rejected and summary["failure"] in str(failure.value)
    assert len(json.loads((tmp_path / "annotations.json").read_text())["images"]) == 4 - rejected


@pytest.mark.parametrize(("allowed", "rejected"), [({}, 2), ({"max_reject_rate": 1}, 4), ({"max_reject_rate": 0.5}, 2)])
def test_a_library_users_job_may_reject_as_many_images_as_it_says(tmp_path, allowed, rejected):
    _rejecting(tmp_path, allowed, rejected, 4)
    assert json.loads((tmp_path / "summary.json").read_text())["failure"] is None


@pytest.mark.parametrize("rate", [-0.1, 1.5, 50, float("nan")])
def test_a_reject_rate_is_a_share(tmp_path, rate):
    with pytest.raises(ValueError, match=rf"^max_reject_rate is {rate}; expected a share from 0 to 1$"):
        WriteCoco(str(tmp_path), max_reject_rate=rate)


def test_a_network_whose_output_is_not_finite(photographs, tmp_path, classifier):
    """Every image is rejected with the reason, and none is lost; the fault is put into a loaded network's bias."""
    step = _InferClassMaps(ModelSpec("efficientnet_lite0"), MapSpec(), None, None)
    step.setup()
    step._localizer.classifier.bias[3] = float("nan")
    run = Plan(str(tmp_path), classifier.class_names).make(str(photographs))
    [shard] = _through(step, Shard("00000-of-00001", run.planned_rows("00000-of-00001")))
    found = shard.rows.select(["status", "reason", "maps"]).to_pylist()
    assert found == [
        {"status": "rejected", "reason": "not_finite: the network's output holds NaN or infinity", "maps": []}
    ] * 5  # fmt: skip


@pytest.mark.parametrize(
    ("error", "reason", "halved"),
    [
        (RuntimeError("index out of range"), "network_failed: RuntimeError: index out of range", 0),
        (MemoryError("no room"), "out_of_memory: MemoryError: no room", 2),
    ],
)
def test_an_image_that_the_network_fails_on_costs_itself_alone(
    photographs, tmp_path, classifier, monkeypatch, error, reason, halved
):
    """The third of five photographs, in a batch of four, which is halved twice until that one is alone."""
    run = Plan(str(tmp_path / "out"), classifier.class_names).make(str(photographs))
    planned = Shard("00000-of-00001", run.planned_rows("00000-of-00001"))
    step = _InferClassMaps(ModelSpec("efficientnet_lite0", aspect="squash"), MapSpec(), None, None)
    step.setup()
    [whole] = _through(step, planned)
    expected = whole.rows.to_pylist()
    [espresso] = (row["labels"][0]["class_index"] for row in expected if "espresso" in row["path"])
    localize, counts = Localizer.localize, collections.Counter()

    def fail(self, images, candidates):
        if [[espresso]] in candidates:
            raise error
        return localize(self, images, candidates)

    monkeypatch.setattr(Localizer, "localize", fail)
    monkeypatch.setattr(scheduling, "count", lambda name, value=1: counts.update({name: value}))
    [shard] = _through(step, planned)
    assert counts["halved_batches"] == halved
    for row, wanted in zip(shard.rows.to_pylist(), expected, strict=True):
        if "espresso" in row["path"]:
            assert (row["status"], row["reason"], row["maps"]) == ("rejected", reason, [])
        elif not halved:
            assert row == wanted
        else:
            assert (row["status"], row["labels"][0]["class_index"]) == ("ok", wanted["labels"][0]["class_index"])


def test_a_merge_that_misses_images_fails(photographs, tmp_path, classifier):
    output = str(tmp_path / "out")
    run = Plan(output, classifier.class_names, shards=2).make(str(photographs))
    with pytest.raises(IncompleteRunError, match="2 of 2 planned shards are missing"):
        merge([], output)
    for key in run.shards:
        storage.write_table(shard_file(output, key), table([], LABELED, {}))
    with pytest.raises(IncompleteRunError, match="5 images were planned, and 0 have a row"):
        merge([], output)
    assert not (tmp_path / "out" / "annotations.json").exists()
    assert not list((tmp_path / "out").glob("*.tmp"))


def test_large_results_are_written_in_parts(run, tmp_path, monkeypatch):
    """Three parts are what the one file is, cut between shards."""
    from camboxes.pipeline.cli import main
    from camboxes.transforms import write

    photographs = json.loads((run / "plan" / "plan.json").read_text())["root"]
    assert (
        main(["label", "--input", photographs, "--output", str(tmp_path / "out"), "--shards", "3", "--reuse", str(run)])
        == 0
    )
    expected = json.loads((tmp_path / "out" / "annotations.json").read_text())
    monkeypatch.setattr(write, "_IMAGES_PER_PART", 1)
    summary = merge([], str(tmp_path / "out"))
    names = [f"annotations-{number:05d}-of-00003.json" for number in (1, 2, 3)]
    parts = [json.loads((tmp_path / "out" / name).read_text()) for name in names]
    assert [image for part in parts for image in part["images"]] == expected["images"]
    assert [annotation for part in parts for annotation in part["annotations"]] == expected["annotations"]
    assert all(part["categories"] == expected["categories"] and part["info"] == expected["info"] for part in parts)
    assert summary["images"]["planned"] == 5 and summary["annotations"] == 5


def test_shards_of_different_settings_are_never_merged(tmp_path):
    for key, threshold in (("a", 0.25), ("b", 0.5)):
        storage.write_table(shard_file(str(tmp_path), key), table([], LABELED, {"rule": {"threshold": threshold}}))
    with pytest.raises(ValueError, match=r"shard b of .* before it: threshold 0.5 instead of 0.25"):
        merge(["a", "b"], str(tmp_path))


def test_boxes_of_several_labels_and_maps(tmp_path):
    """Drawn by hand from stored cells: a map for each label, one without a box, one label without a class."""
    cells = np.array([[0, 0, 255], [0, 0, 0]], np.uint8)
    labels = [
        {"label": "cat", "category_id": 1, "class_index": 285, "logit": 3.0, "probability": 0.5},
        {"label": "dog", "category_id": 2, "class_index": 151, "logit": 1.0, "probability": 0.25},
        {"label": "thing", "category_id": 3},
    ]
    a_map = {
        "height": 2,
        "width": 3,
        "cells": cells.tobytes(),
        "rectangle": [0, 0, 3, 2],
        "method": "cam",
        "scales": [224],
    }
    maps = [
        {**a_map, "category_id": 1, "raw_min": -1.0, "raw_max": 2.0},
        {**a_map, "category_id": 2, "raw_min": -2.0, "raw_max": -1.0},
    ]
    row = {"image_id": 7, "path": "a.jpg", "width": 3, "height": 2, "status": "ok", "labels": labels, "maps": maps}
    with _pipeline() as pipeline:
        shards = pipeline | beam.Create([Shard("k", table([row], LABELED, {}))]) | BoxesFromMaps(0.5)
        assert_that(shards | beam.FlatMap(lambda shard: [
            (row["status"], row["reason"], row["boxes"][0]["bbox"], row["boxes"][0]["score"], len(row["boxes"]))
            for row in shard.rows.to_pylist()
        ]), equal_to([(
            "ok",
            "no_class: thing stands for no class of the network; "
            "map_not_positive: no cell of the map is positive for the class (dog)",
            [2, 0, 1, 1], 0.5, 1,
        )]))  # fmt: skip


def test_shards_come_out_in_their_order_at_their_own_place_in_time(photographs, tmp_path, classifier):
    """Whichever images they hold: one has none, and one an image that cannot be read, between those of others."""
    run = Plan(str(tmp_path / "out"), classifier.class_names, shards=1).make(str(photographs))
    planned = run.planned_rows("00000-of-00001")
    unreadable = [row | {"location": str(tmp_path / "nowhere.jpg")} for row in planned[1:2].to_pylist()]
    rows = [planned[:1], table(unreadable, PLANNED, {}), planned[:0], planned[3:4], planned[4:]]
    shards = [Shard(str(number), of_shard) for number, of_shard in enumerate(rows)]
    step = _InferClassMaps(ModelSpec("efficientnet_lite0", aspect="squash"), MapSpec(), None, None)
    step.setup()
    step.start_bundle()
    windows = [IntervalWindow(number, number + 1) for number in range(5)]
    found = [[*step.process(shard, Timestamp(n), windows[n])] for n, shard in enumerate(shards)]
    assert not found[0], "its only image waits for a batch of which nothing is known yet"
    found.append([*step.finish_bundle()])
    emitted = [value for values in found for value in values]
    assert [value.value.key for value in emitted] == ["0", "1", "2", "3", "4"]
    assert [(value.timestamp, *value.windows) for value in emitted] == [(Timestamp(n), windows[n]) for n in range(5)]
    assert [[row["status"] for row in value.value.rows.to_pylist()] for value in emitted] == [
        ["ok"], ["rejected"], [], ["ok"], ["ok"],
    ]  # fmt: skip


@pytest.fixture
def step_of(tmp_path, classifier, monkeypatch):
    """A step and shards of photographs of given sizes, and how many images each of its passes holds."""

    def made(*sizes_of_shards):
        passes, localize = [], Localizer.localize

        def counted(localizer, images, candidates):
            passes.append(len(images))
            return localize(localizer, images, candidates)

        monkeypatch.setattr(Localizer, "localize", counted)
        number, shards = 0, []
        for key, sizes in enumerate(sizes_of_shards):
            folder = tmp_path / str(key)
            folder.mkdir()
            lines = []
            for size in sizes:
                noise = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
                Image.fromarray(noise).save(folder / f"{number}.png")
                lines.append(f"{number}.png,tripod\n")
                number += 1
            (folder / "m.csv").write_text("path,label\n" + "".join(lines))
            plan = Plan(str(folder / "out"), classifier.class_names, shards=1).make(str(folder / "m.csv"))
            shards.append(Shard(str(key), plan.planned_rows("00000-of-00001")))
        step = _InferClassMaps(ModelSpec("efficientnet_lite0", aspect="keep"), MapSpec(), None, None)
        step.setup()
        return step, shards, passes

    return made


def test_shards_share_passes_and_have_the_rows_that_they_have_alone(step_of):
    wide, high = (64, 48), (48, 64)
    step, shards, passes = step_of([wide] * 3, [wide, high], [high] * 3, [wide])
    together = [shard.rows for shard in _through(step, *shards)]
    assert sorted(passes) == [1, 4, 4], "nine images of two shapes"
    alone = [_through(step, shard)[0].rows for shard in shards]
    assert sorted(passes[3:]) == [1, 1, 1, 3, 3]
    assert [rows.to_pylist() for rows in together] == [rows.to_pylist() for rows in alone]


def test_an_image_of_a_rare_shape_waits_for_the_next_shard_and_no_longer(step_of):
    wide, rare = (64, 48), (48, 64)
    step, shards, passes = step_of([rare, *[wide] * 4], *[[wide] * 4] * 12)
    step.start_bundle()
    emitted = [[value.value.key for value in step.process(shard, Timestamp(0), GlobalWindow())] for shard in shards]
    early = [key for keys in emitted for key in keys]
    assert early[:2] == ["0", "1"] and not emitted[0]
    assert [*early, *(value.value.key for value in step.finish_bundle())] == [str(number) for number in range(13)]
    assert sorted(passes) == [1] + [4] * 13


class _Says(beam.DoFn):
    """A step of a user's own that holds a network."""

    def __init__(self, localizer):
        self._localizer = localizer

    def process(self, image):
        [found] = self._localizer.localize([self._localizer.resize(image)], [[[285]]])
        yield found.maps.tobytes()


def test_a_step_of_a_users_own_holds_a_localizer_that_was_used(tmp_path):
    """Of a small network: Beam compresses a step several times, and slowly."""
    torch.manual_seed(0)
    torch.save(empty_network("timm:test_efficientnet").module.state_dict(), tmp_path / "w.pth")
    localizer = Localizer(load_classifier(ModelSpec("timm:test_efficientnet", str(tmp_path / "w.pth"))))
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    [expected] = localizer.localize([localizer.resize(image)], [[[285]]])
    with _pipeline() as pipeline:
        said = pipeline | beam.Create([image]) | beam.ParDo(_Says(localizer))
        assert_that(said, equal_to([expected.maps.tobytes()]))


def _threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")}


def _fails(*_arguments):
    raise ZeroDivisionError("it was bound to fail")


@pytest.mark.parametrize("where", ["reading", "the network", "taking what comes out"])
def test_a_bundle_that_fails_leaves_no_threads(photographs, tmp_path, classifier, monkeypatch, where):
    """Beam gives such a bundle up: no finish_bundle follows."""
    before = _threads()
    run = Plan(str(tmp_path), classifier.class_names, shards=3).make(str(photographs))
    shards = [Shard(key, run.planned_rows(key)) for key in run.shards]
    step = _InferClassMaps(ModelSpec("efficientnet_lite0", batch_size=1), MapSpec(), None, None)
    step.setup()
    if where == "reading":
        monkeypatch.setattr(image_loading, "decode_at_least", _fails)
    elif where == "the network":
        monkeypatch.setattr(scheduling, "localize", _fails)
    step.start_bundle()
    with pytest.raises(ZeroDivisionError):
        for shard in shards * 3:
            for _ in step.process(shard, Timestamp(0), GlobalWindow()):
                _fails()
        list(step.finish_bundle())
    assert _threads() <= before


def test_a_bundle_that_is_begun_and_given_up_leaves_no_threads(photographs, tmp_path, classifier):
    before = _threads()
    run = Plan(str(tmp_path), classifier.class_names).make(str(photographs))
    step = _InferClassMaps(ModelSpec("efficientnet_lite0"), MapSpec(), None, None)
    step.setup()
    step.teardown()
    step.start_bundle()
    [key] = run.shards
    list(step.process(Shard(key, run.planned_rows(key)), Timestamp(0), GlobalWindow()))
    assert _threads() - before
    step.teardown()
    assert _threads() <= before


def test_a_job_that_fails_leaves_no_threads(photographs, tmp_path, classifier):
    before = _threads()
    plan = Plan(str(tmp_path), classifier.class_names, shards=3)
    pipeline = _pipeline()
    pipeline | ReadLabeledImages(str(photographs), plan) | InferClassMaps() | beam.Map(_fails)
    with pytest.raises(ZeroDivisionError):
        pipeline.run()
    gc.collect()
    assert _threads() <= before


def _unplanned(output, shards, rows_of_each):
    """Shards of a user's own pipeline, whose paths come in no order."""
    paths = [f"ä/{number * 7919 % (shards * rows_of_each):06d}.jpg" for number in range(shards * rows_of_each)]
    for number in range(shards):
        rows = [
            {
                "path": path, "width": 640, "height": 480, "status": "ok", "maps": [],
                "labels": [{"label": "cat", "category_id": 1, "class_index": 285, "logit": 1.5, "probability": 0.1}],
                "boxes": [{"category_id": 1, "bbox": [0.1, 2, 3.7, 4], "score": 0.3, "rank": 1, "box_uid": path}],
            }
            for path in paths[number * rows_of_each : (number + 1) * rows_of_each]
        ]  # fmt: skip
        storage.write_table(shard_file(str(output), f"{number:03d}"), table(rows, LABELED, {"categories": ["cat"]}))
    return [f"{number:03d}" for number in range(shards)], sorted(paths)


def test_unplanned_results_are_written_in_parts_too(tmp_path, monkeypatch):
    from camboxes.transforms import write

    keys, paths = _unplanned(tmp_path, 5, 9)
    merge(keys, str(tmp_path))
    whole = json.loads((tmp_path / "annotations.json").read_text())
    assert [(image["id"], image["file_name"]) for image in whole["images"]] == list(enumerate(paths, start=1))
    monkeypatch.setattr(write, "_IMAGES_PER_PART", 20)
    summary = merge(keys, str(tmp_path))
    names = [f"annotations-{number:05d}-of-00003.json" for number in (1, 2, 3)]
    parts = [json.loads((tmp_path / name).read_text()) for name in names]
    assert [len(part["images"]) for part in parts] == [20, 20, 5]
    for name in ("images", "annotations"):
        assert [entry for part in parts for entry in part[name]] == whole[name]
    assert summary["images"]["planned"] == summary["annotations"] == 45


def test_the_memory_of_an_unplanned_merge_does_not_grow_with_the_images(tmp_path):
    """SQLite's, which is bounded, is not counted here."""
    peaks = []
    for shards in (5, 40):
        keys, _ = _unplanned(tmp_path / str(shards), shards, 100)
        tracemalloc.start()
        merge(keys, str(tmp_path / str(shards)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0]
