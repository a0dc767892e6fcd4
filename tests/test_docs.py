"""What the docs name is there: files that they link to or mention, and the reference is what the code says."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "benchmarks").rglob("*.md")),
]
MENTIONED = re.compile(
    r"\b(?:models|transforms|pipeline|tests|benchmarks|docs)/[\w/-]+\.(?:py|md|json|jinja|js|png|jpg)\b"
)
LINKED = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
ANCHORED = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TESTS = re.compile(r"\btest_\w+\.py\b")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page):
    text = page.read_text()
    named = [ROOT / path for path in MENTIONED.findall(text)]
    linked = [page.parent / path for path in LINKED.findall(text)]
    assert [str(path) for path in named + linked if not path.exists()] == []
    assert [name for name in TESTS.findall(text) if not any((ROOT / "tests").rglob(name))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_headings_that_a_page_links_to_are_there(page):
    for path, anchor in ANCHORED.findall(page.read_text()):
        headings = HEADING.findall((page.parent / path if path else page).read_text())
        assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], path


@pytest.mark.parametrize("page", ["commands", "python"])
def test_the_reference_is_what_the_code_says(page):
    """`python docs/write_reference.py` writes it."""
    write = runpy.run_path(str(ROOT / "docs" / "write_reference.py"))
    assert (ROOT / "docs" / "reference" / f"{page}.md").read_text() == write[page]()


@pytest.mark.parametrize(
    ("text", "code"),
    [("# Here\n[x](#here)", 0), ("[x](nowhere.md)", 1), ("[x](#nowhere)", 1), ("![x](nowhere.png)", 1)],
)
def test_make_docs_refuses_a_dead_link(tmp_path, text, code):
    """By the options that the Makefile gives to mkdocs: with --quiet it would refuse none."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(text)
    (tmp_path / "mkdocs.yml").write_text(f"INHERIT: {ROOT / 'mkdocs.yml'}\nnav: [index.md]\n")
    recipe = subprocess.run(["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    [options] = [line.partition("/mkdocs ")[2].split() for line in recipe.splitlines() if "/mkdocs " in line]
    call = [sys.executable, "-m", "mkdocs", *options, "--config-file", str(tmp_path / "mkdocs.yml")]
    built = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert (built.returncode, "1 warnings in strict mode" in built.stdout) == (code, code == 1), built.stdout
