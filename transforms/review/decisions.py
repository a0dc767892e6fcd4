"""The decisions of a review, in OUT/review.jsonl, independent of any database and threshold.

The file has one JSON object a line. Lines are appended and never changed, so the file is also the history. The last
valid line about an image counts; a line `undone` cancels the valid line before it. A last line without a newline that
is no JSON was left by a killed process, and is ignored.
"""

import dataclasses
import datetime
import fcntl
import json
import math
import os
from collections import defaultdict
from typing import Any, Literal, get_args

from camboxes.transforms import storage
from camboxes.transforms.records import MACHINE, PERSON

FILE = "review.jsonl"

Verdict = Literal["accepted", "rejected", "skipped", "undone"]

# The fields that only a network's box has; a box that a person moved keeps its box_uid, too.
_DRAWN = ("score", "threshold", "method", "rank", "component_area")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclasses.dataclass(frozen=True)
class DecidedBox:
    """A box on an image at the time of a decision.

    Attributes:
      label, category_id: one of the run's categories.
      bbox: x, y, width, height in pixels of the upright image.
      source: "machine" for an unchanged box; "person" for one that a person added, moved or relabelled.
      box_uid: the box's identifier in the run, also if a person moved it; None if a person added it.
      score, calibrated_score, threshold, method, rank, component_area: as in the run; None for a person's box.
        calibrated_score is also None if the run is not calibrated.

    Raises:
      ValueError: the box has no width or height, or its fields do not fit its source.
    """

    label: str
    category_id: int
    bbox: tuple[float, float, float, float]
    source: str = PERSON
    box_uid: str | None = None
    score: float | None = None
    calibrated_score: float | None = None
    threshold: float | None = None
    method: str | None = None
    rank: int | None = None
    component_area: float | None = None

    def __post_init__(self) -> None:
        x, y, width, height = bbox = tuple(float(number) for number in self.bbox)
        if not all(map(math.isfinite, bbox)) or width <= 0 or height <= 0:
            raise ValueError(
                f"the box of {self.label!r} is x {x:g}, y {y:g}, {width:g} x {height:g} pixels; expected finite "
                "numbers and an extent above 0"
            )
        if self.source == MACHINE:
            if lacking := [name for name in ("box_uid", *_DRAWN) if getattr(self, name) is None]:
                raise ValueError(f"a machine's box of {self.label!r} has no {', '.join(lacking)}; expected a value")
        elif self.source != PERSON:
            raise ValueError(f"source is {self.source!r}; expected {MACHINE!r} or {PERSON!r}")
        elif given := [name for name in ("calibrated_score", *_DRAWN) if getattr(self, name) is not None]:
            raise ValueError(f"a person's box of {self.label!r} has {', '.join(given)}; expected none")
        object.__setattr__(self, "bbox", bbox)


@dataclasses.dataclass(frozen=True)
class Decision:
    """A person's decision about one image.

    Attributes:
      path: the image's identity, as in the shards.
      image_id: its id in the run that was reviewed.
      verdict: "accepted"; "rejected": none of its boxes is right; "skipped": seen, and not decided; or "undone":
        cancels the last valid decision about the image.
      time: ISO 8601, UTC; the current time by default.
      boxes: the boxes on the image. If it was accepted, they replace the run's boxes; no boxes means that there is no
        object. If it was rejected, they are wrong.

    Raises:
      ValueError: the verdict is unknown, or the time is not ISO 8601.
    """

    path: str
    image_id: int
    verdict: Verdict
    time: str = dataclasses.field(default_factory=_now)
    boxes: tuple[DecidedBox, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in get_args(Verdict):
            raise ValueError(f"verdict is {self.verdict!r}; expected one of {', '.join(get_args(Verdict))}")
        datetime.datetime.fromisoformat(self.time)
        object.__setattr__(self, "boxes", tuple(self.boxes))

    @classmethod
    def from_json(cls, value: Any) -> "Decision":
        """Reads what `as_json` gives; raises a ValueError if the value is no decision."""
        try:
            return cls(**value | {"boxes": tuple(DecidedBox(**box) for box in value["boxes"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def as_json(self) -> dict[str, Any]:
        """The decision as a JSON object, for a line of the file."""
        return dataclasses.asdict(self)


def read_decisions(run: str) -> dict[str, Decision]:
    """Reads the valid decisions about a run, by path, in the order in which they were made.

    Raises:
      ValueError: a line is not a decision; names the file and the line.
    """
    stood: defaultdict[str, list[tuple[int, Decision]]] = defaultdict(list)
    for number, decision in enumerate(_read(run)):
        if decision.verdict != "undone":
            stood[decision.path].append((number, decision))
        elif stood[decision.path]:
            stood[decision.path].pop()
    last = sorted((of_path[-1] for of_path in stood.values() if of_path), key=lambda item: item[0])
    return {decision.path: decision for _, decision in last}


def append_decision(run: str, decision: Decision) -> None:
    """Appends a decision to a run's file, and syncs it to the disk. Several processes may do so at the same time.

    Raises:
      ValueError: the run is on a store, where files cannot be appended to.
      OSError: the line could not be written completely; it is ignored then.
    """
    if not storage.is_local(run):
        raise ValueError(f"run {run!r} is on a store, where nothing can be added to a file; review a local copy of it")
    line = json.dumps(decision.as_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    file = os.open(storage.join(run, FILE), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, so that no unfinished line is read
        line = _mended(file) + line
        if os.write(file, line) < len(line):
            raise OSError(f"{storage.join(run, FILE)!r} got only a part of a decision; is the disk full?")
        os.fsync(file)
    finally:
        os.close(file)


def check_carried(run: str, output: str) -> None:
    """Refuses to carry a run's decisions over to a folder if decisions in that folder would be lost.

    Raises:
      ValueError: the folder's file is not an earlier state of the run's file, or a line of either is not a decision.
    """
    others = _read(output)
    if _read(run)[: len(others)] != others:
        raise ValueError(
            f"{storage.join(output, FILE)!r} holds decisions that {storage.join(run, FILE)!r} does not; choose another "
            "--output, or move that file away"
        )


def carry_decisions(run: str, output: str) -> None:
    """Copies a run's decisions, if it has any, to another run's folder; see `check_carried`."""
    path = storage.join(run, FILE)
    if storage.exists(path):
        storage.write_bytes(storage.join(output, FILE), storage.read_bytes(path))


def _read(run: str) -> list[Decision]:
    """Reads every line of a run's file, in order."""
    path = storage.join(run, FILE)
    if not storage.exists(path):
        return []
    *lines, tail = storage.read_bytes(path).split(b"\n")
    decisions = []
    for number, line in enumerate([*lines, tail] if _is_whole(tail) else lines, start=1):
        try:
            decisions.append(Decision.from_json(json.loads(line)))
        except ValueError as error:
            remedy = "correct the line, or delete it"
            raise ValueError(f"{path!r}, line {number} is no decision ({error}); {remedy}") from None
    return decisions


def _is_whole(tail: bytes) -> bool:
    """Whether the text after the last newline is a complete line: a part of a JSON object is never JSON."""
    try:
        json.loads(tail)
    except ValueError:
        return False
    return True


def _mended(file: int) -> bytes:
    """Removes an incomplete line from the end of an open file; returns what must precede the next line."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return b""
    content = os.pread(file, size, 0)
    end = content.rfind(b"\n") + 1
    if _is_whole(content[end:]):
        return b"\n"
    os.ftruncate(file, end)
    return b""
