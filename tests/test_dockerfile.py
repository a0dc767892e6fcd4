"""The image of workers and launchers: its Dockerfile is read, and its steps run in a plain virtual environment.

That Docker builds it is not shown here.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parent.parent
# Installed here for other commands and for tests; no part of the image.
STRANGERS = ["fiftyone", "lightning", "torchmetrics", "matplotlib", "skimage", "sklearn", "pycocotools", "pytest"]


@pytest.fixture(scope="module")
def dockerfile(tmp_path_factory):
    copy = tmp_path_factory.mktemp("dockerfile") / "Dockerfile"  # the parser opens it for writing
    shutil.copy(ROOT / "Dockerfile", copy)
    return DockerfileParser(str(copy))


def _steps(dockerfile, instruction):
    return [step["value"] for step in dockerfile.structure if step["instruction"] == instruction]


def _copied(dockerfile):
    """Of each COPY from the repository its sources and its destination."""
    parts = [shlex.split(value) for value in _steps(dockerfile, "COPY") if not value.startswith("--from=")]
    return [(sources, destination) for *sources, destination in parts]


def test_every_image_is_pinned_and_of_the_versions_that_were_tested(dockerfile):
    beam, launcher, base = dockerfile.parent_images
    constraints = (ROOT / "constraints.txt").read_text()
    assert beam == "apache/beam_python3.11_sdk:" + re.search(r"^apache-beam==(.*)$", constraints, re.M)[1]
    assert re.fullmatch(r"gcr\.io/dataflow-templates-base/python311-template-launcher-base:\d{8}_RC\d+", launcher)
    assert base == "python:3.11-slim-bookworm"
    # The base has no CUDA libraries: those of PyTorch's wheels would stand beside them.
    stages = [value.rpartition(" AS ")[2] for value in _steps(dockerfile, "FROM")[:2]]
    origins = [re.match(r"--from=(\S+) ", value)[1] for value in _steps(dockerfile, "COPY") if "--from" in value]
    assert origins == stages


def test_what_is_copied_exists_and_nothing_else_is_sent_to_the_build(dockerfile):
    sources = [source for some, _ in _copied(dockerfile) for source in some]
    assert all((ROOT / source).exists() for source in sources)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == {Path(source).parts[0] for source in sources}


def test_every_package_is_installed_once_at_the_versions_that_were_tested(dockerfile):
    commands = [command for value in _steps(dockerfile, "RUN") for command in value.split(" && ")]
    installs = [command for command in commands if "install" in command]
    assert all(command.startswith("pip install --no-cache-dir --constraint constraints.txt ") for command in installs)
    wanted = [shlex.split(command)[5:] for command in installs]
    assert wanted == [["torch", "torchvision"], [".[aws,gcp,prompts]"]]
    assert commands[-1] == "pip check"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [project["optional-dependencies"][name] for name in ("aws", "gcp", "prompts")]
    named = " ".join([*project["dependencies"], *itertools.chain(*extras)])
    assert not any(stranger in named for stranger in STRANGERS)


def test_a_worker_starts_beam_and_a_launcher_finds_its_file(dockerfile):
    assert json.loads(_steps(dockerfile, "ENTRYPOINT")[-1]) == ["/opt/apache/beam/boot"]
    assert "/opt/apache/beam /opt/apache/beam" in _steps(dockerfile, "COPY")[0]
    [main] = [destination for sources, destination in _copied(dockerfile) if sources == ["pipeline/flex_template.py"]]
    assert dockerfile.envs == {"FLEX_TEMPLATE_PYTHON_PY_FILE": main}


@pytest.fixture(scope="module")
def installed(dockerfile, tmp_path_factory):
    """A folder that holds what the image would, and a virtual environment in which its commands were run.

    The packages that they ask for are found in the environment of the tests: nothing is downloaded.
    """
    root = tmp_path_factory.mktemp("image")
    work = root / _steps(dockerfile, "WORKDIR")[0].lstrip("/")
    for sources, destination in _copied(dockerfile):
        for source in sources:
            target = root / destination.lstrip("/") if destination.startswith("/") else work / destination
            target = target / source if destination.endswith("/") else target
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, target)
    venv.create(root / "venv")
    [packages] = (root / "venv").glob("lib/python*/site-packages")
    here = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "here.pth").write_text("\n".join(here))
    pip = root / "venv" / "bin" / "pip"
    pip.write_text('#!/bin/sh\nexec python -m pip "$@"\n')
    pip.chmod(0o755)
    # What is here is taken as it is, and pip check, the last command, says whether it fits together. No build isolation
    # is asked for by the word for no: pip reads these variables so.
    offline = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "no"}
    offline["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    for command in _steps(dockerfile, "RUN"):
        done = _run(root, "sh", "-c", command, cwd=work, **offline)
        assert done.returncode == 0, done.stdout + done.stderr
    return root


def _run(root, *call, cwd, **variables):
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = f"{root / 'venv' / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(
        call, check=False, cwd=cwd, env=kept | variables | {"PATH": path}, capture_output=True, text=True
    )


def test_what_is_installed_labels_without_the_libraries_of_other_commands(installed, own_photographs, tmp_path):
    (own_photographs / "one.csv").write_text("path,label\nespresso/coffee.png,espresso\n")
    call = ["label", "--input", str(own_photographs / "one.csv"), "--output", str(tmp_path / "out")]
    call += ["--method", "cam", "--scales", "224", "--refine", "none"]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({STRANGERS!r}))  # importing one of them fails, as it would in the image
import camboxes.pipeline.commands.label
from camboxes.pipeline.cli import main
print(camboxes.pipeline.commands.label.__file__)
sys.exit(main({call!r}))
"""
    done = _run(installed, "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).is_relative_to(installed / "venv")
    assert len(json.loads((tmp_path / "out" / "annotations.json").read_text())["annotations"]) == 1


def test_the_launcher_s_file_knows_the_template_s_parameters(installed, tmp_path):
    said = _run(installed, "python", str(installed / "template" / "main.py"), "--metadata", cwd=tmp_path)
    assert json.loads(said.stdout) == json.loads((ROOT / "pipeline" / "flex_template.json").read_text()), said.stderr
