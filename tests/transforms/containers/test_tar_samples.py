import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camboxes.transforms.containers import any_format
from camboxes.transforms.containers.members import Member
from camboxes.transforms.sources.entries import PassedOver


def _tar(path, entries):
    with tarfile.open(path, "w") as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def _read(path):
    """Labels and content of each image by its name, and the reason of each name that was passed over."""
    items = list(any_format.members(path))
    members = [item for item in items if isinstance(item, Member)]
    contents = any_format.images(path, members)
    found = {member.name: (*member.labels, image) for member, image in zip(members, contents, strict=True)}
    assert len(found) == len(members), "names are unique"
    return found, [tuple(item)[:2] for item in items if isinstance(item, PassedOver)]


@pytest.mark.parametrize(
    ("entries", "found", "passed_over"),
    [
        pytest.param(
            [("a.jpg", b"A"), ("b.jpg", b"B"), ("b.cls", b"dog"), ("a.cls", b"cat")],
            {"a.jpg": ("cat", b"A"), "b.jpg": ("dog", b"B")},
            [],
            id="all images, then all labels",
        ),
        pytest.param(
            [("a.cls", b"cat"), ("b.cls", b"dog"), ("b.jpg", b"B"), ("c.jpg", b"C"), ("a.jpg", b"A")],
            {"a.jpg": ("cat", b"A"), "b.jpg": ("dog", b"B")},
            [("c.jpg", "its sample has no label")],
            id="all labels, then all images",
        ),
        pytest.param(
            [("IMG_2024.05.11.jpg", b"A"), ("IMG_2024.05.11.cls", b"cat"), ("IMG_2024.05.12.jpg", b"B"),
             ("IMG_2024.05.12.cls", b"dog"), ("IMG_2024.05.13.jpg", b"C")],
            {"IMG_2024.05.11.jpg": ("cat", b"A"), "IMG_2024.05.12.jpg": ("dog", b"B")},
            [("IMG_2024.05.13.jpg", "its sample has no label")],
            id="dots in names",
        ),
        pytest.param(
            [("a.1.jpg", b"A"), ("a.2.jpg", b"B"), ("a.2.json", b'{"label": "dog"}'), ("a.1.cls", b"cat")],
            {"a.1.jpg": ("cat", b"A"), "a.2.jpg": ("dog", b"B")},
            [],
            id="dots in names, and torn apart",
        ),
        pytest.param(
            [("a.rgb.png", b"A"), ("a.cls", b"cat")], {"a.rgb.png": ("cat", b"A")}, [], id="the only image of its key"
        ),
        pytest.param(
            [("a.left.jpg", b"A"), ("a.right.jpg", b"B"), ("a.cls", b"cat")],
            {},
            [("a.left.jpg", "one of several images that share a label"),
             ("a.right.jpg", "one of several images that share a label")],
            id="several images of a key",
        ),
        pytest.param(
            [("a.seg.png", b"M"), ("b.seg.png", b"N"), ("a.jpg", b"A"), ("a.cls", b"cat"), ("b.jpg", b"B"),
             ("b.cls", b"dog")],
            {"a.jpg": ("cat", b"A"), "b.jpg": ("dog", b"B")},
            [("a.seg.png", "a further image of its sample"), ("b.seg.png", "a further image of its sample")],
            id="masks are no images of their own, wherever they stand",
        ),
        pytest.param(
            [("a.jpg", b"A"), ("a.cls", b"cat"), ("b.jpg", b"B"), ("b.cls", b"dog"), ("a.jpg", b"C"),
             ("a.cls", b"eel")],
            {"a.jpg": ("cat", b"A"), "b.jpg": ("dog", b"B")},
            [("a.jpg", "repeats the key of a sample before it")],
            id="a key comes again",
        ),
        pytest.param(
            [("a.cls", b"cat"), ("a.jpg", b"A"), ("a.cls", b"eel"), ("a.jpg", b"C")],
            {"a.jpg": ("cat", b"A")},
            [("a.jpg", "repeats the key of a sample before it")],
            id="a key comes again at once",
        ),
        pytest.param(
            [("a.jpg", b"A"), ("b.jpg", b"B"), ("b.cls", b"dog"), ("a.jpg", b"C"), ("a.cls", b"eel")],
            {"a.jpg": ("eel", b"C"), "b.jpg": ("dog", b"B")},
            [("a.jpg", "repeats the key of a sample before it")],
            id="the label is that of the image beside it",
        ),
        pytest.param(
            [("a.jpg", b"A"), ("b.jpg", b"B"), ("a.jpg", b"C"), ("b.cls", b"dog"), ("a.cls", b"cat")],
            {"b.jpg": ("dog", b"B")},
            [("a.jpg", "separated from its labels, and its name repeats")] * 2 + [("a.cls", "its sample has no image")],
            id="which image a label is for is not to be known",
        ),
        pytest.param(
            [("a.jpg", b"A"), ("a.cls", b"cat"), ("b.cls", b"dog"), ("a.json", b'{"label": "eel"}')],
            {"a.jpg": ("cat", b"A")},
            [("b.cls", "its sample has no image"),
             ("a.json", "a label apart from its sample, which has others beside its image")],
            id="labels without an image",
        ),
        pytest.param(
            [("a.jpg", b"A"), ("a.cls", b""), ("b.jpg", b"B"), ("b.txt", b"a cat"), ("c.txt", b"a dog")],
            {"a.jpg": (b"A",)},
            [("c.txt", "neither an image nor a label"), ("b.jpg", "its sample has no label")],
            id="none of the labels, and none given",
        ),
    ],
)  # fmt: skip
def test_what_belongs_together(entries, found, passed_over, tmp_path):
    assert _read(_tar(tmp_path / "x.tar", entries)) == (found, passed_over)


def _sample(key, image, label, mask):
    """Its entries, and what is to be read of them."""
    entries = [(f"{key}.{image}", f"{key}.{image}".encode())] if image else []
    entries += (
        [(f"{key}.{label}", b'{"label": "%s"}' % key.encode() if label == "json" else key.encode())] if label else []
    )
    entries += [(f"{key}.{mask}", f"{key}.{mask}".encode())] if mask else []
    found = {f"{key}.{image}": (key, f"{key}.{image}".encode())} if image and label else {}
    if mask and label and not image:
        found = {f"{key}.{mask}": (key, f"{key}.{mask}".encode())}
    return entries, found


_SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "f.1/a", "f.1/b"]),
        st.sampled_from(["jpg", "PNG", None]),
        st.sampled_from(["cls", "json", None]),
        st.sampled_from(["seg.png", None]),
    ),
    unique_by=lambda sample: sample[0],
)


@given(samples=_SAMPLES, data=st.data())
def test_the_order_of_entries_makes_no_difference(samples, data, tmp_path_factory):
    entries, expected = [], {}
    for sample in samples:
        of_sample, found = _sample(*sample)
        entries += of_sample
        expected |= found
    path = _tar(tmp_path_factory.mktemp("tar") / "x.tar", data.draw(st.permutations(entries)))
    found, passed_over = _read(path)
    assert found == expected
    assert not {name for name, _ in passed_over} & expected.keys()
    images = {name for name, content in entries if content == name.encode()}
    assert images - expected.keys() <= {name for name, _ in passed_over}, "none is lost without a reason"


@given(entries=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["jpg", "cls"]))))
def test_no_image_has_the_label_of_another(entries, tmp_path_factory):
    """Names repeat in any order: a label is that of the image beside it, or of the only one of its name."""
    entries = [(f"{key}.{field}", f"{number}".encode()) for number, (key, field) in enumerate(entries)]
    found, _ = _read(_tar(tmp_path_factory.mktemp("tar") / "x.tar", entries))
    names = [name for name, _ in entries]
    for name, (label, content) in found.items():
        place, of_label = int(content), int(label)
        assert names[place] == name
        assert names[of_label] == name.replace(".jpg", ".cls")
        assert abs(place - of_label) == 1 or (names.count(name), names.count(names[of_label])) == (1, 1)
