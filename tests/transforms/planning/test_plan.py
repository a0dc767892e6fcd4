import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
import tarfile

import apache_beam as beam
import pytest

from camboxes.transforms import Plan, PlannedRun, PlanOnWorkers, storage
from camboxes.transforms.contents.shard_contents import contents, image_bytes
from camboxes.transforms.images.decoding import ACCEPTED
from camboxes.transforms.planning.listing import shard_count
from camboxes.transforms.planning.plan import PlanConflictError, planned_file, shard_file, shards_folder
from camboxes.transforms.records import LABELED, table
from camboxes.transforms.sources.entries import SourceError

NAMES = [("cat",), ("dog",), ("eel",)]
RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


@pytest.fixture
def manifest(tmp_path):
    def write(paths, label="cat"):
        path = tmp_path / "m.csv"
        path.write_text("path,label\n" + "".join(f"{name},{label}\n" for name in paths))
        return str(path)

    return write


def test_shards_by_hash_and_ids_by_prefix_sum(manifest, tmp_path):
    paths = [f"{number}.jpg" for number in range(40)]
    run = Plan(str(tmp_path / "out"), NAMES, shards=3).make(manifest(paths))
    by_shard = [[] for _ in range(3)]
    for path in paths:
        # An equal share of the hashes each: the first 63 bits, times the number of shards, without the fraction.
        by_shard[(int(hashlib.sha256(path.encode()).hexdigest()[:16], 16) >> 1) * 3 >> 63].append(path)
    assert list(run.shards) == ["00000-of-00003", "00001-of-00003", "00002-of-00003"]
    planned = [(row["image_id"], row["path"]) for key in run.shards for row in run.planned_rows(key).to_pylist()]
    assert planned == list(enumerate(itertools.chain(*map(sorted, by_shard)), start=1))


def test_the_plan_does_not_depend_on_the_order_of_the_input(manifest, tmp_path):
    paths = [f"{number}.jpg" for number in range(30)]
    one = Plan(str(tmp_path / "one"), NAMES).make(manifest(paths))
    other = Plan(str(tmp_path / "other"), NAMES).make(manifest(paths[::-1]))
    assert one.fingerprints == other.fingerprints
    assert [one.planned_rows(key) for key in one.shards] == [other.planned_rows(key) for key in other.shards]


def test_a_plan_is_found_again(manifest, tmp_path):
    plan = Plan(str(tmp_path / "out"), NAMES, settings={"rule": {"threshold": 0.25}})
    made = plan.make(manifest(["a.jpg", "b.jpg"]))
    assert plan.make(manifest(["b.jpg", "a.jpg"])) == made == PlannedRun.load(str(tmp_path / "out"))


def test_a_data_set_that_moved(manifest, tmp_path):
    plan = Plan(str(tmp_path / "out"), NAMES)
    plan.make(manifest(["a.jpg"]))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "m.csv").rename(tmp_path / "elsewhere" / "m.csv")
    assert plan.make(str(tmp_path / "elsewhere" / "m.csv")).root == str(tmp_path / "elsewhere")
    assert PlannedRun.load(str(tmp_path / "out")).location("a.jpg") == str(tmp_path / "elsewhere" / "a.jpg")


def _finished(run, reasons=()):
    """Writes the shards of a run as if its images had been read; those with a reason were rejected."""
    reasons = dict(reasons)
    for key in run.shards:
        rows = run.planned_rows(key).to_pylist()
        for row, content in zip(rows, contents(rows), strict=True):
            reason = reasons.get(row["path"])
            digest = None if reason else hashlib.sha256(image_bytes(row, content, ACCEPTED)).hexdigest()
            row |= {"status": "rejected" if reason else "ok", "reason": reason, "digest": digest, "labels": []}
        storage.write_table(shard_file(run.output, key), table(rows, LABELED, {}))


@pytest.fixture
def begun(tmp_path):
    """A finished run over three files below one folder, and a copy of them below another."""
    (tmp_path / "one").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / "one" / name).write_bytes(name.encode() * 1000)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "m.csv").write_text("path,label\na.jpg,cat\nb.jpg,cat\nc.jpg,cat\n")
    return Plan(str(tmp_path / "out"), NAMES, root=str(tmp_path / "one"), shards=2)


def _elsewhere(plan, root):
    return dataclasses.replace(plan, root=str(root))


def test_the_same_images_below_another_root(begun, tmp_path):
    manifest = str(tmp_path / "m.csv")
    _finished(begun.make(manifest))
    moved = _elsewhere(begun, tmp_path / "two").make(manifest)
    assert moved.root == str(tmp_path / "two") == PlannedRun.load(begun.output).root
    assert moved.missing() == []


@pytest.mark.parametrize("name", ["a.jpg", "b.jpg", "c.jpg"])
@pytest.mark.parametrize("change", ["another", "gone"])
def test_other_images_below_another_root_are_refused(begun, tmp_path, name, change):
    manifest = str(tmp_path / "m.csv")
    _finished(begun.make(manifest))
    if change == "gone":
        (tmp_path / "two" / name).unlink()
    else:
        (tmp_path / "two" / name).write_bytes(name.encode() * 999 + b"12345")
    reason = {"another": "changed: the file is not the one", "gone": "missing: there is no file at this path"}[change]
    said = rf"below '{tmp_path}/one'; below '{tmp_path}/two' '{name}' is not the image that the run saw \({reason}"
    with pytest.raises(PlanConflictError, match=said):
        _elsewhere(begun, tmp_path / "two").make(manifest)
    run = PlannedRun.load(begun.output)
    assert (run.root, run.missing()) == (str(tmp_path / "one"), [])


def test_workers_compare_them_too(begun, tmp_path):
    manifest = str(tmp_path / "m.csv")
    run = begun.make(manifest)
    _finished(run)
    shutil.copytree(tmp_path / "two", tmp_path / "three")
    (tmp_path / "three" / "c.jpg").write_bytes(b"another")
    for folder, said in (("two", None), ("three", "'c.jpg' is not the image that the run saw")):
        plan = _elsewhere(begun, tmp_path / folder)
        with contextlib.nullcontext() if said is None else pytest.raises(Exception, match=said):  # noqa: SIM117
            with beam.Pipeline(runner=RUNNER) as p:
                p | PlanOnWorkers(manifest, plan)
    assert PlannedRun.load(begun.output).root == str(tmp_path / "two")


def test_a_copy_does_not_replace_a_run_over_other_images(begun, tmp_path):
    """As rebox makes it, from one run and then from another."""
    manifest, copy = str(tmp_path / "m.csv"), str(tmp_path / "copy")
    one = begun.make(manifest)
    _finished(one)
    _finished(one.copy(copy, {}))
    two = dataclasses.replace(begun, output=f"{begun.output}-two", root=str(tmp_path / "two"))
    same = two.make(manifest)
    _finished(same)
    assert same.copy(copy, {}).root == str(tmp_path / "two")
    (tmp_path / "one" / "b.jpg").write_bytes(b"another")
    other = dataclasses.replace(begun, output=f"{begun.output}-other").make(manifest)
    _finished(other)
    with pytest.raises(PlanConflictError, match=r"'b.jpg' of '.*-other', below '.*/one', is another image"):
        other.copy(copy, {})


def test_images_that_were_not_found_are_tried_again_below_another_root(begun, tmp_path):
    """Only they: a file that was broken there is the same here, and one that the run saw must still be."""
    manifest = str(tmp_path / "m.csv")
    run = dataclasses.replace(begun, shards=3).make(manifest)
    reasons = {"a.jpg": "missing: there is no file", "b.jpg": "truncated: 20 bytes"}
    _finished(run, reasons)
    assert _elsewhere(dataclasses.replace(begun, shards=3), tmp_path / "one").make(manifest).missing() == []
    moved = _elsewhere(dataclasses.replace(begun, shards=3), tmp_path / "two").make(manifest)
    of_a = [key for key in run.shards if "a.jpg" in run.planned_rows(key).column("path").to_pylist()]
    assert moved.missing() == of_a
    assert storage.names(shards_folder(run.aside), "") == [f"{key}.parquet" for key in of_a]


def test_other_images_in_a_container_elsewhere_are_refused(tmp_path):
    for folder, content in (("one", b"1"), ("two", b"2")):
        (tmp_path / folder).mkdir()
        with tarfile.open(tmp_path / folder / "x.tar", "w") as file:
            for name, data in (("a.jpg", b"the same"), ("a.cls", b"cat"), ("b.jpg", content), ("b.cls", b"dog")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))
    plan = Plan(str(tmp_path / "out"), NAMES)
    _finished(plan.make(str(tmp_path / "one" / "x.tar")))
    with pytest.raises(PlanConflictError, match=r"'x.tar/b.jpg' is not the image that the run saw \(changed"):
        plan.make(str(tmp_path / "two" / "x.tar"))
    shutil.copy(tmp_path / "one" / "x.tar", tmp_path / "two" / "x.tar")
    assert plan.make(str(tmp_path / "two" / "x.tar")).missing() == []


def test_no_shards_at_all():
    with pytest.raises(ValueError, match="shards is 0; expected at least 1"):
        Plan("out", NAMES, shards=0)


def test_another_input_or_configuration_is_told(manifest, tmp_path):
    source, output = manifest(["a.jpg"]), str(tmp_path / "out")
    Plan(output, NAMES, settings={"rule": {"threshold": 0.25}, "method": "cam"}).make(source)
    with pytest.raises(PlanConflictError, match=r"the call asks for threshold 0.5 instead of 0.25. Choose"):
        Plan(output, NAMES, settings={"rule": {"threshold": 0.5}, "method": "cam"}).make(source)
    same = {"rule": {"threshold": 0.25}, "method": "cam"}
    with pytest.raises(PlanConflictError, match="the label map or the number of shards changed"):
        Plan(output, NAMES, label_map={"cat": "dog"}, settings=same).make(source)
    with pytest.raises(PlanConflictError, match="holds another run: the label map or the number of shards changed"):
        Plan(output, NAMES, settings=same, shards=2).make(source)
    with pytest.raises(PlanConflictError, match=r"paths or labels changed \(1 image then, 2 now\)"):
        Plan(output, NAMES, settings=same).make(manifest(["a.jpg", "b.jpg"]))
    with pytest.raises(PlanConflictError, match=r"paths or labels changed \(1 image then, 1 now\)"):
        Plan(output, NAMES, settings=same).make(manifest(["a.jpg"], label="dog"))


def test_a_path_that_leads_outside_is_planned_without_a_location(manifest, tmp_path):
    outside = ["../a.jpg", "/etc/passwd", "b/../../c.jpg", "gs://bucket/d.jpg"]
    run = Plan(str(tmp_path / "out"), NAMES, shards=1).make(manifest([*outside, "b/../inside.jpg"]))
    rows = {row["path"]: row for row in run.planned_rows("00000-of-00001").to_pylist()}
    assert rows.pop("inside.jpg")["location"] == str(tmp_path / "inside.jpg")
    assert set(rows) == {"../a.jpg", "/etc/passwd", "../c.jpg", "gs://bucket/d.jpg"}
    assert all(row["location"] is None for row in rows.values())


@pytest.mark.parametrize(("images", "shards"), [(0, 1), (5, 1), (650, 10), (2000, 20), (10_000, 39), (10**6, 3906)])
def test_numbers_of_shards(images, shards):
    assert shard_count(images) == shards


def test_no_machine_path_is_in_what_is_promised_to_be_equal(manifest, tmp_path):
    Plan(str(tmp_path / "out"), NAMES).make(manifest(["a.jpg"]))
    for path in (tmp_path / "out" / "plan" / "shards").iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()
    assert json.loads((tmp_path / "out" / "plan" / "plan.json").read_text())["root"] == str(tmp_path)


def test_the_rows_of_a_finished_run(manifest, tmp_path):
    run = Plan(str(tmp_path / "out"), NAMES, shards=3).make(manifest([f"{number}.jpg" for number in range(20)]))
    settings = {"rule": {"threshold": 0.3}}
    first, *others = sorted(run.shards, reverse=True)
    for key in others:
        rows = [row | {"status": "ok", "labels": []} for row in run.planned_rows(key).to_pylist()]
        storage.write_table(shard_file(run.output, key), table(rows, LABELED, settings))
    assert run.written() == sorted(others) and run.missing() == [first]
    rows = [row | {"status": "rejected", "labels": []} for row in run.planned_rows(first).to_pylist()]
    storage.write_table(shard_file(run.output, first), table(rows, LABELED, settings))

    assert [row["image_id"] for row in run.rows()] == list(range(1, 21))
    assert next(run.rows(["path", "status"])).keys() == {"path", "status"}
    assert [(key, rows.num_rows, rows.column_names) for key, rows in run.tables(["status"])] == [
        (key, images, ["status"]) for key, images in run.shards.items()
    ]
    assert run.recorded_settings()["rule"] == {"threshold": 0.3}


def test_background_is_no_category(tmp_path):
    """Its labels stay with the images, for the reasons of their rows; what its folder passes over is no lost label."""
    for name in ("cat/a.jpg", "other/b.jpg", "other/notes.txt", "none/c.jpg", "dog/d.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    plan = Plan(str(tmp_path / "out"), NAMES, background=["other", "none"])
    run = plan.make(str(tmp_path / "data"))
    assert [(category.id, category.name) for category in run.categories] == [(1, "cat"), (2, "dog")]
    assert run.background == ("none", "other") and run.images == 4 and run.passed_over.labels == {}
    assert PlannedRun.load(run.output) == run == plan.make(str(tmp_path / "data"))
    rows = [row for key in run.shards for row in run.planned_rows(key).to_pylist()]
    assert {row["path"]: ([label["label"] for label in row["labels"]], row["background"]) for row in rows} == {
        "cat/a.jpg": (["cat"], []), "dog/d.jpg": (["dog"], []), "none/c.jpg": ([], ["none"]),
        "other/b.jpg": ([], ["other"]),
    }  # fmt: skip
    without = dataclasses.replace(plan, background=["other"], label_map={"cat": 0, "dog": 1, "none": []})
    with pytest.raises(PlanConflictError, match="the call asks for background other instead of none,other"):
        without.make(str(tmp_path / "data"))


def test_background_that_a_network_was_trained_with(manifest, tmp_path):
    """It need not be there, and a label map may say otherwise; what is asked for must be there, and not be mapped."""
    (tmp_path / "m.csv").write_text("path,label\na.jpg,cat\nb.jpg,other\n")
    source, plan = str(tmp_path / "m.csv"), Plan(str(tmp_path / "out"), NAMES, known_background=["other", "none"])
    assert plan.draft(source).background == ("other",)
    mapped = dataclasses.replace(plan, label_map={"cat": 0, "other": 1})
    assert mapped.draft(source).background == ()
    assert [category.name for category in mapped.draft(source).categories] == ["cat", "other"]
    with pytest.raises(SourceError, match="label 'other' is background and in the label map, too"):
        dataclasses.replace(mapped, background=["other"]).draft(source)
    with pytest.raises(SourceError, match="background 'none' is the label of no image"):
        dataclasses.replace(plan, background=["none"]).draft(source)


def test_a_plan_that_was_written_before_there_was_a_background(manifest, tmp_path):
    plan = Plan(str(tmp_path / "out"), NAMES)
    run = plan.make(manifest(["a.jpg"]))
    [key], file = run.shards, tmp_path / "out" / "plan" / "plan.json"
    values = json.loads(file.read_text())
    assert values.pop("background") == []
    file.write_text(json.dumps(values))
    storage.write_table(
        planned_file(run.output, key), storage.read_table(planned_file(run.output, key)).drop(["background"])
    )
    assert plan.make(manifest(["a.jpg"])) == run
    assert PlannedRun.load(run.output).planned_rows(key).to_pylist()[0]["background"] is None
