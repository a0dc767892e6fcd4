import pytest

from camboxes.pipeline.formats import class_lists


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.txt", "\ufeffdog\r\n\r\n Egyptian cat \n", ["dog", "Egyptian cat"]),
        ("data.yaml", "names: [dog, 3]\ntrain: x", ["dog", "3"]),
        ("data.YML", "names: {1: cat, 0: dog}", ["dog", "cat"]),
    ],
)
def test_names_in_their_order(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text, "utf-8")
    assert class_lists.read(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", None, "there is no file at this path"),
        ("classes.txt", b"", "names no class; expected one a line"),
        ("classes.txt", b"dog\ncat\ndog\n", "names 'dog' twice"),
        ("classes.txt", b"\xff\xfed", "is not UTF-8"),
        ("data.yaml", b"names: {0: dog, 2: cat}", "the names have the numbers \\[0, 2\\]; expected each from 0 on"),
        ("data.yaml", b"train: x", "names are None; expected the names of classes"),
        ("data.yaml", b"names: [dog", "is not YAML"),
    ],
)
def test_what_is_no_list_of_classes(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        class_lists.read(str(tmp_path / name))
