"""Importing camboxes changes nothing outside of it: not Beam, not torch, not the process."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

CODE = """
import gc, importlib, json, locale, logging, multiprocessing, os, signal, sys, threading
import apache_beam, cv2, fiftyone, lightning, timm, torch, torchvision  # whose own effects do not count
from apache_beam.io.aws.clients.s3 import boto3_client
from apache_beam.io.filesystem import FileSystem
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.gcp import gcsio
from apache_beam.runners.portability.fn_api_runner.worker_handlers import WorkerHandler


def members(value):
    return {name: id(member) for name, member in vars(value).items() if not name.startswith("_abc")}


def state():
    return {
        "S3": members(boto3_client.Client),
        "GCS": members(gcsio),
        "GcsIO": members(gcsio.GcsIO),
        "filesystems": sorted(str(kind) for kind in FileSystem.get_all_subclasses()),
        "options": repr(FileSystems._pipeline_options),
        "workers": {name: repr(given) for name, given in WorkerHandler._registered_environments.items()},
        "garbage": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
        "environment": dict(os.environ),
        "signals": [repr(signal.getsignal(number)) for number in signal.valid_signals()],
        "hooks": [repr(hook) for hook in (sys.excepthook, threading.excepthook, sys.getrecursionlimit())],
        "log": [logging.root.level, repr(logging.root.handlers), logging.root.disabled],
        "processes": multiprocessing.get_start_method(allow_none=True),
        "threads": [torch.get_num_threads(), cv2.getNumThreads(), threading.active_count()],
        "torch": [repr(torch.get_default_dtype()), torch.is_grad_enabled(), torch.backends.cudnn.benchmark],
        "random": repr(torch.get_rng_state().sum()),
        "coders": sorted(str(kind) for kind in apache_beam.coders.registry._coders),
    }


before = state()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
after = state()
print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
"""


def test_importing_every_module_changes_nothing_else():
    modules = [
        ".".join(("camboxes", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
        for room in ("models", "transforms", "pipeline")
        for path in sorted((ROOT / room).rglob("*.py"))
        if "plugin" not in path.parts  # FiftyOne runs it as a folder of its own
    ]
    assert len(modules) > 100
    call = [sys.executable, "-c", CODE, json.dumps(modules)]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    changed = json.loads(done.stdout.splitlines()[-1])
    # Beam's registry learns how a shard of ours is encoded, which no other type notices.
    before, after = changed.pop("coders")
    assert set(after) - set(before) == {"<class 'camboxes.transforms.records.Shard'>"}
    assert changed == {}
