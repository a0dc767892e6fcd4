"""Peak memory of a labelling job as the number of images grows: a tiny network, small images, two worker processes."""

import itertools
import os
import subprocess
import time
from pathlib import Path

import timm
import torch
from PIL import Image
from steady import tree

SIDE = 64  # pixels, of the images and of the network's input
NETWORK = "test_resnet"  # timm's, some hundred kilobytes


def peaks(folder: Path, images: int, data: Path, call: list[str]) -> dict[str, float]:
    """MiB that the driver and the largest of its descendants held at most, while a job labelled so many images.

    Args:
      folder: an empty place for the images and the run.
      images: how many: hard links to ten files.
      data: a data folder of speed_images.py.
      call: `camboxes label` and its options, but for input, output, network and scales.
    """
    folder.mkdir()
    state = timm.create_model(NETWORK).state_dict()
    torch.save(state, folder / "tiny.pth")
    paths = link_images(folder, images, data)
    (folder / "m.csv").write_text("\n".join(["path,label", *(f"{path},tripod" for path in paths)]))
    job = subprocess.Popen(
        [*call, "--input", str(folder / "m.csv"), "--output", str(folder / "run"), "--model", f"timm:{NETWORK}",
         "--weights", str(folder / "tiny.pth"), "--scales", str(SIDE), "--direct_num_workers=2",
         "--direct_running_mode=multi_processing"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    found: dict[int, float] = {}
    while job.poll() is None:
        for process in tree(job.pid):
            found[process] = max(found.get(process, 0.0), peak(process))
        time.sleep(0.1)
    if job.returncode:
        raise SystemExit(f"{subprocess.list2cmdline(job.args)} ended with exit code {job.returncode}")
    return {"driver": found.pop(job.pid), "worker": max(found.values())}


def link_images(folder: Path, images: int, data: Path) -> list[str]:
    files = []
    for source in sorted((data / "images").iterdir())[:10]:
        files.append(folder / source.name)
        with Image.open(source) as photograph:
            photograph.resize((SIDE, SIDE)).save(files[-1])
    paths = []
    for number, file in zip(range(images), itertools.cycle(files), strict=False):
        path = folder / str(number // 1000) / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        os.link(file, path)
        paths.append(str(path.relative_to(folder)))
    return paths


def peak(process: int) -> float:
    """VmHWM in MiB, not getrusage's: that one counts what the parent held when it forked."""
    try:
        _, found, rest = Path(f"/proc/{process}/status").read_text().partition("VmHWM:")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return int(rest.split()[0]) / 1024 if found else 0.0  # a process that has ended and was not waited for has none
