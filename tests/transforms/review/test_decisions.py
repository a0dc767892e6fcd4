import dataclasses
import json
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camboxes.transforms.review.decisions import (
    FILE,
    DecidedBox,
    Decision,
    append_decision,
    carry_decisions,
    check_carried,
    read_decisions,
)

TIME = "2026-11-22T10:00:00Z"
MACHINES = DecidedBox("cat", 1, (1, 2, 3.5, 4), "machine", "00ff", 0.81, None, 0.25, "cam", 1, 0.125)
PERSONS = DecidedBox("dog", 2, (5, 6, 7, 8.25))


def _decision(path="a.jpg", verdict="accepted", boxes=(MACHINES, PERSONS)):
    return Decision(path, 7, verdict, TIME, boxes)


def test_a_line_by_hand(tmp_path):
    append_decision(str(tmp_path), _decision("写真/猫 ñ.jpg"))
    assert (tmp_path / FILE).read_bytes().decode() == (
        '{"path": "写真/猫 ñ.jpg", "image_id": 7, "verdict": "accepted", "time": "2026-11-22T10:00:00Z", "boxes": ['
        '{"label": "cat", "category_id": 1, "bbox": [1.0, 2.0, 3.5, 4.0], "source": "machine", "box_uid": "00ff", '
        '"score": 0.81, "calibrated_score": null, "threshold": 0.25, "method": "cam", "rank": 1, "component_area": '
        "0.125}, "
        '{"label": "dog", "category_id": 2, "bbox": [5.0, 6.0, 7.0, 8.25], "source": "person", "box_uid": null, '
        '"score": null, "calibrated_score": null, "threshold": null, "method": null, "rank": null, '
        '"component_area": null}]}\n'
    )
    assert read_decisions(str(tmp_path)) == {"写真/猫 ñ.jpg": _decision("写真/猫 ñ.jpg")}


def test_without_a_file_nothing_is_decided(tmp_path):
    assert read_decisions(str(tmp_path)) == {}
    assert read_decisions(str(tmp_path / "nowhere")) == {}
    check_carried(str(tmp_path), str(tmp_path / "other"))
    carry_decisions(str(tmp_path), str(tmp_path / "other"))
    assert list(tmp_path.iterdir()) == []


def test_the_last_that_stands_counts_and_comes_last(tmp_path):
    for path, verdict in [
        ("a", "accepted"),
        ("b", "rejected"),
        ("a", "rejected"),
        ("c", "undone"),  # nothing to take back
        ("c", "skipped"),
        ("a", "undone"),
        ("b", "accepted"),
        ("b", "undone"),
        ("b", "undone"),
        ("b", "accepted"),
        ("d", "accepted"),
        ("d", "undone"),
    ]:
        append_decision(str(tmp_path), _decision(path, verdict))
    standing = {path: decision.verdict for path, decision in read_decisions(str(tmp_path)).items()}
    assert list(standing.items()) == [("a", "accepted"), ("c", "skipped"), ("b", "accepted")]


_NUMBERS = st.floats(0, 1e5)
_EXTENTS = st.floats(0.01, 1e5)
_BBOXES = st.tuples(_NUMBERS, _NUMBERS, _EXTENTS, _EXTENTS)
_LABELS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
_BOXES = st.one_of(
    st.builds(
        DecidedBox,
        _LABELS,
        st.integers(1, 9),
        _BBOXES,
        st.just("machine"),
        _LABELS,
        _NUMBERS,
        st.none() | _NUMBERS,
        _NUMBERS,
        _LABELS,
        st.integers(1, 9),
        _NUMBERS,
    ),
    st.builds(DecidedBox, _LABELS, st.integers(1, 9), _BBOXES, st.just("person"), st.none() | _LABELS),
)
_DECISIONS = st.builds(
    Decision,
    st.sampled_from(["a", "b/ü\n.jpg"]),
    st.integers(1, 9),
    st.sampled_from(["accepted", "rejected", "skipped", "undone", "undone"]),
    st.just(TIME),
    st.lists(_BOXES, max_size=2).map(tuple),
)
_TORN = st.floats(0, 1, exclude_max=True)  # how much of a next line a killed process wrote
_UNENDED = st.just("the last line's newline is lost")


@settings(max_examples=200, deadline=None)
@given(st.lists(_DECISIONS | _TORN | _UNENDED, max_size=12))
def test_what_was_decided_is_read_back(steps):
    with tempfile.TemporaryDirectory() as run:
        file, stood = Path(run, FILE), {"a": [], "b/ü\n.jpg": []}
        for step in steps:
            if isinstance(step, Decision):
                append_decision(run, step)
                if step.verdict != "undone":
                    stood[step.path].append(step)
                else:
                    stood[step.path] = stood[step.path][:-1]
            elif isinstance(step, float):
                line = json.dumps(_decision("a").as_json(), ensure_ascii=False).encode()
                before = file.read_bytes() if file.exists() else b""
                if before == b"" or before.endswith(b"\n"):
                    file.write_bytes(before + line[: int(step * len(line))])
            elif file.exists():
                file.write_bytes(file.read_bytes().removesuffix(b"\n"))
            assert read_decisions(run) == {path: of_path[-1] for path, of_path in stood.items() if of_path}


@pytest.mark.parametrize("cut", [1, 20, -1])
def test_a_torn_line_goes_and_nothing_else(tmp_path, cut):
    append_decision(str(tmp_path), _decision("a"))
    whole = (tmp_path / FILE).read_bytes()
    append_decision(str(tmp_path), _decision("ü"))
    both = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + both[len(whole) : -1][:cut])
    assert list(read_decisions(str(tmp_path))) == ["a"]
    append_decision(str(tmp_path), _decision("ü"))
    assert (tmp_path / FILE).read_bytes() == both


def test_a_zeroed_tail_is_torn_too(tmp_path):
    append_decision(str(tmp_path), _decision("a"))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + bytes(100))  # as some filesystems leave it when the power fails
    assert list(read_decisions(str(tmp_path))) == ["a"]
    append_decision(str(tmp_path), _decision("b"))
    assert (tmp_path / FILE).read_bytes().startswith(whole + b'{"path": "b"')


def test_writers_do_not_tear_each_others_lines(tmp_path):
    long = (MACHINES,) * 1000  # some 200 kB: other writers see a part of such a line while it is being written

    def append(number):
        append_decision(str(tmp_path), _decision(str(number), boxes=long))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(append, range(40)))
    assert read_decisions(str(tmp_path)).keys() == {str(number) for number in range(40)}


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    append_decision(str(tmp_path), _decision("a"))
    write = os.write
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", lambda file, data: write(file, data[:30]))
        with pytest.raises(OSError, match="got only a part of a decision"):
            append_decision(str(tmp_path), _decision("b"))
    assert list(read_decisions(str(tmp_path))) == ["a"]


@pytest.mark.parametrize(
    "line", ["", "[]", "7", '{"path": "a"}', '{"path": "a", "verdict": "perhaps"}', "\udcff", '{"path": "a'],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path, line):
    for path in "ab":
        append_decision(str(tmp_path), _decision(path))
    first, second = (tmp_path / FILE).read_bytes().splitlines()
    (tmp_path / FILE).write_bytes(b"\n".join([first, line.encode(errors="surrogateescape"), second, b""]))
    expected = re.escape(f"{str(tmp_path / FILE)!r}, line 2 is no decision (")
    with pytest.raises(ValueError, match=f"{expected}.*; correct the line, or delete it"):
        read_decisions(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": (1, 2, 0, 4)}, "the box of 'cat' is x 1, y 2, 0 x 4 pixels"),
        ({"bbox": (1, 2, 3, float("nan"))}, "expected finite numbers and an extent above 0"),
        ({"source": "robot"}, "source is 'robot'; expected 'machine' or 'person'"),
        ({"score": None, "rank": None}, "a machine's box of 'cat' has no score, rank; expected a value"),
        ({"source": "person"}, "a person's box of 'cat' has score, threshold, method, rank, component_area"),
    ],
)
def test_boxes_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(MACHINES, **change)


def test_decisions_that_cannot_be():
    with pytest.raises(ValueError, match="verdict is 'perhaps'; expected one of accepted, rejected, skipped, undone"):
        _decision(verdict="perhaps")
    with pytest.raises(ValueError, match="yesterday"):
        Decision("a", 1, "accepted", "yesterday")
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", Decision("a", 1, "accepted").time)


def test_nothing_is_added_on_a_store():
    with pytest.raises(ValueError, match=r"'gs://b/run' is on a store, .* review a local copy of it"):
        append_decision("gs://b/run", _decision())


def test_carrying_over_loses_nothing(tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    Path(one).mkdir()
    Path(two).mkdir()
    for path in "ab":
        append_decision(one, _decision(path))
    check_carried(one, two)
    carry_decisions(one, two)
    append_decision(one, _decision("b", "undone"))
    check_carried(one, two)  # which holds an earlier state of the same decisions
    carry_decisions(one, two)
    assert Path(one, FILE).read_bytes() == Path(two, FILE).read_bytes()
    assert list(read_decisions(two)) == ["a"]
    append_decision(two, _decision("c"))
    with pytest.raises(ValueError, match=r"two/review.jsonl' holds decisions that '.*one/review.jsonl' does not"):
        check_carried(one, two)
