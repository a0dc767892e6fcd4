import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.transforms import Plan, PlannedRun
from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.entries import PassedOver
from camboxes.transforms.sources.passed_over import REST, Count, Tally, ending_of


def _tally(items):
    tally = Tally()
    for item in items:
        tally.add(item)
    return tally


_ITEMS = st.lists(
    st.builds(
        PassedOver,
        st.integers(0, 200).map(lambda number: f"dog/{number % 7}.e{number}"),
        st.sampled_from(["no image", "hidden"]),
        st.sampled_from([None, "dog", "cat"]),
    ),
    max_size=300,
)


@given(_ITEMS, st.data())
def test_the_counts_of_parts_are_those_of_the_whole(items, data):
    """However the input is cut and whatever comes first; with more endings than are kept, too."""
    order = data.draw(st.permutations(items))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(items)), max_size=3)))
    parts = [order[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(items)], strict=True)]
    whole = _tally(items)
    assert Tally.total(map(_tally, parts)) == whole
    assert whole.files == len(items)
    assert all(len(endings) <= 51 for endings in whole.kinds.values())
    assert Tally.from_json(json.loads(json.dumps(whole.to_json()))) == whole


def test_kinds_by_reason_and_ending():
    tally = _tally([
        PassedOver("dog/b.HEIC", "no image", "dog"), PassedOver("dog/a.heic", "no image", "dog"),
        PassedOver("dog/README", "no image", "dog"), PassedOver("loose.jpg", "in no folder"),
    ])  # fmt: skip
    assert tally.kinds == {
        "no image": {".heic": Count(2, "dog/a.heic"), "": Count(1, "dog/README")},
        "in no folder": {".jpg": Count(1, "loose.jpg")},
    }
    assert tally.labels == {"dog": Count(3, "dog/README")}
    assert tally.without({"dog"}).labels == {}
    many = _tally(PassedOver(f"a.{number:03d}", "no image") for number in range(80))
    assert many.kinds["no image"][REST] == Count(30, "a.050")


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.JPG", ".jpg"),
        ("a.tar.gz", ".gz"),
        ("a", ""),
        (".hidden", ""),
        ("a.b/c", ""),
        ("a. x", ""),
        ("a." + "x" * 99, ""),
    ],
)
def test_endings(name, ending):
    assert ending_of(name) == ending


def test_a_plan_holds_what_was_passed_over(tmp_path):
    """A class folder with nothing but HEIC photographs is told apart from one that has some other files, too."""
    for name in ("cat/a.jpg", "cat/notes.txt", "dog/b.heic", "dog/c.heic", "loose.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    Plan(str(tmp_path / "out"), [("cat",)]).make(read_source(str(tmp_path / "data")))
    found = PlannedRun.load(str(tmp_path / "out")).passed_over
    assert found.labels == {"dog": Count(2, "dog/b.heic")}
    assert found.kinds["no image by its name"] == {".heic": Count(2, "dog/b.heic"), ".txt": Count(1, "cat/notes.txt")}
    assert found.kinds["lies in no class folder"] == {".jpg": Count(1, "loose.jpg")}


def test_a_plan_that_holds_a_mere_number(tmp_path):
    (tmp_path / "data" / "cat").mkdir(parents=True)
    (tmp_path / "data" / "cat" / "a.jpg").touch()
    Plan(str(tmp_path / "out"), [("cat",)]).make(str(tmp_path / "data"))
    file = tmp_path / "out" / "plan" / "plan.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"passed_over": 7}))
    assert PlannedRun.load(str(tmp_path / "out")).passed_over.files == 7
