"""What the columns of a table are taken for, what is said of it, and what is asked."""

import pytest

from camboxes.transforms.planning.listing import read_source
from camboxes.transforms.sources.columns import Columns
from camboxes.transforms.sources.entries import SourceError


def _read(folder, text, **columns):
    (folder / "m.csv").write_text(text)
    source = read_source(str(folder / "m.csv"), columns=Columns(**columns))
    return {image.path: image.labels for image in source}, source.assumed


@pytest.mark.parametrize(
    ("text", "columns", "labels", "assumed"),
    [
        ("path,label\na.jpg,cat\n", {}, {"a.jpg": ("cat",)}, []),
        ("label,PATH,is_train\ncat,a.jpg,1\n", {}, {"a.jpg": ("cat",)}, []),
        (
            "id,image_id,filename,class\n1,2,a.jpg,cat\n",
            {},
            {"a.jpg": ("cat",)},
            ["images from the column filename, labels from the column class"],
        ),
        (
            "id,label\n12.jpg,3\n",
            {},
            {"12.jpg": ("3",)},
            ["images from the column id, labels from the column label"],
        ),
        (  # TensorFlow's raccoon_labels.csv
            "filename,width,height,class,xmin,ymin,xmax,ymax\n"
            "a.jpg,650,417,raccoon,81,88,522,408\na.jpg,650,417,raccoon,1,2,3,4\na.jpg,650,417,cat,1,2,3,4\n",
            {},
            {"a.jpg": ("cat", "raccoon")},
            [
                "images from the column filename, labels from the column class; the boxes in xmin, ymin, xmax, ymax "
                "are not used"
            ],
        ),
        (  # Kaggle's plant pathology
            "image,labels\na.jpg,healthy\nb.jpg,scab  frog_eye_leaf_spot complex\nc.jpg,\n",
            {"separator": " "},
            {"a.jpg": ("healthy",), "b.jpg": ("complex", "frog_eye_leaf_spot", "scab"), "c.jpg": ()},
            ["images from the column image, labels from the column labels, separated by ' '"],
        ),
        ("path,label\na.jpg,1|-1|3.0\n", {"separator": "|"}, {"a.jpg": ("1", "3")}, None),
        (  # Roboflow's _classes.csv
            "filename, cat, dog\na.jpg, 0, 1\nb.jpg, 0, 0\nc.jpg, 1, 1\n",
            {},
            {"a.jpg": ("dog",), "b.jpg": (), "c.jpg": ("cat", "dog")},
            ["images from the column filename, labels from the columns cat, dog (0 and 1)"],
        ),
        (
            "Unnamed: 0,filename,width,is_train,train,car\n0,a.jpg,640,1,0.0,1.0\n1,b.jpg,640,0,TRUE,\n",
            {},
            {"a.jpg": ("car",), "b.jpg": ("train",)},
            ["images from the column filename, labels from the columns train, car (0 and 1)"],
        ),
        (
            "image,age,cat,dog\na.jpg,37,1,0\n",
            {"label": "cat, dog"},
            {"a.jpg": ("cat",)},
            ["images from the column image, labels from the columns cat, dog (0 and 1)"],
        ),
        (  # Kaggle's dog breeds
            "id,breed\n0a.jpg,beagle\n",
            {"label": "Breed"},
            {"0a.jpg": ("beagle",)},
            ["images from the column id, labels from the column breed"],
        ),
        ('photo;a, b\na.jpg;"cat"\n', {"path": "photo", "label": "a, b"}, {"a.jpg": ("cat",)}, None),
        ("path,label,class\na.jpg,x,cat\n", {"label": "class"}, {"a.jpg": ("cat",)}, None),
        ('path,label\na.jpg,"[""cat"", ""dog""]"\nb.jpg,"[\'cat\', ""it\'s""]"\n', {},
         {"a.jpg": ("cat", "dog"), "b.jpg": ("cat", "it's")}, []),
        ("path,label,note\na.jpg,cat\n", {}, {"a.jpg": ("cat",)}, []),
    ],
)  # fmt: skip
def test_columns(text, columns, labels, assumed, tmp_path):
    found, said = _read(tmp_path, text, **columns)
    assert found == labels
    assert said == assumed or assumed is None


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("image,filename,label\n", {}, "the columns image, filename, each of .*; name one: --path-column image$"),
        ("path,label,class\n", {}, "the columns label, class, each of .*; name one: --label-column label$"),
        ("path,Label,label\n", {}, "the columns Label, label, each of which may hold the labels"),
        ("photo,label\na.jpg,cat\n", {}, "the columns photo, label, and none called path, .*: --path-column NAME"),
        ("a.jpg,cat\nb.jpg,dog\n", {}, "columns a.jpg, cat.* if this is its first row, write a line of names above it"),
        ("id,breed\na,beagle\n", {}, "columns id, breed, and none called label, .*: --label-column breed$"),
        ("id,breed,age\na,beagle,12\n", {}, "columns id, breed, age, and none .*: --label-column NAME$"),
        ("id,a,b\nx,0.1,7\ny,0,-1\n", {}, "columns id, a, b, and none called label, class, category or the like"),
        ("path\na.jpg\n", {}, "has the column path, and none called label"),
        (
            "id,cat,dog,age\nx,1,0,1\ny,1,0,37\n",
            {},
            r"columns cat, dog of 0 and 1, and age of .* \(age is '37', line 3\); .*--label-column cat,dog$",
        ),
        ("id,cat,age\nx,1,7\n", {}, "column cat of 0 and 1, and age .* or leave only columns of classes in the table"),
        ("id,cat,cat\nx,1,0\n", {}, "has a column twice; its columns are cat, cat"),
        ("id,cat,dog\nx,1,0\ny,1\n", {}, "line 3: 'y', '1' has no cell for dog; write an empty cell"),
        ("path,label\na.jpg,cat\nb.jpg\n", {}, "line 3: 'b.jpg' has no cell for label; write an empty cell if that is"),
        ("id,cat,dog\nx,1,2\n", {"label": "cat,dog"}, "line 2: dog is '2'; expected 0 or 1"),
        ("id,cat,dog\nx,1,0\n", {"separator": "|"}, "--label-separator is for a column of labels; .* cat, dog hold"),
        ("id,cat\nx,1\n", {"label": "dog"}, "--label-column is 'dog'; table .* has the columns id, cat"),
        ("id,cat\nx,1\n", {"path": "dog"}, "--path-column is 'dog'; table .* has the columns id, cat"),
        ("path,label\na.jpg,\"['cat' 'dog']\"\n", {}, "line 2: label is the text .*; expected a list as JSON"),
        ("", {}, "has no columns; expected a path and labels"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_asked(text, columns, message, tmp_path):
    with pytest.raises(SourceError, match=message):
        _read(tmp_path, text, **columns)


def test_an_empty_separator():
    with pytest.raises(ValueError, match="--label-separator is empty"):
        Columns(separator="")


@pytest.mark.parametrize("name", ["data/cat/a.jpg", "m.json", "m.tar"])
def test_what_has_no_columns_refuses_to_be_told_of_them(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(SourceError, match="is no table; --path-column, --label-column and --label-separator are for"):
        read_source(str(tmp_path / name.partition("/")[0]), columns=Columns(label="breed"))
