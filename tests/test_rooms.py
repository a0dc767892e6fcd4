"""Where things stand, and that heavy imports happen only where they are used; pyproject.toml says who imports whom."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from camboxes import transforms

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "transforms", "pipeline")
PACKAGES = sorted(path.parent for room in ROOMS for path in (ROOT / room).rglob("__init__.py"))
# What these tests try is no single module.
ACROSS = {
    "test_earlier_runs",
    "test_jobs",
    "test_errors",
    "test_compete",
    "test_hostile_images",
    "test_hostile_inputs",
    "test_hostile_names",
}
ACROSS |= {"test_dataflow", "test_faults", "test_resume", "test_runners", "test_stores", "test_fiftyone", "test_refine"}
ACROSS |= {"test_background", "test_label_inputs", "test_own_networks", "test_prompts", "test_round_trips"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_says_its_duty_and_what_it_may_import(package):
    duty = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    assert duty and duty.splitlines()[0].endswith(".")
    assert package.name == "plugin" or package.parent == ROOT or re.search(r"\b(may import|imports) ", duty, re.I), duty


def test_contributing_draws_the_tree():
    tree, room, drawn = (ROOT / "CONTRIBUTING.md").read_text(), "", set()
    for indent, folder in re.findall(r"^    (  )?(\w+)/ ", tree, re.MULTILINE):
        room = room if indent else folder
        drawn.add(f"{room}/{folder}" if indent else folder)
    assert {str(path.relative_to(ROOT)) for path in PACKAGES if len(path.relative_to(ROOT).parts) < 3} == drawn - {
        "tests"
    }


def test_a_module_s_test_is_found_by_its_path():
    for room in ROOMS:
        for path in (ROOT / "tests" / room).rglob("test_*.py"):
            beside = path.relative_to(ROOT / "tests").with_name(path.name.removeprefix("test_"))
            assert (ROOT / beside).exists() or path.stem in ACROSS, path


def _loaded(code, *modules):
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print([m for m in {modules!r} if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.splitlines()[-1]


def test_the_transforms_import_without_torch():
    assert _loaded("import camboxes.transforms, camboxes.models", "torch", "torchvision", "timm") == "[]"


def test_the_transforms_list_their_public_names():
    assert dir(transforms) == sorted(transforms.__all__)
    assert all(getattr(transforms, name).__doc__ for name in transforms.__all__)
    documented = set()
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        for names in re.findall(r"from camboxes\.transforms import ([\w, ]+)", page.read_text()):
            documented |= set(names.split(", "))
    assert documented and documented <= {*transforms.__all__}


def test_help_imports_nothing_heavy():
    code = "from camboxes.pipeline.cli import main\ntry: main(['label', '--help'])\nexcept SystemExit: pass"
    assert _loaded(code, "torch", "apache_beam", "numpy", "pyarrow", "cv2") == "[]"


def test_rebox_imports_no_torch(run, tmp_path):
    call = ["rebox", "--run", str(run), "--output", str(tmp_path / "again"), "--threshold", "0.4"]
    assert (
        _loaded(f"from camboxes.pipeline.cli import main\nassert main({call!r}) == 0", "torch", "torchvision") == "[]"
    )
