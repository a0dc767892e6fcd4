"""Which labels of a data set match by themselves, and how good are their boxes beside those of a hand-made label map?

    python benchmarks/everyday_labels.py DATA_FOLDER [--every N]

A data folder is as benchmarks/quality.py has it. Each label is matched with ImageNet's classes without the map. Two
runs of plain CAM at 224 pixels (squashed, not refined), one with the map, one with the matches, are judged over the
pairs whose label has classes in both. GT-known: share of pairs whose box reaches an IoU of 0.5, percent. CorLoc: its
mean over labels.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

from camboxes.pipeline import EvaluateJob, LabelJob, evaluate, label
from camboxes.transforms.planning.label_matching import LabelMatcher
from camboxes.transforms.planning.unmatched import UnmatchedNameError
from camboxes.transforms.planning.wordnet.nouns import imagenet_names

PLAIN = {"method": "cam", "scales": (224,), "aspect": "squash", "refine": "none", "boxes": "largest"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each Nth image alone")
    arguments = parser.parse_args()
    by_hand = json.loads((arguments.data / "label_map.json").read_text())
    matcher, by_itself = LabelMatcher(imagenet_names()), {}
    print("| label | by hand | by itself |\n|---|---|---|")
    for name, classes in sorted(by_hand.items()):
        try:
            match = matcher.read(name)
            by_itself[name] = list(match.classes)
            print(f"| {name} | {matcher.words.shown(classes) or 'none'} | {matcher.words.shown(match.classes)} |")
        except UnmatchedNameError as error:
            print(f"| {name} | {matcher.words.shown(classes) or 'none'} | {str(error).partition('. ')[0]} |")
    both = {name for name, classes in by_hand.items() if classes and name in by_itself}
    same = sum(set(by_hand[name]) == set(by_itself[name]) for name in both)
    asked = [name for name, classes in by_hand.items() if classes and name not in by_itself]
    print(f"{len(by_itself)} of {len(by_hand)} match by themselves; {len(both)} with classes in both, {same} the same")
    print(f"asked, with classes by hand: {', '.join(asked) or 'none'}")
    for name, label_map in {"by hand": by_hand, "by itself": by_itself}.items():
        wanted = {label: label_map[label] if label in both else [] for label in by_hand}
        print(f"{name}: {judged(arguments.data, wanted, arguments.every)}", flush=True)


def judged(data: Path, label_map: dict, every: int) -> str:
    """GT-known and CorLoc of a run with a label map, with their intervals."""
    with tempfile.TemporaryDirectory() as folder:
        rows = list(csv.reader((data / "labels.csv").open()))
        kept = set(sorted({path for path, _ in rows[1:]})[::every])
        with Path(folder, "labels.csv").open("w") as file:
            csv.writer(file).writerows([rows[0], *(row for row in rows[1:] if row[0] in kept)])
        output = f"{folder}/run"
        label(LabelJob(input=f"{folder}/labels.csv", root=str(data), output=output, label_map=label_map, **PLAIN))
        found = evaluate(EvaluateJob(run=output, ground_truth=str(data / "instances.json")))
        figures = (found.figures[name].run for name in ("gt_known_50", "corloc"))
        known, corloc = (f"{one.value:.1f} ({one.low:.1f} to {one.high:.1f})" for one in figures)
        return f"GT-known {known}, CorLoc {corloc}"


if __name__ == "__main__":
    main()
