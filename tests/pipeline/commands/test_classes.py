import subprocess
import sys

import pytest

from camboxes.pipeline.cli import main


def test_all_classes_a_line_each(capsys):
    assert main(["classes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1000 and lines[0] == "0\ttench, Tinca tinca, n01440764"


def test_the_classes_of_a_word_and_what_it_was_taken_for(capsys):
    assert main(["classes", "Cats"]) == 0
    said = capsys.readouterr()
    assert [line.partition("\t")[0] for line in said.out.splitlines()] == [str(index) for index in range(281, 288)]
    assert said.err.splitlines() == [
        "cat: feline mammal usually having thick soft fur and no ability to roar: domestic cats",
        "it may also mean n02127808, any of several large cats typically able to roar and living in the wild "
        "(6 classes: leopard, snow leopard, jaguar and 3 more)",
    ]


def test_classes_with_a_word_in_a_name(capsys, tmp_path):
    (tmp_path / "names.txt").write_text("Siamese cat\ncatamaran\nwild cat\n")
    assert main(["classes", "cat", "--classes", str(tmp_path / "names.txt")]) == 0
    said = capsys.readouterr()
    assert said.out == "0\tSiamese cat\n2\twild cat\n"
    assert said.err == "cat: no label by itself; 2 classes with it in a name\n"


@pytest.mark.parametrize(("word", "said"), [("seal", "'seal' may mean: n02076196"), ("qqqq", "nearest: nothing near")])
def test_a_word_that_stands_for_none(capsys, word, said):
    assert main(["classes", word]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name", ["CKPT", "efficientnet_lite0"])
def test_a_checkpoint_tells_its_classes_without_its_network(capsys, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    (tmp_path / name / "classifier.json").write_text('{"class_names": [["tripod"], ["moped"]]}')
    assert main(["classes", "--model", name]) == 0
    assert capsys.readouterr().out == "0\ttripod\n1\tmoped\n"


def test_no_torch_and_a_reader_that_has_seen_enough():
    code = "import sys; from camboxes.pipeline.cli import main; main(['classes']); assert 'torch' not in sys.modules"
    call = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    call.stdout.close()
    assert call.communicate()[1] == b"" and call.returncode == 0
