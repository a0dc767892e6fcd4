import pytest

from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.entries import SourceError
from camboxes.transforms.sources.folder_tables import NO_TABLE
from camboxes.transforms.sources.passed_over import Count


def _folder(folder, **files):
    """Writes files whose names have __ for a slash and _ before their ending: train__metadata_csv."""
    for name, content in files.items():
        path = folder / ".".join(name.replace("__", "/").rsplit("_", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(folder)


def test_metadata_in_a_folder_of_images(tmp_path):
    """As Hugging Face's imagefolder has it: the table rules, whatever the folders are called."""
    path = _folder(
        tmp_path, metadata_jsonl='{"file_name": "a.jpg", "label": "cat"}\n{"file_name": "x/b", "label": "dog"}\n',
        a_jpg="", x__b_png="",
    )  # fmt: skip
    source = read_source(path)
    assert {image.path: image.labels for image in source} == {"a.jpg": ("cat",), "x/b.png": ("dog",)}
    assert source.root == path
    assert source.assumed[0] == "metadata.jsonl: images from the column file_name, labels from the column label"


def test_a_table_in_each_split(tmp_path):
    source = read_source(
        _folder(
            tmp_path,
            train__metadata_csv="file_name,label\na.jpg,cat\n",
            valid___classes_csv="filename, dog\nb.jpg,1\n",
            test__c_jpg="",
        )
    )
    assert {image.path: image.labels for image in source} == {"train/a.jpg": ("cat",), "valid/b.jpg": ("dog",)}
    assert source.splits == {"train": "train", "valid": "val"}
    assert source.assumed == [
        "train/metadata.csv: images from the column file_name, labels from the column label",
        "valid/_classes.csv: images from the column filename, labels from the column dog (0 and 1)",
    ]
    assert source.passed_over.kinds == {NO_TABLE: {"": Count(1, "test/")}}


def test_below_a_wider_root(tmp_path):
    path = _folder(tmp_path / "data", metadata_csv="file_name,label\na.jpg,cat\n")
    assert [image.path for image in read_source(path, root=str(tmp_path))] == ["data/a.jpg"]


def test_columns_that_a_user_names(tmp_path):
    path = _folder(tmp_path, metadata_csv="name,kind,other\na.jpg,cat|dog,1\n")
    source = read_source(path, columns=Columns(path="name", label="kind", separator="|"))
    assert [tuple(image) for image in source] == [("a.jpg", ("cat", "dog"), None)]


def test_another_metadata_file_leaves_class_folders_as_they_are(tmp_path):
    """A column file_name makes it Hugging Face's; cameras and download tools write files of this name, too."""
    source = read_source(_folder(tmp_path, metadata_csv="name,camera\na.jpg,X100\n", cat__a_jpg=""))
    assert [tuple(image) for image in source] == [("cat/a.jpg", ("cat",), None)]


def test_two_tables_of_the_same_images(tmp_path):
    path = _folder(tmp_path, metadata_csv="file_name,label\n", metadata_jsonl='{"file_name": "a.jpg", "label": "cat"}')
    with pytest.raises(SourceError, match=r"holds .*metadata\.csv and .*metadata\.jsonl; name the one to read"):
        read_source(path)


def test_metadata_without_labels(tmp_path):
    path = _folder(tmp_path, metadata_csv="file_name,text\na.jpg,a cat\n", cat__a_jpg="")
    with pytest.raises(SourceError, match=r"metadata\.csv' has the columns file_name, text, and none .*column text"):
        read_source(path)
