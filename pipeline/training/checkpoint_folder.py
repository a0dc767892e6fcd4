"""The folder that a training writes: what it may hold, and whether it holds the same training."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from camboxes.models.counts import counted
from camboxes.transforms import storage
from camboxes.transforms.settings import in_words, settings_that_differ

RECORD, FINISHED = "training.json", "classifier.json"  # RECORD marks the folder as a training's
FEATURES, HEAD, EVERYTHING = WORKING = ("features", "head", "everything")  # needed until the training is finished
REJECTED, COPIES = LISTS = ("rejected.csv", "copies.csv")
CONTENTS = (FINISHED, "weights.safetensors", *LISTS, *WORKING, RECORD)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet executes a cell that begins with one of these


def check_same(output: str, record: Mapping[str, Any]) -> None:
    """Refuses a folder that holds another training, or files that no training wrote.

    Raises:
      ValueError: it holds one of these; says what differs.
    """
    present = [name for name in CONTENTS if Path(output, name).exists()]
    if present and RECORD not in present:
        raise ValueError(
            f"--output {output!r} holds {', '.join(present)}, which are not from a training (training.json is "
            "missing); choose another folder"
        )
    before = storage.read_json(storage.join(output, RECORD)) if present else record
    then = {name: before["settings"].get(name) for name in record["settings"]}
    differing = settings_that_differ(then, record["settings"])
    differences = [f"the call asks for {in_words(differing)}"] if differing else []
    if before["input"] != record["input"]:
        images = f"{counted(before['images'], 'image')} then, {record['images']:,} now"
        differences.append(f"the input's paths or labels changed ({images})")
    # Files below another root may be others of the same names, and features are kept of the first.
    if before.get("root") != record["root"]:
        differences.append(f"the images lay below {before.get('root')!r}, lie below {record['root']!r}")
    if differences:
        raise ValueError(
            f"--output {output!r} holds another training: {'; '.join(differences)}. "
            "Choose another folder, or replace it with --overwrite"
        )


def write_table(file: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Writes a CSV file. A path that a spreadsheet would execute gets a leading "./"; other cells never do."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(header)
    for row in rows:
        table.writerow([f"./{cell}" if cell.startswith(_FORMULA) else cell for cell in row])
    storage.write_bytes(str(file), text.getvalue().encode())
