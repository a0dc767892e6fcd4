import csv
import dataclasses
import itertools

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from camboxes.transforms import Columns, Plan, PlanConflictError, PlannedRun, PlanOnWorkers, SourceError

NAMES = [("cat",), ("dog",), ("eel",)]
TWO_PROCESSES = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
RUNNER = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


@pytest.fixture
def source(tmp_path):
    """300 images, some with several labels, some with none, some given twice, some outside of the root."""
    rows = [(f"{number % 7}/{number}.jpg", ("cat", "dog", "eel")[number % 3]) for number in range(300)]
    rows += [(path, "dog") for path, _ in rows[::5]] + [("../out.jpg", "cat"), ("none.jpg", ""), ("./none.jpg", "")]
    with (tmp_path / "m.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    return str(tmp_path / "m.csv")


def _on_workers(source, plan, options=()):
    with beam.Pipeline(runner=RUNNER, argv=list(options)) as p:
        shards = p | PlanOnWorkers(source, plan) | beam.Map(lambda shard: (shard.key, shard.rows.to_pylist()))
        expected = dataclasses.replace(plan, output=plan.output + "-expected")
        run = expected.make(source)
        done = set(run.shards) - set((PlannedRun.load(plan.output) or run).missing())
        assert_that(
            shards, equal_to([(key, run.planned_rows(key).to_pylist()) for key in run.shards if key not in done])
        )
    return PlannedRun.load(plan.output), run


@pytest.mark.parametrize(("shards", "options"), [(None, ()), (3, ()), (40, TWO_PROCESSES), (400, ())])
def test_the_same_plan_as_where_the_job_is_started(source, tmp_path, shards, options):
    """400 shards for 302 images: some are empty, and planned all the same."""
    plan = Plan(str(tmp_path / "out"), NAMES, settings={"method": "cam"}, shards=shards)
    made, expected = _on_workers(source, plan, options)
    assert made == dataclasses.replace(expected, output=plan.output)
    assert made.images == 302
    assert made.repeated == len({number for number in range(0, 300, 5) if number % 3 == 1})
    ids = itertools.chain(*(made.planned_rows(key).column("image_id").to_pylist() for key in made.shards))
    assert list(ids) == list(range(1, 303))


def test_class_folders_and_what_is_passed_over(tmp_path):
    for name in ("cat/a.jpg", "cat/notes.txt", "dog/b.png", "loose.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    made, expected = _on_workers(str(tmp_path / "data"), Plan(str(tmp_path / "out"), NAMES))
    assert (made.passed_over.files, made.root) == (2, str(tmp_path / "data"))
    assert made.fingerprints == expected.fingerprints


def test_splits(tmp_path):
    for name in ("train/cat/a.jpg", "val/cat/b.jpg", "val/dog/c.heic"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    made, expected = _on_workers(str(tmp_path / "data"), Plan(str(tmp_path / "out"), NAMES))
    assert made == dataclasses.replace(expected, output=made.output)
    assert made.splits == {"train": "train", "val": "val"}
    assert list(made.passed_over.labels) == ["dog"]
    assert [category.name for category in made.categories] == ["cat"]


def test_what_is_done_is_not_emitted_again(source, tmp_path):
    plan = Plan(str(tmp_path / "out"), NAMES, shards=4)
    _on_workers(source, plan)
    (tmp_path / "out" / "shards").mkdir()
    (tmp_path / "out" / "shards" / "00002-of-00004.parquet").touch()
    made, _ = _on_workers(source, plan)
    assert sorted(made.missing()) == ["00000-of-00004", "00001-of-00004", "00003-of-00004"]
    sizes = [made.shards[key] for key in made.missing()]
    assert sizes == sorted(sizes) and len(set(sizes)) > 1, "the smallest first"


def test_another_input_leaves_the_plan_as_it_was(source, tmp_path):
    plan = Plan(str(tmp_path / "out"), NAMES, shards=2)
    plan.make(source)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "plan").rglob("*.*")}
    with open(source, "a") as file:  # noqa: PTH123
        file.write("new.jpg,cat\n")
    with pytest.raises(Exception, match=r"paths or labels changed \(302 images then, 303 now\)"):
        _on_workers(source, plan)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "plan").rglob("*.*")} == before


def test_labels_without_a_class_end_the_job(source, tmp_path):
    with pytest.raises(Exception, match="'eel' is not the name of a class"), beam.Pipeline(runner=RUNNER) as p:
        _ = p | PlanOnWorkers(source, Plan(str(tmp_path / "out"), NAMES[:2]))
    assert PlannedRun.load(str(tmp_path / "out")) is None


def test_a_source_without_any_label_ends_the_job(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.jpg,\n")
    with pytest.raises(Exception, match="no image of the input has a label"), beam.Pipeline(runner=RUNNER) as p:
        _ = p | PlanOnWorkers(str(tmp_path / "m.csv"), Plan(str(tmp_path / "out"), NAMES))
    assert PlannedRun.load(str(tmp_path / "out")) is None


def _tars(folder):
    """Two tars of 200 and 150 samples, of which every tenth is no image."""
    import webdataset

    for number, samples in enumerate((200, 150)):
        with webdataset.TarWriter(str(folder / f"train-{number}.tar")) as tar:
            for sample in range(samples):
                field = {"jpg": b"x"} if sample % 10 else {"txt": "no image"}
                tar.write({"__key__": f"{sample:04d}", "cls": NAMES[sample % 3][0].encode(), **field})
    return str(folder / "train-*.tar")


def test_containers(tmp_path):
    source = _tars(tmp_path)
    made, expected = _on_workers(source, Plan(str(tmp_path / "out"), NAMES), TWO_PROCESSES)
    assert made == dataclasses.replace(expected, output=made.output)
    assert list(made.shards.values()) == [128, 52, 128, 7]
    assert (made.images, made.passed_over.files, made.root) == (315, 35, str(tmp_path))
    rows = made.planned_rows("00003-of-00004").to_pylist()
    assert [row["path"] for row in rows] == [f"train-1.tar/{number:04d}.jpg" for number in range(143, 150)]
    assert [row["image_id"] for row in rows] == list(range(309, 316))


def test_what_was_assumed_of_a_table(tmp_path):
    """Other columns, and names without an ending, give the same plan; so do they where a table is refused."""
    (tmp_path / "m.csv").write_text("photo,kind\na,cat|dog\nb.jpg,dog\n")
    (tmp_path / "a.png").touch()
    columns = Columns("photo", "kind", "|")
    plan = Plan(str(tmp_path / "out"), NAMES, columns=columns)
    with beam.Pipeline(runner=RUNNER) as p:
        _ = p | PlanOnWorkers(str(tmp_path / "m.csv"), plan)
    made = PlannedRun.load(plan.output)
    expected = dataclasses.replace(plan, output=f"{plan.output}-expected").make(str(tmp_path / "m.csv"))
    assert made == dataclasses.replace(expected, output=plan.output)
    assert made.assumed == (
        "images from the column photo, labels from the column kind, separated by '|'",
        "names without an ending: 1, such as a, found as a.png",
    )
    with pytest.raises(SourceError, match="is no table"):
        PlanOnWorkers(_tars(tmp_path), dataclasses.replace(plan, output=str(tmp_path / "other"))).check()


def test_other_columns_are_another_input(tmp_path):
    (tmp_path / "m.csv").write_text("a,b,label\n1.jpg,2.jpg,cat\n")
    plan = Plan(str(tmp_path / "out"), NAMES, columns=Columns("a"))
    plan.make(str(tmp_path / "m.csv"))
    with pytest.raises(PlanConflictError, match="the input's paths or labels changed"):
        dataclasses.replace(plan, columns=Columns("b")).make(str(tmp_path / "m.csv"))


def test_denied_labels(tmp_path):
    """In Open Images' CSV a person's no outweighs what a machine, or another person, says of an image."""
    rows = ["a,m,/cat,0.9", "a,h,/cat,0", "a,m,/dog,0.7", "b,m,/cat,1", "b,m,/cat,1"]
    (tmp_path / "m.csv").write_text("\n".join(["ImageID,Source,LabelName,Confidence", *rows]))
    (tmp_path / "class-descriptions.csv").write_text("/cat,cat\n/dog,dog\n")
    made, _ = _on_workers(str(tmp_path / "m.csv"), Plan(str(tmp_path / "out"), NAMES))
    rows = itertools.chain(*(made.planned_rows(key).to_pylist() for key in made.shards))
    assert {row["path"]: [label["label"] for label in row["labels"]] for row in rows} == {
        "a.jpg": ["dog"],
        "b.jpg": ["cat"],
    }
    assert made.repeated == 1


def test_background(source, tmp_path):
    plan = Plan(str(tmp_path / "out"), NAMES, shards=3, background=["eel"], known_background=["dog", "ape"])
    made, expected = _on_workers(source, plan)
    assert made == dataclasses.replace(expected, output=plan.output)
    assert made.background == ("dog", "eel") and [category.name for category in made.categories] == ["cat"]
