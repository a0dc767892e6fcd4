import os
import socket

import pytest

from camboxes.transforms.contents.image_files import locate, read_image
from camboxes.transforms.images.decoding import BadImageError, Limits
from camboxes.transforms.planning.listing import read_source


def test_what_lies_below_the_root_is_read(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "..a.png").write_bytes(b"bytes")
    assert locate(str(tmp_path), "cat/..a.png") == f"{tmp_path}/cat/..a.png"
    assert read_image(locate(str(tmp_path), "cat/..a.png")) == b"bytes"


@pytest.mark.parametrize("path", ["/etc/passwd", "../a.png", "..", "gs://bucket/a.png"])
def test_what_lies_outside_is_not(tmp_path, path):
    (tmp_path / "a.png").write_bytes(b"bytes")
    (tmp_path / "root").mkdir()
    assert locate(str(tmp_path / "root"), path) is None
    with pytest.raises(
        BadImageError, match="outside_root: the path, or a link on it, leads outside the input"
    ) as caught:
        read_image(locate(str(tmp_path / "root"), path))
    assert caught.value.code == "outside_root"


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(BadImageError, match=r"^missing: there is no file at this path$"):
        read_image(str(tmp_path / "a.png"))
    with pytest.raises(BadImageError, match=r"^unreadable: a folder stands at this path; expected a file$"):
        read_image(str(tmp_path))


def test_links_are_followed_within_the_root_alone(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "cat", outside):
        folder.mkdir(parents=True)
    (root / "cat" / "a.png").write_bytes(b"inside")
    (outside / "a.png").write_bytes(b"outside")
    (root / "inside.png").symlink_to("cat/a.png")
    (root / "linked").symlink_to("cat")
    (root / "outside.png").symlink_to(outside / "a.png")
    (root / "elsewhere").symlink_to(outside)
    (root / "chain.png").symlink_to("elsewhere/a.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "loop.png").symlink_to("loop.png")
    for path in ("inside.png", "linked/a.png"):
        assert read_image(locate(str(root), path)) == b"inside"
    for path in ("outside.png", "elsewhere/a.png", "chain.png", "cat/../../outside/a.png"):
        assert locate(str(root), path) is None, path
    for path, reason in (("dangling.png", "missing: "), ("loop.png", "unreadable: OSError: Too many levels")):
        with pytest.raises(BadImageError, match=f"^{reason}"):
            read_image(locate(str(root), path))
    # a root that holds both, or is itself a link, is the user's own choice
    assert read_image(locate(str(tmp_path), "root/outside.png")) == b"outside"
    assert read_image(locate("/", str(root / "outside.png")[1:])) == b"outside"
    (tmp_path / "link").symlink_to(root)
    assert read_image(locate(str(tmp_path / "link"), "cat/a.png")) == b"inside"
    assert locate(str(tmp_path / "link"), "outside.png") is None


@pytest.mark.parametrize("name", ["a\0b.png", "n" * 300 + ".png", "a.png/b.png", "a\nb.png", "~/a.png", "C:\\a.png"])
def test_names_that_no_file_has(tmp_path, name):
    (tmp_path / "a.png").write_bytes(b"bytes")
    with pytest.raises(BadImageError, match=r"^(missing|unreadable): ") as caught:
        read_image(locate(str(tmp_path), name))
    assert str(tmp_path) not in str(caught.value), "reasons stand in files that are the same on every machine"


def test_a_name_that_is_not_utf_8_is_the_reason(tmp_path):
    """Latin-1's é, as an old archive leaves it: the file is there, and its name cannot stand in JSON."""
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"bytes")
    [image] = read_source(str(tmp_path))
    with pytest.raises(BadImageError, match=r"^unreadable: the file's name is not UTF-8; rename it$"):
        read_image(locate(str(tmp_path), image.path))


def test_what_is_no_file_is_not_opened(tmp_path):
    """A pipe that nobody writes to would be waited for without end."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.jpg"))
        for path in (tmp_path / "pipe.jpg", tmp_path / "socket.jpg", "/dev/zero"):
            with pytest.raises(BadImageError, match=r"^unreadable: a pipe, socket or device stands at this path"):
                read_image(str(path))
    assert locate(str(tmp_path), "zero.jpg") is None


def test_large_files_are_not_read(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(1000))
    assert len(read_image(str(tmp_path / "a.png"), Limits(max_bytes=1000))) == 1000
    with pytest.raises(BadImageError, match=r"^too_large: 1000 bytes are more than --max-bytes 999 allows$"):
        read_image(str(tmp_path / "a.png"), Limits(max_bytes=999))
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(BadImageError, match=r"^too_large: 4398046511104 bytes"):
        read_image(str(tmp_path / "sparse.png"))
