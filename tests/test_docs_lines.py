"""What the docs say to type: lines of shell and Python blocks are run in the order of their page, or parsed.

A page's blocks run in a folder of its own, which has what its readers have: photographs, a run, true boxes. What needs
another machine or a store, or changes this one, is parsed only; so is a block after the comment <!-- not run: WHY -->.
"""

import argparse
import ast
import contextlib
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import NamedTuple

import markdown_it
import pytest
from packaging.requirements import Requirement
from PIL import Image

from camboxes.pipeline import cli
from camboxes.pipeline.jobs import beam_options
from camboxes.pipeline.options import fields
from camboxes.transforms import PlannedRun
from camboxes.transforms.review.decisions import DecidedBox, Decision, append_decision

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = sorted((ROOT / "benchmarks" / "records").rglob("*.md"))
NOT_RUN = re.compile(r"<!-- not run: .+ -->\n")
ELSEWHERE = ("apt", "docker", "gcloud", "make", "pip", "python", "ssh")
ELSEWHERE += ("camboxes demo", "camboxes doctor", "camboxes review")
STORE = re.compile(r"\b(s3|gs)://")
EXAMPLES = [ROOT / "README.md", ROOT / "docs" / "how-to" / "python.md"]  # test_examples.py runs their Python

# True boxes of the demo's photographs, drawn by eye: x, y, width, height in pixels.
TRUE_BOXES = {
    "Egyptian cat/chelsea.png": [0, 0, 400, 300],
    "espresso/coffee.png": [77, 18, 401, 370],
    "tripod/camera.png": [235, 125, 175, 385],
    "moped/motorcycle_left.png": [92, 75, 592, 376],
    "military uniform/grace_hopper.jpg": [15, 20, 495, 580],
}


class Block(NamedTuple):
    """A fenced block of a page; whether it is run, and whether it follows another one, whose output it is."""

    language: str
    text: str
    line: int
    is_run: bool
    follows: bool

    @property
    def lines(self):
        """A block of shell's lines, continued ones joined."""
        return [line for line in self.text.replace("\\\n", " ").splitlines() if shlex.split(line, comments=True)]


def blocks(page):
    """The fenced blocks of a page."""
    tokens = markdown_it.MarkdownIt().parse(page.read_text())
    for before, token in zip([tokens[0], *tokens], tokens, strict=False):
        if token.type == "fence":
            is_run, follows = not NOT_RUN.fullmatch(before.content), before.type == "fence"
            yield Block(token.info, token.content, token.map[0] + 1, is_run, follows)


def typed(page):
    """What a page says to type, in blocks of shell and within sentences; and whether nothing is left out there."""
    for block in blocks(page):
        if block.language == "sh":
            yield from ((line, True) for line in block.lines)
    for token in markdown_it.MarkdownIt().enable("table").parse(page.read_text()):
        for part in token.children or ():
            if part.type == "code_inline" and re.match(r"(camboxes|make|pip|python) ", part.content):
                yield part.content, False


def check_camboxes(words, whole):
    """By the command's own parser, and by Beam's where the command takes Beam's options."""
    if words[0] in ("--help", "--version"):
        return
    module = importlib.import_module(f"camboxes.pipeline.commands.{words[0]}")
    if whole:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "run", lambda job, arguments=(): beam_options.beam_options(arguments))
            assert cli.main(words) == 0
    known = {*fields.option_names(module.JOB), *beam_options._parser()._option_string_actions, "--help", "--verbose"}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known


def check_make(words, whole):
    """By the names of the Makefile's targets and variables."""
    for name, is_variable, _ in (word.partition("=") for word in words):
        assert re.search(rf"^{name} \?=" if is_variable else rf"^{name}:", Path(ROOT, "Makefile").read_text(), re.M)


def check_pip(words, whole):
    """By the names of the extras, and as requirements."""
    extras = tomllib.loads(Path(ROOT, "pyproject.toml").read_text())["project"]["optional-dependencies"]
    if "--constraint" in words:
        assert Path(ROOT, words.pop(words.index("--constraint") + 1)).exists()
        words.remove("--constraint")
    assert words[0] == "install"
    for word in words[1:]:
        asked = Requirement(word.replace(".", "camboxes", 1) if word.startswith(".") else word)
        assert asked.name != "camboxes" or asked.extras <= extras.keys()


def check_python(words, whole):
    """By what the script declares to argparse, or whether it reads arguments at all; a module must be found."""
    if words[0].startswith("-"):
        assert words[0] != "-m" or importlib.util.find_spec(words[1])
        return
    source, given = Path(ROOT, words[0]).read_text(), [word.strip("[]") for word in words[1:] if word != "..."]
    if "add_argument(" not in source:
        assert not given or "sys.argv" in source
        return
    parser = argparse.ArgumentParser(exit_on_error=False)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == "add_argument":
            declared = {key.arg: key.value for key in node.keywords if key.arg in ("action", "choices", "nargs")}
            for name, value in declared.copy().items():
                declared.pop(name)
                with contextlib.suppress(NameError):  # choices that the script computes
                    declared[name] = eval(ast.unparse(value), {"argparse": argparse})
            parser.add_argument(*map(ast.literal_eval, node.args), **declared)
    if given or whole:
        parser.parse_args(given)


CHECKS = {"camboxes": check_camboxes, "make": check_make, "pip": check_pip, "python": check_python}
LINES = [
    pytest.param(line, whole, id=f"{page.relative_to(ROOT)}: {line}")
    for page in PAGES + RECORDS
    for line, whole in typed(page)
]


@pytest.mark.parametrize(("line", "whole"), LINES)
def test_a_line_can_be_typed(line, whole):
    words = shlex.split(line.split(" > ")[0].removesuffix("&"), comments=True)
    if words[0] in CHECKS and len(words) > 1:
        CHECKS[words[0]](words[1:], whole and "…" not in line)
    else:
        assert not whole or words[0] in (*ELSEWHERE, "export") or shutil.which(words[0])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks_say_what_they_hold(page):
    """So that none is passed over."""
    assert {block.language for block in blocks(page)} <= {"sh", "python", "json", "text", "yaml"}


@pytest.fixture(scope="module")
def desk(photographs, tmp_path_factory):
    """The folder that a page's readers start from: photographs, two runs, a review, true boxes, a network."""
    import torch
    import torchvision

    folder = tmp_path_factory.mktemp("desk") / "folder"
    for name in ("photos", "more"):
        shutil.copytree(photographs, folder / name)
    coco = {"images": [], "annotations": [], "categories": []}
    for number, (path, box) in enumerate(TRUE_BOXES.items(), 1):
        photograph = Image.open(photographs / path)
        size = dict(zip(("width", "height"), photograph.size, strict=True))
        coco["images"].append({"id": number, "file_name": path, **size})
        coco["categories"].append({"id": number, "name": path.split("/")[0]})
        of_image = {"id": number, "image_id": number, "category_id": number, "bbox": box}
        coco["annotations"].append(of_image | {"area": box[2] * box[3], "iscrowd": 0})
        if path.startswith("tripod"):
            photograph.convert("RGB").save(folder / "photo.jpg")
    for name in ("instances.json", "fifty.json"):
        Path(folder, name).write_text(json.dumps(coco))
    with contextlib.chdir(folder):
        assert cli.main(["label", "--input", "photos/", "--output", "boxes/"]) == 0
        assert cli.main(["rebox", "--run", "boxes/", "--output", "tuned/", "--threshold", "0.4"]) == 0
        for row in PlannedRun.load("boxes").rows():
            [label] = row["labels"]
            box = DecidedBox(label["label"], label["category_id"], tuple(TRUE_BOXES[row["path"]]))
            append_decision("boxes", Decision(row["path"], row["image_id"], "accepted", boxes=(box,)))
    names = sorted(category["name"] for category in coco["categories"])
    Path(folder, "classes.json").write_text(json.dumps(names))
    torch.save(torchvision.models.resnet18(num_classes=len(names)).state_dict(), folder / "weights.pth")
    return folder


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(block.language in ("sh", "python") for block in blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_the_blocks_run(page, desk, tmp_path, capsys):
    """And where an output follows, it has each line that is printed."""
    names, printed = {"__name__": "__main__"}, ""
    shutil.copytree(desk, tmp_path / "folder")
    with contextlib.chdir(tmp_path / "folder"):
        for block in blocks(page):
            if block.language == "text" and block.follows:
                assert [line for line in printed.splitlines() if not re.fullmatch(_pattern(block.text), line)] == []
            elif block.language == "python":
                code = compile("\n" * block.line + block.text, str(page), "exec")
                if block.is_run and page not in EXAMPLES:
                    exec(code, names)
            elif block.language == "sh" and block.is_run:
                capsys.readouterr()
                for line in block.lines:
                    if not line.startswith(ELSEWHERE) and not STORE.search(line):
                        _run(line)
                printed = capsys.readouterr().out


def _run(line):
    """Runs a line of shell. A folder that another line has filled is removed: a reader would name another one."""
    words = shlex.split(line, comments=True)
    if words[0] != "camboxes":
        subprocess.run(["sh", "-ec", line], check=True)
        return
    code = cli.main(words[1:])
    if code == 2 and "--output" in words:
        shutil.rmtree(words[words.index("--output") + 1])
        code = cli.main(words[1:])
    assert code == 0


def _pattern(shown):
    """A pattern of the lines that are shown: numbers differ, and how this machine executes a network."""
    escaped = re.escape(re.sub(r" on cpu .*", " …", shown))
    return re.sub(r"\d+(\\\.\d+)?", r"[\\d.]+", escaped).replace("…", ".*").replace("\\\n", "|")
