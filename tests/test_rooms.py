"""Imports go one way, and the heavy ones only where they are used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["models", "transforms", "pipeline"]


def _imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


@pytest.mark.parametrize("room", ORDER)
def test_nothing_imports_upward(room):
    above = ORDER[ORDER.index(room) + 1 :]
    files = list((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        for name in _imports(path):
            assert not any(name.startswith(f"camboxes.{other}") for other in above), f"{path} imports {name}"


@pytest.mark.parametrize(("room", "strangers"), [("models", {"apache_beam", "pyarrow"}), ("transforms", {"fiftyone"})])
def test_a_room_knows_only_its_own(room, strangers):
    for path in (ROOT / room).glob("*.py"):
        assert not {name.partition(".")[0] for name in _imports(path)} & strangers, path


@pytest.mark.parametrize("module", ["boxes", "instances", "maps", "labels", "images", "wsol"])
def test_pure_modules_know_neither_torch_nor_beam(module):
    names = {name.partition(".")[0] for name in _imports(ROOT / "transforms" / f"{module}.py")}
    assert not names & {"torch", "apache_beam", "torchvision"}


def _loaded(code, *modules):
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print([m for m in {modules!r} if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return found.stdout.splitlines()[-1]


def test_the_transforms_import_without_torch():
    assert _loaded("import camboxes.transforms, camboxes.models", "torch", "torchvision", "timm") == "[]"


def test_help_imports_nothing_heavy():
    code = "from camboxes.pipeline.cli import main\ntry: main(['label', '--help'])\nexcept SystemExit: pass"
    assert _loaded(code, "torch", "apache_beam", "numpy", "pyarrow", "cv2") == "[]"


def test_rebox_imports_no_torch(run, tmp_path):
    call = ["rebox", "--run", str(run), "--output", str(tmp_path / "again"), "--threshold", "0.4"]
    assert (
        _loaded(f"from camboxes.pipeline.cli import main\nassert main({call!r}) == 0", "torch", "torchvision") == "[]"
    )
