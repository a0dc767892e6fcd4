import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.pipeline.detection_data.selection import Selection


def _split(share, seed, digest, path="a.jpg", folders=None):
    return Selection(share, seed, 0, folders=folders or {}).split({"digest": digest, "path": path})


def test_a_split_depends_on_seed_and_content_alone():
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(20_000)]
    splits = {digest: _split(0.2, 0, digest) for digest in digests}
    assert splits == {digest: _split(0.2, 0, digest, f"{digest[:9]}.png") for digest in digests}, "whatever their names"
    assert list(splits.values()).count("val") / len(digests) == pytest.approx(0.2, abs=0.01)
    more = {digest: _split(0.3, 0, digest) for digest in digests}
    assert all(more[digest] == "val" for digest in digests if splits[digest] == "val"), "a larger share only adds"
    other = [_split(0.2, 1, digest) for digest in digests]
    assert sum(a == b == "val" for a, b in zip(splits.values(), other, strict=True)) / len(digests) == pytest.approx(
        0.04, abs=0.01
    ), "seeds are independent"
    assert {_split(0, 0, digest) for digest in digests} == {"train"}
    # printf '0:a.jpg' | sha256sum begins with 2d1a, which is 0.1761 of the way; '1:a.jpg' with 0b1e, 0.0434
    assert [_split(share, 0, "a.jpg") for share in (0.176, 0.177)] == ["train", "val"]
    assert [_split(share, 1, "a.jpg") for share in (0.043, 0.044)] == ["train", "val"]


@given(st.text("0123456789abcdef", min_size=64, max_size=64), st.sampled_from(["train", "val", "test"]))
def test_a_split_by_folders_is_kept(digest, folder):
    by_content, path = _split(0.5, 0, digest), f"{folder}/cat/a.jpg"
    assert _split(0.5, 0, digest, path, {"train": "train", "val": "val", "test": "test"}) == folder
    assert _split(0.5, 0, digest, path, {"val": "val", "test": "test"}) == by_content, "without train it is no split"
    if folder != "val":  # without val, a part of train is held out
        assert _split(0.5, 0, digest, path, {"train": "train", "test": "test"}) == (
            "test" if folder == "test" else by_content
        )
