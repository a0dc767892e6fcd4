import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_iterator

from camboxes.transforms.containers import any_format
from camboxes.transforms.containers.members import ContainerError, Member
from camboxes.transforms.sources.class_folders import HIDDEN, IMAGE_SUFFIXES, SYSTEM
from camboxes.transforms.sources.entries import PassedOver


def _tar(path, entries, **options):
    """Writes entries, each a name with its bytes, or a header of its own."""
    with tarfile.open(path, "w", **options) as tar:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                tar.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                tar.addfile(info, io.BytesIO(entry[1]))
    return str(path)


def _header(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def _listed(path):
    """Names and labels, and the names and reasons of what was passed over."""
    return [
        tuple(member)[:2] if isinstance(member, PassedOver) else (member.name, member.labels)
        for member in any_format.members(path)
    ]


def test_labels_of_each_kind(tmp_path):
    with webdataset.ShardWriter(str(tmp_path / "%01d.tar"), verbose=0) as shard:
        shard.write({"__key__": "a", "jpg": b"a", "cls": 7})
        shard.write({"__key__": "b", "jpeg": b"b", "cls": "Egyptian cat\n"})
        shard.write({"__key__": "c", "png": b"c", "json": {"label": "cat", "caption": "on a mat"}})
        shard.write({"__key__": "d", "webp": b"d", "json": {"labels": ["cat", 7, None, "cat"]}, "cls": "7"})
        shard.write({"__key__": "deep/e", "jpg": b"e", "txt": "a caption is no label", "npy": b"neither is this"})
        shard.write({"__key__": "f", "cls": 7})
        shard.write({"__key__": "g", "jpg": b"g", "json": {"label": "\ud800"}})
        shard.write({"__key__": "h", "jpg": b"h", "json": {"labels": []}})
        shard.write({"__key__": "i", "jpg": b"i", "cls": ""})
        shard.write({"__key__": "j", "jpg": b"j", "json": {"caption": "on a mat"}})
    assert _listed(str(tmp_path / "0.tar")) == [
        ("a.jpg", ("7",)),
        ("b.jpeg", ("Egyptian cat",)),
        ("c.png", ("cat",)),
        ("d.webp", ("7", "cat")),
        ("g.jpg", ("\\ud800",)),
        ("h.jpg", ()),
        ("i.jpg", ()),
        ("deep/e.jpg", "its sample has no label"),
        ("f.cls", "its sample has no image"),
        ("j.jpg", "its sample has no label"),
    ]


def test_a_sample_has_one_image_and_labels_on_either_side_of_it(tmp_path):
    path = _tar(tmp_path / "x.tar", [("a.json", b'{"label": 3}'), ("a.JPG", b"1"), ("a.seg.png", b"2"), ("a.png", b"3"),
                                     ("a.cls", b"cat\n\n dog \n"), ("b.jpg", b"4"), ("b.cls", b"cat")])  # fmt: skip
    assert _listed(path) == [
        ("a.JPG", ("3", "cat", "dog")),
        ("a.png", "a further image of its sample"),
        ("a.seg.png", "a further image of its sample"),
        ("b.jpg", ("cat",)),
    ]
    first, second = (member for member in any_format.members(path) if isinstance(member, Member))
    assert list(any_format.images(path, [first, second])) == [b"1", b"4"]
    assert list(any_format.images(path, [second])) == [b"4"]


_NAMES = st.tuples(
    st.sampled_from(["", "a/", "a/b.c/", "d.e/"]), st.sampled_from(["1", "2", "x"]),
    st.sampled_from(["jpg", "png", "cls", "txt", "seg.png", "0.jpg", "jpg.txt"]),
)  # fmt: skip


@given(st.lists(_NAMES, unique=True, max_size=12))
def test_samples_are_those_of_webdataset(tmp_path_factory, names):
    """Where entries of a sample stand together; beyond webdataset's, only images with dots in their names are read."""
    names = [f"{folder}{stem}.{field}" for folder, stem, field in sorted(names, key=lambda name: name[:2])]
    path = _tar(tmp_path_factory.mktemp("tar") / "x.tar", [(name, name.encode()) for name in names])
    expected, with_an_image = [], set()
    with Path(path).open("rb") as file:
        for sample in group_by_keys({**entry, "__url__": path} for entry in tar_file_iterator(file)):
            image = next((sample[field] for field in sample if f".{field}" in IMAGE_SUFFIXES), None)
            with_an_image |= {sample["__key__"]} if image else set()
            if image and "cls" in sample:
                expected.append((image.decode(), (sample["cls"].decode(),)))
    members = [member for member in any_format.members(path) if isinstance(member, Member)]
    plain, dotted = ([m for m in members if m.name.rpartition("/")[2].count(".") == dots] for dots in (1, 2))
    assert [(member.name, member.labels) for member in plain] == expected
    assert not with_an_image & {member.name.rsplit(".", 2)[0] for member in dotted}
    assert list(any_format.images(path, members)) == [member.name.encode() for member in members]


def test_nothing_but_regular_files_counts_and_no_name_leads_outside(tmp_path):
    def labelled(name, image):
        return (name, image), (name.replace(".jpg", ".cls"), b"cat")

    sparse = _header("sparse.jpg", tarfile.GNUTYPE_SPARSE)
    path = _tar(
        tmp_path / "x.tar",
        [
            *labelled("/etc/passwd.jpg", b"1"),
            *labelled("../../outside.jpg", b"2"),
            *labelled("inner.tar/a.jpg", b"3"),
            *labelled("a" * 120 + "/" + "ü" * 120 + ".jpg", b"4"),
            _header("folder.jpg", tarfile.DIRTYPE),
            _header("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            _header("hard.jpg", tarfile.LNKTYPE, "/etc/passwd.jpg"),
            _header("device.jpg", tarfile.CHRTYPE),
            _header("pipe.jpg", tarfile.FIFOTYPE),
            sparse,
            ("README", b"of no sample"),
            ("pair.jpg", b"5"),
            ("._pair.cls", b"what macOS adds"),
            ("pair.cls", b"cat"),
            (".hidden/a.jpg", b"6"),
            ("@eaDir/a.jpg", b"a thumbnail"),
        ],
    )
    assert _listed(path) == [
        ("etc/passwd.jpg", ("cat",)),
        ("_/_/outside.jpg", ("cat",)),
        ("inner.tar_/a.jpg", ("cat",)),
        # The sample's end is known once the next one begins: what stands between comes first.
        *[(name, "belongs to no sample") for name in ("link.jpg", "hard.jpg", "device.jpg", "pipe.jpg", "sparse.jpg")],
        ("README", "belongs to no sample"),
        ("a" * 120 + "/" + "ü" * 120 + ".jpg", ("cat",)),
        ("._pair.cls", HIDDEN),
        (".hidden/a.jpg", HIDDEN),
        ("@eaDir/a.jpg", SYSTEM),
        ("pair.jpg", ("cat",)),
    ]
    members = [member for member in any_format.members(path) if isinstance(member, Member)]
    assert list(any_format.images(path, members)) == [b"1", b"2", b"3", b"4", b"5"]


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_names_that_are_not_utf8_can_be_written_and_found(encoding, tmp_path):
    entries = [("é.jpg", b"1"), ("é.cls", b"cat")]
    path = _tar(tmp_path / "x.tar", entries, format=tarfile.GNU_FORMAT, encoding=encoding)
    name = {"utf-8": "é.jpg", "latin-1": "\\udce9.jpg"}[encoding]
    assert _listed(path) == [(name, ("cat",))]
    assert any_format.image(path, name) == b"1"


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_broken_header_is_no_end(format, tmp_path):
    path = _tar(tmp_path / "x.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("c.jpg", b"3")], format=format)
    listed = [Member(name, (), place) for name, place in (("a.jpg", 0), ("b.jpg", 1024), ("c.jpg", 2048))]
    assert list(any_format.images(path, listed)) == [b"1", b"2", b"3"]
    content = bytearray((tmp_path / "x.tar").read_bytes())
    content[1024 + 5] ^= 1
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(ContainerError, match=r"x\.tar' is broken or cut short at byte 1024: there is no header"):
        _listed(path)
    first, second, third = any_format.images(path, listed)
    assert (first, third) == (b"1", b"3")
    reason = "changed: the container changed since it was planned: it is broken or cut short at byte 1024: there is no"
    assert str(second).startswith(reason)


def test_an_archive_without_an_end(tmp_path):
    path = _tar(tmp_path / "x.tar", [("a.jpg", b"1")])
    content = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:1024])
    with pytest.raises(ContainerError, match="at byte 1024: there is no header"):
        _listed(path)


@pytest.mark.parametrize("size", [-512, -1, 1 << 62])
def test_sizes_that_lie(size, tmp_path):
    info = tarfile.TarInfo("a.jpg")
    info.size = size
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    with pytest.raises(ContainerError, match=r"x\.tar' (is broken or cut short|begins with)"):
        _listed(str(tmp_path / "x.tar"))
    [found] = any_format.images(str(tmp_path / "x.tar"), [Member("a.jpg", (), 0)])
    assert found.code == "changed"


@pytest.mark.parametrize(
    ("mode", "name", "tool"), [("w:gz", "x.tar.gz", "gzip"), ("w:bz2", "x.tar", "bzip2"), ("w:xz", "x.tar", "xz")]
)
def test_compressed_archives_are_refused(mode, name, tool, tmp_path):
    with tarfile.open(tmp_path / name, mode) as tar:
        tar.addfile(_header("a.jpg", tarfile.REGTYPE))
    assert any_format.is_container(str(tmp_path / name))
    with pytest.raises(ContainerError, match=rf"is compressed \({tool}\), .* decompress it"):
        _listed(str(tmp_path / name))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"the label 'a.json' \(byte 1024\), which cannot be understood \(Expecting property name"),
        ("a.json", b'{"label": ' + b"[" * 100_000, r"which cannot be understood \(maximum recursion depth"),
        ("a.json", b"[1]", r"a JSON list; expected an object"),
        ("a.json", b'{"label": {"x": 1}}', r"\(label is {'x': 1}; expected a text, a whole number, or a list"),
        ("a.json", b'{"labels": [0.5]}', r"\(labels is \[0.5\]; expected a text"),
        ("a.cls", b"\xff", r"'utf-8' codec can't decode byte 0xff"),
        ("a.cls", bytes((1 << 24) + 1), r"has 16777217 bytes; a label has at most 16777216"),
    ],
)
def test_labels_that_cannot_be_understood(name, content, message, tmp_path):
    path = _tar(tmp_path / "x.tar", [("a.jpg", b"1"), (name, content)])
    with pytest.raises(ContainerError, match=message):
        _listed(path)


@pytest.mark.parametrize("content", [b"", b"no tar file at all", bytes(512) + b"x"])
def test_files_that_are_no_archives(content, tmp_path):
    (tmp_path / "x.tar").write_bytes(content)
    if content[:512] == bytes(512):
        assert _listed(str(tmp_path / "x.tar")) == []
    else:
        with pytest.raises(ContainerError, match=r"begins with b'.*'; expected a tar file"):
            _listed(str(tmp_path / "x.tar"))


def test_an_archive_without_entries(tmp_path):
    assert _listed(_tar(tmp_path / "x.tar", [])) == []


def test_neither_headers_nor_images_are_held(tmp_path):
    samples = [((f"{i}.jpg", bytes(1 if i else 1 << 24)), (f"{i}.cls", b"cat")) for i in range(3001)]
    path = _tar(tmp_path / "x.tar", [entry for sample in samples for entry in sample])
    tracemalloc.start()
    assert sum(1 for _ in any_format.members(path)) == 3001
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
