import json
import shlex
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from camboxes.pipeline.cli import main
from camboxes.transforms import PlannedRun
from camboxes.transforms.review.decisions import FILE, DecidedBox, Decision, append_decision, read_decisions


def _rebox(run, output, *options):
    return main(["rebox", "--run", str(run), "--output", str(output), *options])


def test_the_same_threshold_gives_the_same_bytes(run, tmp_path, results):
    assert _rebox(run, tmp_path / "same") == 0
    assert results(tmp_path / "same") == results(run)
    assert (tmp_path / "same" / "plan" / "plan.json").read_bytes() == (run / "plan" / "plan.json").read_bytes()
    assert (tmp_path / "same" / "report.html").exists()


def test_the_next_command_can_be_pasted(photographs, tmp_path, capsys):
    plain = ["--method", "cam", "--scales", "224", "--refine", "none"]
    assert main(["label", "--input", str(photographs), "--output", str(tmp_path / "my boxes"), *plain]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("draw again: ")]
    call = shlex.split(line.removeprefix("draw again: "))
    assert call == [
        *("camboxes", "rebox", "--run", str(tmp_path / "my boxes")),
        *("--output", str(tmp_path / "my boxes-t40"), "--threshold", "0.4"),
    ]
    assert main(call[1:]) == 0
    assert "draw again" not in capsys.readouterr().out, "it was just drawn"


def test_a_second_call_draws_all_boxes_anew(run, tmp_path, results, capsys):
    for _ in range(2):
        assert _rebox(run, tmp_path / "same") == 0
        assert "done already" not in capsys.readouterr().err
        assert results(tmp_path / "same") == results(run)


def test_another_threshold_gives_what_label_gives_at_it(photographs, run, tmp_path, results, annotations):
    assert _rebox(run, tmp_path / "again", "--threshold", "0.5", "--boxes", "all") == 0
    options = ["--shards", "2", "--threshold", "0.5", "--boxes", "all"]
    assert main(["label", "--input", str(photographs), "--output", str(tmp_path / "label"), *options]) == 0
    assert results(tmp_path / "again") == results(tmp_path / "label")
    assert (
        PlannedRun.load(str(tmp_path / "again")).fingerprints == PlannedRun.load(str(tmp_path / "label")).fingerprints
    )
    before = {a["box_uid"]: a["bbox"] for a in annotations(run)["annotations"]}
    after = {a["box_uid"]: a["bbox"] for a in annotations(tmp_path / "again")["annotations"]}
    assert set(before) <= set(after), "every box of one component keeps its name"
    assert all(after[uid] != before[uid] for uid in before)
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["settings"]["rule"]["threshold"] == 0.5


def test_boxes_come_and_go(run, tmp_path, annotations):
    assert _rebox(run, tmp_path / "none", "--threshold", "1", "--min-area", "0.5") == 0
    assert annotations(tmp_path / "none")["annotations"] == []
    assert json.loads((tmp_path / "none" / "results.json").read_text()) == []
    assert json.loads((tmp_path / "none" / "summary.json").read_text())["images"]["no_box"] == 5
    assert _rebox(tmp_path / "none", tmp_path / "back", "--threshold", "1*otsu", "--min-area", "0") == 0
    assert (tmp_path / "back" / "annotations.json").read_bytes() == (run / "annotations.json").read_bytes()


def test_wrong_calls(run, tmp_path, capsys):
    assert _rebox(tmp_path, tmp_path / "out") == 2
    assert "holds no run; expected the --output of camboxes label" in capsys.readouterr().err
    assert _rebox(run, run) == 2
    assert "is the input itself" in capsys.readouterr().err
    assert _rebox(run, tmp_path / "out", "--threshold", "1.5") == 2
    assert "threshold is 1.5; expected a share from 0 to 1" in capsys.readouterr().err


def test_an_unfinished_run(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "part")
    next((tmp_path / "part" / "shards").iterdir()).unlink()
    assert _rebox(tmp_path / "part", tmp_path / "out") == 2
    assert "is not finished: it lacks 1 of 2 shards" in capsys.readouterr().err


@pytest.fixture
def reviewed(run, tmp_path, rows):
    """A copy of the run: the cat is accepted with a second box and a corrected one, and three others are decided."""
    shutil.copytree(run, tmp_path / "reviewed")
    by_label = {row["labels"][0]["label"]: row for row in rows(run)}
    for verdict, label in [("rejected", "tripod"), ("skipped", "espresso"), ("accepted", "military uniform")]:
        row = by_label[label]
        append_decision(str(tmp_path / "reviewed"), Decision(row["path"], row["image_id"], verdict, boxes=_boxes(row)))
    cat, uniform = by_label["Egyptian cat"], by_label["military uniform"]
    added = DecidedBox("Egyptian cat", cat["labels"][0]["category_id"], (1.5, 2, 30, 40))
    relabelled = DecidedBox("tripod", by_label["tripod"]["labels"][0]["category_id"], (0, 0, 9, 9), box_uid="00ff")
    boxes = (*_boxes(cat), added, relabelled)
    append_decision(str(tmp_path / "reviewed"), Decision(cat["path"], cat["image_id"], "accepted", boxes=boxes))
    append_decision(str(tmp_path / "reviewed"), Decision(uniform["path"], uniform["image_id"], "undone"))
    return tmp_path / "reviewed"


def _boxes(row):
    """A row's boxes as they are decided about."""
    labels = {label["category_id"]: label["label"] for label in row["labels"]}
    return tuple(
        DecidedBox(label=labels[box["category_id"]], method="cam", **box | {"bbox": tuple(box["bbox"])})
        for box in row["boxes"]
    )


@pytest.mark.parametrize("threshold", ["0.02", "0.5", "0.9", "0.8*otsu"])
def test_accepted_boxes_are_those_of_no_threshold(run, reviewed, tmp_path, annotations, threshold, capsys):
    assert _rebox(reviewed, tmp_path / "out", "--threshold", threshold) == 0
    assert "; 3 decisions carried over" in capsys.readouterr().err
    assert _rebox(run, tmp_path / "undecided", "--threshold", threshold) == 0
    before, plain, after = (annotations(path) for path in (run, tmp_path / "undecided", tmp_path / "out"))
    cat = next(image["id"] for image in before["images"] if "cat" in image["file_name"])
    [drawn] = [a for a in before["annotations"] if a["image_id"] == cat]
    names = {category["name"]: category["id"] for category in before["categories"]}
    whole = {"image_id": cat, "iscrowd": 0, "segmentation": [], "review_priority": 0.0}
    person = whole | {"score": 1.0, "source": "person"}
    first = drawn["id"]
    expected = [
        drawn | {"review_priority": 0.0},
        {"id": first + 1, "category_id": names["Egyptian cat"], "bbox": [1.5, 2, 30, 40], "area": 1200.0, "rank": 2}
        | {"box_uid": None, **person},
        {"id": first + 2, "category_id": names["tripod"], "bbox": [0, 0, 9, 9], "area": 81.0, "rank": 1}
        | {"box_uid": "00ff", **person},
    ]
    assert [a for a in after["annotations"] if a["image_id"] == cat] == sorted(
        expected, key=lambda a: (a["category_id"], a["rank"])
    )
    others = [[a | {"id": 0} for a in found["annotations"] if a["image_id"] != cat] for found in (plain, after)]
    assert others[0] == others[1], "what was not accepted is drawn as if nobody had looked"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["by_person"] == 2
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [r["score"] for r in results if r["image_id"] == cat] == [
        a["score"] for a in after["annotations"] if a["image_id"] == cat
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not by a person, but for 2 boxes drawn in review." in page
    assert "<title>tripod: drawn by a person, 0% of the image</title>" in page


def test_decisions_that_accept_nothing_change_no_byte(run, tmp_path, results, rows, capsys):
    shutil.copytree(run, tmp_path / "decided")
    for verdict in ("accepted", "undone", "rejected", "skipped"):
        for row in rows(run):
            decision = Decision(row["path"], row["image_id"], verdict, boxes=_boxes(row))
            append_decision(str(tmp_path / "decided"), decision)
    assert _rebox(tmp_path / "decided", tmp_path / "out") == 0
    assert (
        "boxes from the maps stored in " in (said := capsys.readouterr().err) and "; 5 decisions carried over" in said
    )
    assert results(tmp_path / "out") == results(run)
    assert (tmp_path / "out" / FILE).read_bytes() == (tmp_path / "decided" / FILE).read_bytes()


def test_a_rebox_of_a_rebox_keeps_what_was_accepted(reviewed, tmp_path, results):
    assert _rebox(reviewed, tmp_path / "one", "--threshold", "0.5") == 0
    assert _rebox(tmp_path / "one", tmp_path / "two") == 0
    assert results(tmp_path / "two") == results(tmp_path / "one")
    assert read_decisions(str(tmp_path / "two")) == read_decisions(str(reviewed))


def test_what_was_decided_about_the_output_is_not_lost(reviewed, tmp_path, results, rows, capsys):
    out = tmp_path / "out"
    assert _rebox(reviewed, out, "--threshold", "0.5") == 0
    row = rows(out)[0]
    append_decision(str(out), Decision(row["path"], row["image_id"], "rejected"))
    before = results(out), (out / FILE).read_bytes()
    assert _rebox(reviewed, out, "--threshold", "0.4", "--overwrite") == 2
    said = capsys.readouterr().err
    assert f"{str(out / FILE)!r} holds decisions that {str(reviewed / FILE)!r} does not" in said
    assert "choose another --output, or move that file away" in said
    assert (results(out), (out / FILE).read_bytes()) == before
    (out / FILE).rename(tmp_path / "kept.jsonl")
    assert _rebox(reviewed, out, "--threshold", "0.4", "--overwrite") == 0


def test_wrong_decisions_are_refused(reviewed, tmp_path, capsys):
    with (reviewed / FILE).open("a") as file:
        file.write("no decision\n")
    assert _rebox(reviewed, tmp_path / "out") == 2
    assert f"{str(reviewed / FILE)!r}, line 6 is no decision" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _as_version_2(run):
    """Makes a run's shards what they were before boxes had a source."""
    for path in (run / "shards").iterdir():
        rows = pq.read_table(path)
        settings = json.loads(rows.schema.metadata[b"camboxes"]) | {"schema_version": 2}
        boxes = [
            [{name: box[name] for name in box if name != "source"} for box in of] for of in rows["boxes"].to_pylist()
        ]
        kind = pa.list_(
            pa.struct([field for field in rows.schema.field("boxes").type.value_type if field.name != "source"])
        )
        rows = rows.set_column(rows.schema.get_field_index("boxes"), "boxes", pa.array(boxes, kind))
        pq.write_table(rows.replace_schema_metadata({"camboxes": json.dumps(settings)}), path)


def test_a_run_from_before_boxes_had_a_source(run, tmp_path, results, rows):
    shutil.copytree(run, tmp_path / "old")
    _as_version_2(tmp_path / "old")
    assert all("source" not in box for row in rows(tmp_path / "old") for box in row["boxes"])
    assert _rebox(tmp_path / "old", tmp_path / "out") == 0
    assert results(tmp_path / "out") == results(run)
    assert (
        main(["export", "--run", str(tmp_path / "old"), "--output", str(tmp_path / "exported"), "--format", "parquet"])
        == 0
    )
    assert pq.read_table(tmp_path / "exported" / "boxes.parquet")["source"].to_pylist() == 5 * ["machine"]
    truth = str(run / "annotations.json")
    assert main(["evaluate", "--run", str(tmp_path / "old"), "--ground-truth", truth]) == 0
