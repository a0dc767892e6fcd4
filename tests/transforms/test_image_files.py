import pytest

from camboxes.transforms.image_files import locate, read_image
from camboxes.transforms.images import BadImageError


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
    with pytest.raises(BadImageError, match="outside_root: the path leads outside the input root") as caught:
        read_image(locate(str(tmp_path / "root"), path))
    assert caught.value.code == "outside_root"


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(BadImageError, match=r"^missing: there is no file at this path$"):
        read_image(str(tmp_path / "a.png"))
    with pytest.raises(BadImageError, match=r"^unreadable: IsADirectoryError: "):
        read_image(str(tmp_path))
