import hashlib
import random

from camboxes.pipeline import sampling

NAMES = [f"folder/{number}.jpg" for number in range(1000)]


def _hexadecimal(name):
    return hashlib.sha256(name.encode()).hexdigest()


def test_the_first_by_their_hashes_in_any_order():
    expected = sorted(NAMES, key=_hexadecimal)[:10]
    for order in (NAMES, random.Random(0).sample(NAMES, len(NAMES))):
        assert sampling.first(iter(order), 10, str) == expected


def test_a_seed_stands_before_the_name():
    assert sampling.first(NAMES, 3, str, 7) == sorted(NAMES, key=lambda name: _hexadecimal(f"7:{name}"))[:3]


def test_there_may_be_fewer_items_than_wanted_and_items_may_have_names():
    rows = [{"path": name} for name in NAMES[:2]]
    assert sampling.first(rows, 5, lambda row: row["path"]) == sorted(rows, key=lambda row: _hexadecimal(row["path"]))


def test_a_share_of_names():
    chosen = {name for name in NAMES if sampling.in_share(name, 0.2, 0)}
    assert chosen == {name for name in NAMES if int(_hexadecimal(f"0:{name}")[:16], 16) / 2**64 < 0.2}
    assert 150 < len(chosen) < 250
    assert not any(sampling.in_share(name, 0, 0) for name in NAMES)
    assert all(sampling.in_share(name, 1, 0) for name in NAMES)
