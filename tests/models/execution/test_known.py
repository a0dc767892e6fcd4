import json

import pytest

from camboxes.models.execution import known

QUESTION = {"processor": ["x86_64", "flags: avx2"], "scales": [224, 448]}
TIMES = {"fp32": 310.5, "fp32, fused": 130.25}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_was_measured_is_known_to_the_same_question_alone(cache):
    assert known.folder() == cache / "camboxes" / "execution"
    assert known.recall(QUESTION) == {} and known.answers() == []
    known.remember(QUESTION, TIMES)
    assert list(known.recall(dict(reversed(QUESTION.items()))).items()) == list(TIMES.items())  # in their order
    assert known.answers() == [TIMES]
    for other in (QUESTION | {"scales": [224]}, QUESTION | {"processor": ["x86_64", "flags: avx512"]}):
        assert known.recall(other) == {}
    [file] = known.folder().iterdir()
    assert json.loads(file.read_text())["question"] == QUESTION


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b'{"milliseconds": {}}',
        b'{"milliseconds": [1]}',
        b'{"milliseconds": {"fp32": "soon"}}',
        b'{"milliseconds": {"fp32": null}}',
        b'{"milliseconds": {"fp32": NaN}}',
        b'{"milliseconds": {"fp32": 0}}',
        b'{"milliseconds": {"fp32": -1}}',
        b'{"milliseconds": {"fp32": 1e999}}',
        b"[" * 100_000,
    ],
    ids=lambda content: content[:40].decode("latin-1"),
)
def test_what_cannot_be_read_is_not_known_and_is_replaced(content):
    known.remember(QUESTION, TIMES)
    [file] = known.folder().iterdir()
    file.write_bytes(content)
    assert known.recall(QUESTION) == {} and known.answers() == []
    known.remember(QUESTION, TIMES)
    assert known.recall(QUESTION) == TIMES and [*known.folder().iterdir()] == [file]


def test_a_cache_that_cannot_be_written_to_is_left_alone(cache):
    cache.write_text("no folder")
    known.remember(QUESTION, TIMES)
    assert known.recall(QUESTION) == {} and known.answers() == []
    assert cache.read_text() == "no folder"


def test_a_folder_in_the_place_of_a_file_is_no_answer():
    known.remember(QUESTION, TIMES)
    [file] = known.folder().iterdir()
    file.unlink()
    (file / "in it").mkdir(parents=True)
    known.remember(QUESTION, TIMES)
    assert known.recall(QUESTION) == {}
    assert [*known.folder().iterdir()] == [file] and [*file.iterdir()] == [file / "in it"]
