"""What the review does without FiftyOne: boxes as samples and back, photographs, and calls that cannot work."""

import hashlib
import io
import re
import socket
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from tqdm import tqdm

from camboxes.pipeline import cli
from camboxes.pipeline.review import fiftyone_dataset, fiftyone_samples, load_dataset, local_photographs
from camboxes.transforms import PlannedRun, storage
from camboxes.transforms.boxes.stored_maps import StoredMap
from camboxes.transforms.review.decisions import DecidedBox, Decision

SIZE = (200, 100)
BOX = {
    "category_id": 2, "bbox": [20.0, 10.0, 100.0, 50.0], "score": 0.5, "calibrated_score": None, "rank": 1,
    "box_uid": "0123456789abcdef", "component_area": 0.2, "threshold": 0.25, "source": "machine",
}  # fmt: skip
ROW = {
    "width": 200, "height": 100, "boxes": [BOX],
    "labels": [{"label": "cat", "category_id": 1}, {"label": "dog", "category_id": 2}],
    "maps": [{"category_id": 2, "method": "layercam@16"}],
}  # fmt: skip
CATEGORIES = {"cat": 1, "dog": 2}
NAMES = {number: name for name, number in CATEGORIES.items()}


def test_a_rows_box_as_a_detection_and_as_a_decision():
    [found] = fiftyone_samples.detections(ROW, NAMES)
    assert found == {
        "label": "dog", "bounding_box": [0.1, 0.1, 0.5, 0.5], "confidence": 0.5, "box_uid": "0123456789abcdef",
        "source": "machine", "calibrated_score": None, "threshold": 0.25, "method": "layercam@16", "rank": 1,
        "component_area": 0.2, "drawn": [0.1, 0.1, 0.5, 0.5], "drawn_label": "dog",
    }  # fmt: skip
    assert fiftyone_samples.decided_box(found, SIZE, CATEGORIES) == DecidedBox(
        label="dog", category_id=2, bbox=(20.0, 10.0, 100.0, 50.0), source="machine", box_uid="0123456789abcdef",
        score=0.5, threshold=0.25, method="layercam@16", rank=1, component_area=0.2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"bounding_box": [0.2, 0.1, 0.5, 0.5]}, {"bbox": (40.0, 10.0, 100.0, 50.0)}),
        ({"label": "cat"}, {"label": "cat", "category_id": 1}),
        ({"source": None, "drawn": None, "drawn_label": None, "box_uid": None}, {"box_uid": None}),  # a new one
        ({"bounding_box": [-0.1, 0.1, 0.5, 1.5]}, {"bbox": (0.0, 10.0, 80.0, 90.0)}),  # drawn beyond the image
    ],
)
def test_what_a_person_corrected_is_a_persons(change, expected):
    [found] = fiftyone_samples.detections(ROW, NAMES)
    assert not fiftyone_samples.is_corrected(found)
    assert fiftyone_samples.is_corrected(found | change)
    place = {"label": "dog", "category_id": 2, "bbox": (20.0, 10.0, 100.0, 50.0), "box_uid": "0123456789abcdef"}
    assert fiftyone_samples.decided_box(found | change, SIZE, CATEGORIES) == DecidedBox(
        **place | expected, source="person"
    )


def test_the_last_bit_of_a_corner_is_no_correction():
    [found] = fiftyone_samples.detections(ROW, NAMES)
    assert not fiftyone_samples.is_corrected(found | {"bounding_box": [0.1 + 1e-7, 0.1, 0.5, 0.5]})
    assert fiftyone_samples.is_corrected(found | {"bounding_box": [0.1 + 1e-4, 0.1, 0.5, 0.5]})


def test_a_box_that_no_decision_can_hold():
    [found] = fiftyone_samples.detections(ROW, NAMES)
    with pytest.raises(ValueError, match=r"labelled 'hat'; expected one of the run's labels: cat, dog"):
        fiftyone_samples.decided_box(found | {"label": "hat"}, SIZE, CATEGORIES)
    with pytest.raises(ValueError, match=r"expected finite numbers and an extent above 0"):
        fiftyone_samples.decided_box(found | {"bounding_box": [1.2, 0.1, 0.5, 0.5]}, SIZE, CATEGORIES)


def test_a_decisions_boxes_come_back():
    drawn = fiftyone_samples.decided_box(fiftyone_samples.detections(ROW, NAMES)[0], SIZE, CATEGORIES)
    mine = DecidedBox("cat", 1, (0, 0, 50, 100))
    decision = Decision("a.jpg", 1, "accepted", boxes=(drawn, mine))
    again = fiftyone_samples.decided_detections(decision, SIZE)
    assert [box["bounding_box"] for box in again] == [[0.1, 0.1, 0.5, 0.5], [0.0, 0.0, 0.25, 1.0]]
    assert [fiftyone_samples.is_corrected(box) for box in again] == [False, True]
    assert tuple(fiftyone_samples.decided_box(box, SIZE, CATEGORIES) for box in again) == decision.boxes


def test_heat_maps_are_fused_by_each_points_maximum():
    def heat_map(*maps):
        own = {"rectangle": [0, 0, 80, 40]}
        entries = [StoredMap(np.uint8(cells), 0.0, 1.0).entry() | own for cells in maps]
        quarter = StoredMap(np.uint8([[255]]), 0.0, 1.0).entry() | {"rectangle": [0, 0, 48, 24]}
        return fiftyone_samples.heat_map({"width": 80, "height": 40, "maps": [*entries, quarter]})

    found = heat_map([[200, 0]], [[0, 100]])
    assert found.shape == (56, 56)
    # Half-pixel centres: a quarter of the way in is the first cell's centre, and what lies outside of it is constant.
    assert found[0, :14].tolist() == [200] * 14
    assert found[55, 42:].tolist() == [100] * 14
    assert heat_map() is None
    assert heat_map(np.full((60, 70), 9)).shape == (60, 70)


def test_runs_of_the_same_name_have_datasets_of_their_own(tmp_path):
    names = {fiftyone_dataset.dataset_name(str(tmp_path / project / "boxes")) for project in ("one", "two")}
    assert len(names) == 2
    assert all(name.startswith("boxes-") for name in names)
    assert fiftyone_dataset.dataset_name(f"{tmp_path}/one/boxes/") in names


@pytest.fixture
def stored(tmp_path):
    """Photographs of 10, 20, 30 and 40 bytes, the larger the more worth reviewing, and a file that was rejected."""
    rows = []
    for number in range(1, 5):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(10 * number))
        digest = hashlib.sha256(bytes(10 * number)).hexdigest()
        row = {"path": f"{number}.jpg", "digest": digest, "status": "ok", "review": {"priority": float(number)}}
        rows.append(row)
    rows.append({"path": "broken.jpg", "digest": None, "status": "rejected", "review": None})
    root = str(tmp_path)
    return SimpleNamespace(root=root, output=f"{root}/run", location=lambda path: f"{root}/{path}"), rows


def test_photographs_of_a_store_are_fetched_once(stored, tmp_path):
    planned, rows = stored
    found, left = local_photographs.fetched(planned, rows, tmp_path / "cache", 1000)
    assert left == 0
    assert {path: len(Path(place).read_bytes()) for path, place in found.items() if path != "broken.jpg"} == {
        "1.jpg": 10, "2.jpg": 20, "3.jpg": 30, "4.jpg": 40,
    }  # fmt: skip
    (tmp_path / "4.jpg").unlink()  # a second call does not ask for it
    assert local_photographs.fetched(planned, rows, tmp_path / "cache", 1000) == (found, 0)


def test_past_the_limit_those_less_worth_reviewing_are_left_out(stored, tmp_path):
    planned, rows = stored
    found, left = local_photographs.fetched(planned, rows, tmp_path / "cache", 99)  # 40 + 30 + 20 bytes, and not 10
    assert (sorted(found), left) == (["2.jpg", "3.jpg", "4.jpg", "broken.jpg"], 1)
    assert _sizes(tmp_path / "cache") == [20, 30, 40]
    found, left = local_photographs.fetched(planned, rows, tmp_path / "cache", 70)  # less than the cache holds
    assert (sorted(found), left) == (["3.jpg", "4.jpg", "broken.jpg"], 2)
    assert _sizes(tmp_path / "cache") == [30, 40]


def _sizes(cache):
    return sorted(file.stat().st_size for file in cache.rglob("*.jpg"))


def test_photographs_are_fetched_from_a_real_s3(stored, s3, tmp_path):
    _, rows = stored
    root = f"{s3}/ä b"
    for row in rows[:4]:
        storage.write_bytes(f"{root}/{row['path']}", (tmp_path / row["path"]).read_bytes())
    planned = SimpleNamespace(root=root, location=lambda path: f"{root}/{path}")
    said = io.StringIO()
    with tqdm(total=5, unit="photograph", file=said, mininterval=0) as bar:
        found, left = local_photographs.fetched(planned, rows, tmp_path / "cache", 95, bar.update)
    assert (sorted(found), left) == (["2.jpg", "3.jpg", "4.jpg", "broken.jpg"], 1)
    assert [Path(found[f"{number}.jpg"]).read_bytes() for number in (2, 3, 4)] == [bytes(20), bytes(30), bytes(40)]
    assert _sizes(tmp_path / "cache") == [20, 30, 40]
    *_, last = said.getvalue().split("\r")
    assert re.search(r"5/5 \[\d\d:\d\d<00:00, +[\d.]+(photograph/s|s/photograph)\]", last)


def test_a_photograph_that_a_store_does_not_give(stored, tmp_path):
    planned, rows = stored
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(OSError, match=r"2\.jpg cannot be fetched .*; put it back, or take it out of the run"):
        local_photographs.fetched(planned, rows, tmp_path / "cache", 1000)


def test_a_photograph_that_is_another_one_by_now(stored, tmp_path):
    planned, rows = stored
    local_photographs.fetched(planned, rows, tmp_path / "cache", 1000)
    (tmp_path / "2.jpg").write_bytes(b"another")
    assert local_photographs.fetched(planned, rows, tmp_path / "cache", 1000)[1] == 0, "the labelled one is there"
    with pytest.raises(
        OSError, match=r"2\.jpg cannot be fetched \(changed: the file is not the one that the run saw\)"
    ):
        local_photographs.fetched(planned, rows, tmp_path / "another cache", 1000)
    with pytest.raises(
        ValueError, match=r"photographs below '.*' that are gone, .*: 1 of 5, .*'2\.jpg' \(changed: the file is"
    ):
        local_photographs.places(planned, rows)
    rows[1]["digest"] = hashlib.sha256(b"another").hexdigest()  # labelled again
    found, _ = local_photographs.fetched(planned, rows, tmp_path / "cache", 1000)
    assert Path(found["2.jpg"]).read_bytes() == b"another"


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("a." + "x" * 300, ""), ("a.jpg\n", ""), ("a." + "../" * 9, ""), ("a.jpg\0.png", ".png"), ("a.\u202egnp", ""),
        ("a.JPG", ".jpg"), ("x" * 300 + ".jpeg", ".jpeg"), ("a.html", ""), ("t.tar!b.tiff", ".tiff"), (".png", ""),
    ],
)  # fmt: skip
def test_a_copys_name_has_nothing_of_a_strangers_but_a_known_ending(path, ending, tmp_path):
    data = b"photograph"
    (tmp_path / "photograph").write_bytes(data)
    planned = SimpleNamespace(root=str(tmp_path), location=lambda path: str(tmp_path / "photograph"))
    row = {"path": path, "digest": hashlib.sha256(data).hexdigest(), "status": "ok", "review": None}
    found, left = local_photographs.fetched(planned, [row], tmp_path / "cache", 1000)
    place = Path(found[path])
    assert (place.read_bytes(), left, place.parent.parent) == (data, 0, tmp_path / "cache")
    assert re.fullmatch(r"[0-9a-f]{32}" + re.escape(ending), place.name)


def test_a_path_outside_the_root_has_a_place_where_nothing_lies(run):
    planned = PlannedRun.load(str(run))
    found = local_photographs.places(planned, [{"path": "../secret.jpg", "digest": None, "status": "rejected"}])
    assert found["../secret.jpg"].startswith(f"{run}/outside_root/")


def test_a_database_that_does_not_answer_is_one_line_in_seconds(run, monkeypatch, capsys):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("FIFTYONE_DATABASE_URI", f"mongodb://127.0.0.1:{port}")
    start = time.monotonic()
    assert cli.main(["review", "--run", str(run), "--no-browser", "--port", str(_free_port())]) == 2
    assert time.monotonic() - start < 20
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("camboxes review: mongod: FIFTYONE_DATABASE_URI names a server that does not answer")
    assert line.endswith("; start it, or unset the variable to use the one that comes with FiftyOne")
    assert "fiftyone" not in sys.modules


def test_a_port_that_is_taken(run, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["review", "--run", str(run), "--port", str(port)]) == 2
    assert f"port {port} is in use; stop the program that uses it, or give another --port" in capsys.readouterr().err


def test_what_cannot_be_reviewed(run, tmp_path, capsys):
    port = str(_free_port())
    assert cli.main(["review", "--run", str(tmp_path), "--port", port]) == 2
    assert "holds no run; expected the --output of camboxes label" in capsys.readouterr().err
    assert cli.main(["review", "--run", str(run), "--threshold", "0.4"]) == 2
    assert "unknown option --threshold 0.4; see camboxes review --help" in capsys.readouterr().err
    with pytest.raises(ValueError, match="holds no run"):
        load_dataset(str(tmp_path))


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
