"""Some 700 broken and odd image files, each read and decoded as a job does it, by one process that must survive."""

import collections
import json
import os
import subprocess
import sys

import pytest

CODES = {"empty", "not_an_image", "truncated", "too_large", "unreadable", "unsupported", "unclear_range"}
MOST_PIXELS, MOST_GROWTH = 2_000_000, 64 * 2**20

READER = """
import hashlib, json, resource, sys
from pathlib import Path

from camboxes.transforms.contents.image_files import locate, read_image
from camboxes.transforms.images.decoding import BadImageError, Limits, decode_at_least
from camboxes.transforms.inference.image_loading import decode_jpeg

root, most = sys.argv[1], int(sys.argv[2])

def outcome(name):
    try:
        photograph = decode_at_least(read_image(locate(root, name)), 64, decode_jpeg, Limits(max_pixels=most))
    except BadImageError as error:
        return {"code": error.code, "reason": str(error)}
    pixels = photograph.pixels
    return {
        "size": [photograph.width, photograph.height], "shape": pixels.shape, "dtype": str(pixels.dtype),
        "digest": hashlib.sha256(pixels.tobytes()).hexdigest(),
    }

names = sorted(path.name for path in Path(root).iterdir())
outcome("odd-rgb.png"), outcome("odd-baseline.jpg")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
outcomes = {name: [outcome(name), outcome(name)] for name in names}
growth = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
print(json.dumps({"outcomes": outcomes, "growth": growth}))
"""


@pytest.fixture(scope="module")
def read(hostile_images):
    """What became of each file, twice, and by how many bytes the process grew."""
    call = [sys.executable, "-c", READER, str(hostile_images), str(MOST_PIXELS)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    reader = subprocess.run(call, check=False, capture_output=True, text=True, timeout=300, env=one_thread)
    assert reader.returncode == 0, f"a file ended the process: {reader.returncode}\n{reader.stderr[-2000:]}"
    return json.loads(reader.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def outcomes(read):
    return {name: first for name, (first, _) in read["outcomes"].items()}


def test_every_file_is_an_image_or_has_a_reason(outcomes, hostile_images):
    assert len(outcomes) == len(list(hostile_images.iterdir())) >= 500
    for name, outcome in outcomes.items():
        if "code" in outcome:
            assert outcome["code"] in CODES, name
            assert outcome["reason"].startswith(f"{outcome['code']}: ") and len(outcome["reason"]) < 300, name
            continue
        (width, height), (rows, columns, channels) = outcome["size"], outcome["shape"]
        assert (channels, outcome["dtype"]) == (3, "uint8"), name
        assert 0 < width * height <= MOST_PIXELS, name
        assert (rows, columns) in {(-(-height // part), -(-width // part)) for part in (1, 2, 4, 8)}, name


def test_each_kind_ends_as_it_should(outcomes):
    found = collections.defaultdict(collections.Counter)
    for name, outcome in outcomes.items():
        found[name.partition("-")[0].rstrip(".0123456789")][outcome.get("code", "decoded")] += 1
    assert set(found) == {"cut", "flipped", "header", "zeroed", "grown", "size", "disguise", "odd", "dark"}
    assert set(found["odd"]) == {"decoded"}, "they are valid"
    assert set(found["dark"]) == {"unclear_range"}, "they would be black"
    assert "decoded" not in found["disguise"], "they are no images"
    starts = {name for name in outcomes if name.startswith("disguise-") and name.endswith("-start.jpg")}
    assert {name: outcomes[name]["code"] for name in starts} == dict.fromkeys(starts, "unreadable") and len(starts) == 7
    assert found["disguise"] == {"not_an_image": 19, "empty": 1, "unreadable": 7}
    for kind in ("cut", "flipped", "header", "zeroed", "grown"):
        assert found[kind]["decoded"] and len(found[kind]) >= 3, f"{kind}: {found[kind]}"
    for side in (11000, 60000, 65535):
        codes = {name: outcomes[name].get("code") for name in outcomes if name.startswith(f"size-{side}x{side}.")}
        assert len(codes) == 6 and set(codes.values()) == {"too_large"}, codes


def test_reasons_and_pixels_are_the_same_every_time(read):
    """No address, no machine's path, nothing that was in memory before: shards are promised to be byte-equal."""
    assert {name for name, (first, second) in read["outcomes"].items() if first != second} == set()


def test_memory_stays_bounded(read):
    """By what the limit of pixels allows for: the files claim up to 17 billion."""
    assert read["growth"] <= MOST_GROWTH, read["growth"]
