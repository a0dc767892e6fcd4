import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camboxes.pipeline.training.copies import Copies, Print, _first_alike, print_of


def _print(image, size=224, **how):
    """The print of an image in a file; by default as PNG."""
    file = io.BytesIO()
    image.save(file, **{"format": "PNG"} | how)
    seen = Image.open(file).convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    return print_of(file.getvalue(), np.asarray(seen))


@pytest.fixture(scope="module")
def pictures(photographs):
    """Nine parts of each of five photographs."""
    found = []
    for path in sorted(photographs.glob("*/*")):
        image = Image.open(path).convert("RGB")
        w, h = image.width // 3, image.height // 3
        found += [image.crop((x * w, y * h, x * w + w, y * h + h)) for x in range(3) for y in range(3)]
    return found


def test_pictures_that_were_encoded_or_resized_anew_are_copies(pictures):
    prints = {}
    for number, image in enumerate(pictures):
        half = image.resize((image.width // 2, image.height // 2))
        for name, found in {
            "a": _print(image), "b": _print(image), "jpeg": _print(image, format="JPEG", quality=60),
            "half": _print(half), "both": _print(half, format="JPEG", quality=60), "small": _print(image, size=64),
        }.items():  # fmt: skip
            prints[f"{number:02d}{name}"] = found
    copies = Copies.among(dict.fromkeys(sorted(prints), ("x",)), prints)
    together = [path[:2] == first[:2] for path, first in copies.first.items()]
    assert all(together), "no two pictures are taken for one"
    assert len(copies.pairs) >= 0.98 * 5 * len(pictures)
    assert copies.first["00b"] == "00a" and copies.kind("00b", "00a") == "same bytes"
    assert copies.kind("00jpeg", "00a") == "looks alike"
    assert copies.contradictions == []


def test_pictures_without_contrast_are_no_copies_of_each_other():
    random = np.random.default_rng(0)
    blank = {"white": np.full((64, 64, 3), 255, np.uint8), "grey": np.full((64, 64, 3), 99, np.uint8)}
    blank |= {f"paper{n}": random.integers(250, 253, (64, 64, 3)).astype(np.uint8) for n in range(9)}
    prints = {name: print_of(name.encode(), image) for name, image in blank.items()}
    assert {found.look for found in prints.values()} == {None}
    assert Copies.among(dict.fromkeys(blank, ()), prints).pairs == []
    prints["again"] = prints["white"]
    assert Copies.among(dict.fromkeys([*blank, "again"], ()), prints).pairs == [("again", "white")], (
        "the same bytes are"
    )


def test_what_looks_alike_has_the_same_labels_to_be_a_copy(pictures):
    one, other = _print(pictures[0]), _print(pictures[0], format="JPEG", quality=60)
    labels = {"a": ("cat",), "b": ("dog",), "c": ("cat",), "d": ("dog",)}
    copies = Copies.among(labels, {"a": one, "b": other, "c": other, "d": one})
    # a and c look alike, b and d too; a and d are one file, b and c another.
    assert set(copies.first.values()) == {"a"}
    assert copies.contradictions == [("c", "b"), ("d", "a")]
    assert copies.kind("d", "a") == "same bytes, other labels"
    alone = Copies.among({"a": ("cat",), "b": ("dog",)}, {"a": one, "b": other})
    assert alone.pairs == [] and alone.contradictions == []


@given(st.lists(st.tuples(st.integers(0, 3), st.lists(st.integers(0, 63), max_size=3)), min_size=1, max_size=40))
def test_alike_is_two_bits_at_most_from_one_to_the_next(drawn):
    """Against all pairs: hashes of 32 bits, each some exchanges of bits away from one of four."""
    looks = []
    for seed, exchanged in drawn:
        bits = np.zeros(64, bool)
        bits[np.random.default_rng(seed).permutation(64)[:32]] = True
        for place in exchanged:
            other = (place + 1) % 64
            bits[place], bits[other] = bits[other], bits[place]
        looks.append(int.from_bytes(np.packbits(bits).tobytes(), "big"))
    expected = list(range(len(looks)))
    for _ in looks:  # the lowest number spreads along pairs
        for one, a in enumerate(looks):
            for other, b in enumerate(looks):
                if (a ^ b).bit_count() <= 2:
                    expected[one] = min(expected[one], expected[other])
    assert _first_alike(np.array(looks, np.uint64)).tolist() == expected


def test_a_hundred_thousand_images_take_seconds():
    """In memory and time that grow with their number: all pairs would take hours."""
    random = np.random.default_rng(0)
    looks = [int(look) for look in random.integers(0, 2**63, 50_000)]
    prints = {f"{number:06d}": Print(str(number), look) for number, look in enumerate(looks * 2)}
    copies = Copies.among(dict.fromkeys(prints, ("x",)), prints)
    assert copies.pairs == [(f"{number + 50_000:06d}", f"{number:06d}") for number in range(50_000)]


def test_no_images():
    assert Copies.among({}, {}).pairs == []
