"""The first hour of three users, line by line: what is typed, exit codes, silences, CPU seconds to the first image.

    python benchmarks/journeys.py VOC_FOLDER RACCOON_FOLDER [--camboxes COMMAND] [--of researcher]

Each line runs on a terminal of its own, as if it were typed: see silences.py. A line that the command refuses is
followed by the one that a user would type instead; both count. VOC_FOLDER and RACCOON_FOLDER have images/, labels.csv
and instances.json. COMMAND is another version's `camboxes`, to compare; its Python stands beside it.
"""

import argparse
import csv
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from silences import watch

SILENCE = 5.0  # seconds without output that are listed
FIRST_IMAGE = r"\b[1-9]\d*/\d+ \[.*image"  # a bar above zero
SERVES = r"http://(localhost|127)"
EVERYDAY = ("bird", "boat", "bottle", "car", "cat", "dog")
IN_PYTHON = """
import camboxes
from PIL import Image
print(camboxes.__version__, camboxes.find_boxes([Image.open({photograph!r})], [["dog"]]))
"""
IN_PYTHON_BEFORE = """
from camboxes.pipeline import LabelJob, label
run = label(LabelJob(input={folder!r}, output={output!r}, label_map={label_map!r}))
print(run.counts, next(run.images()))
"""


@dataclasses.dataclass(frozen=True)
class Line:
    """What is typed, an answer that is followed by Ctrl-C, and what is typed instead if it is refused."""

    typed: str
    interrupt_at: str | None = None
    instead: "Line | None" = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voc", type=Path)
    parser.add_argument("raccoon", type=Path)
    parser.add_argument("--camboxes", type=Path, default=Path(sys.executable).with_name("camboxes"))
    parser.add_argument("--of", choices=JOURNEYS, action="append", help="one journey alone")
    parser.add_argument("--show", action="store_true", help="print what the lines print")
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    for name in options.of or JOURNEYS:
        with tempfile.TemporaryDirectory() as folder:
            print(f"\n{name}")
            lines = JOURNEYS[name](Path(folder), options.voc.resolve(), options.raccoon.resolve())
            travel(lines, Path(folder), options.camboxes.absolute(), options.show)


def travel(lines: Sequence[Line], folder: Path, camboxes: Path, show: bool) -> None:
    """Types the lines, one after the other, and prints how each went."""
    environment = {**os.environ, "PATH": f"{camboxes.parent}:{os.environ['PATH']}"}
    for first in lines:
        line: Line | None = first
        while line is not None:
            watched = watch(["/bin/sh", "-c", line.typed], line.interrupt_at, cwd=folder, env=environment)
            silences = [silence for silence in watched.silences if silence.seconds > SILENCE]
            print(f"  $ {line.typed}")
            notes = [f"exit {watched.code}", f"{watched.seconds:.1f} s"]
            notes += [f"first image after {watched.first_image[1]:.1f} CPU s"] if watched.first_image else []
            notes += [f"ends {watched.ends:.1f} s after Ctrl-C"] if watched.ends is not None else []
            notes += [f"silent {silence.seconds:.0f} s after {silence.after[:60]!r}" for silence in silences]
            print("      " + "; ".join(notes), flush=True)
            for _, text in watched.lines if show else watched.lines[-3:] if watched.code else ():
                print(f"      | {text}")
            line = line.instead if watched.code == 2 else None


def rows(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """The images of a data set with their labels."""
    labels = defaultdict(list)
    with (folder / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            labels[row["path"]].append(row["label"])
    for path in sorted(labels):
        yield folder / path, labels[path]


def researcher(folder: Path, voc: Path, raccoon: Path) -> list[Line]:
    """Everyday photographs in class folders, a few true boxes, no wish to read."""
    taken = defaultdict(list)
    for path, labels in rows(voc):
        if len(labels) == 1 and labels[0] in EVERYDAY and len(taken[labels[0]]) < 10:
            taken[labels[0]].append(path)
    for label, paths in taken.items():
        (folder / "photos" / label).mkdir(parents=True)
        for path in paths:
            shutil.copy(path, folder / "photos" / label)
    truth = json.loads((voc / "instances.json").read_text())
    places = {path.name: f"{label}/{path.name}" for label, paths in taken.items() for path in paths}
    truth["images"] = [
        {**image, "file_name": places[Path(image["file_name"]).name]}
        for image in truth["images"]
        if Path(image["file_name"]).name in places
    ]
    kept = {image["id"] for image in truth["images"]}
    truth["annotations"] = [box for box in truth["annotations"] if box["image_id"] in kept]
    (folder / "truth.json").write_text(json.dumps(truth))
    shutil.copy(voc / "label_map.json", folder / "by-hand.json")
    chosen = json.loads((folder / "by-hand.json").read_text())
    (folder / "by-hand.json").write_text(json.dumps({label: chosen[label] for label in EVERYDAY}))
    label = "camboxes label --input photos --output boxes"
    by_hand = f"{label} --label-map by-hand.json"
    photograph = next(iter(places.values()))
    return [
        Line(f"{label} --dry-run", instead=Line(f"{by_hand} --dry-run")),
        Line(label, FIRST_IMAGE, Line(by_hand, FIRST_IMAGE)),
        Line(label, instead=Line(by_hand)),
        Line(label, instead=Line(by_hand)),
        Line(
            f"camboxes explain photos/{photograph} --output grid.png",
            instead=Line(f"camboxes explain photos/{photograph} --method 'cam*layercam@16' --output grid.png"),
        ),
        Line("camboxes rebox --run boxes --output boxes-t40 --threshold 0.4"),
        Line("camboxes evaluate --run boxes --ground-truth truth.json"),
        Line("camboxes compare boxes boxes-t40 --ground-truth truth.json"),
        Line("camboxes tune --run boxes --ground-truth truth.json"),
        Line("camboxes rebox --run boxes --output tuned --thresholds boxes/tuning.json"),
        Line("camboxes review --run boxes", SERVES),
        Line("camboxes export --run tuned --output data --format yolo"),
    ]


def engineer(folder: Path, voc: Path, raccoon: Path) -> list[Line]:
    """Classes of their own, in a table as people have them, with pictures of other things."""
    (folder / "pictures").mkdir()
    table = [(path, "raccoon") for path, _ in rows(raccoon)][:60]
    table += [(path, "other") for path, _ in rows(voc)][:60]
    for path, _ in table:
        shutil.copy(path, folder / "pictures")
    usual = [("filename", "class"), *((f"pictures/{path.name}", label) for path, label in table)]
    plain = [("path", "label"), *usual[1:]]
    for name, lines in {"train.csv": usual, "plain.csv": plain}.items():
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows(lines)
    (folder / "classes.txt").write_text("badger\nraccoon\n")
    export = "camboxes export --run boxes --output data --format yolo"
    return [
        Line(
            "camboxes train --input train.csv --output ckpt --background other",
            instead=Line("camboxes train --input plain.csv --output ckpt"),
        ),
        Line(
            "camboxes label --input train.csv --output boxes --model ckpt",
            instead=Line("camboxes label --input plain.csv --output boxes --model ckpt"),
        ),
        Line("camboxes selftrain --run boxes --output better"),
        Line(f"{export} --include-empty --classes classes.txt", instead=Line(export)),
        Line("cat data/data.yaml"),
    ]


def beam_engineer(folder: Path, voc: Path, raccoon: Path) -> list[Line]:
    """Two processes, a job that is interrupted, and a few lines of Python."""
    dogs = [path for path, labels in rows(voc) if labels == ["dog"]][:50]
    (folder / "photos" / "dog").mkdir(parents=True)
    for path in dogs:
        shutil.copy(path, folder / "photos" / "dog")
    classes = json.loads((voc / "label_map.json").read_text())["dog"]
    (folder / "by-hand.json").write_text(json.dumps({"dog": classes}))
    (folder / "notebook.py").write_text(IN_PYTHON.format(photograph=f"photos/dog/{dogs[0].name}"))
    before = IN_PYTHON_BEFORE.format(folder="photos", output="found", label_map="by-hand.json")
    (folder / "before.py").write_text(before)
    label = (
        "camboxes label --input photos --output boxes --shards 10 --direct_num_workers=2 "
        "--direct_running_mode=multi_processing"
    )
    by_hand = f"{label} --label-map by-hand.json"
    return [
        Line(label, FIRST_IMAGE, Line(by_hand, FIRST_IMAGE)),
        Line(label, instead=Line(by_hand)),
        Line("python notebook.py || exit 2", instead=Line("python before.py")),
    ]


JOURNEYS: dict[str, Callable[[Path, Path, Path], list[Line]]] = {
    "researcher": researcher,
    "engineer": engineer,
    "beam engineer": beam_engineer,
}

if __name__ == "__main__":
    main()
