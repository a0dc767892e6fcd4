"""What people decided about a run's images: OUT/review.jsonl, which outlives every database and every new threshold.

One JSON object a line; lines are added at the end and never changed, so the file is the history too. Of each image the
last line that stands counts: a line `undone` takes the one that stood before it back. A line that a killed process left
half-written is the file's last one and ends without a newline; it counts as never written.
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

# What a network's box has, and a person's has not; box_uid stays with a box that a person moved.
_DRAWN = ("score", "threshold", "method", "rank", "component_area")


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


@dataclasses.dataclass(frozen=True)
class DecidedBox:
    """A box as it stood on an image when somebody decided.

    Attributes:
      label, category_id: of the run's categories.
      bbox: x, y, width, height in pixels of the upright image.
      source: "machine" for a box as it was drawn; "person" for one that a person added, moved or relabelled.
      box_uid: the machine's name for it, also where a person moved it; None where a person added it.
      score, calibrated_score, threshold, method, rank, component_area: as in the run; None where a person drew it, and
        calibrated_score also where the run is not calibrated.

    Raises:
      ValueError: the box has no extent, or its fields do not fit its source.
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
    """What a person decided about one image.

    Attributes:
      path: the image's identity, as in the shards.
      image_id: in the run that was reviewed.
      verdict: "accepted"; "rejected", none of its boxes is right; "skipped", seen and nothing decided; or "undone", the
        decision about the image that stood until now is taken back.
      time: ISO 8601, UTC; now where it is not given.
      boxes: what stood on the image. Of an accepted image they are what counts from now on, and none at all means that
        nothing is there to be found; of a rejected one they are what was judged wrong.

    Raises:
      ValueError: there is no such verdict, or the time is none.
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
        """The inverse of as_json.

        Raises:
          ValueError: it is no decision.
        """
        try:
            return cls(**value | {"boxes": tuple(DecidedBox(**box) for box in value["boxes"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from None

    def as_json(self) -> dict[str, Any]:
        """A line of the file."""
        return dataclasses.asdict(self)


def read_decisions(run: str) -> dict[str, Decision]:
    """The decisions about a run that stand, by path; the one that was made last comes last.

    Args:
      run: the run's folder, local or on any Beam filesystem.

    Raises:
      ValueError: a line is no decision; names file and line.
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
    """Adds a decision to a run's file, on the disk when this returns. Any number of processes may do so at a time.

    Raises:
      ValueError: the run is on a store, where nothing can be added to a file.
      OSError: the line could not be written in full, and so counts as never written.
    """
    if not storage.is_local(run):
        raise ValueError(f"run {run!r} is on a store, where nothing can be added to a file; review a local copy of it")
    line = json.dumps(decision.as_json(), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    file = os.open(storage.join(run, FILE), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed; else a line that is just being written looks torn
        line = _mended(file) + line
        if os.write(file, line) < len(line):
            raise OSError(f"{storage.join(run, FILE)!r} took a part of a decision alone; is the disk full?")
        os.fsync(file)
    finally:
        os.close(file)


def check_carried(run: str, output: str) -> None:
    """Refuses a folder whose own decisions would be lost if a run's were carried over to it.

    Raises:
      ValueError: its file holds more than an earlier state of the run's, or a line of either is no decision.
    """
    others = _read(output)
    if _read(run)[: len(others)] != others:
        raise ValueError(
            f"{storage.join(output, FILE)!r} holds decisions that {storage.join(run, FILE)!r} does not; choose another "
            "--output, or move that file away"
        )


def carry_decisions(run: str, output: str) -> None:
    """Takes a run's file, where it has one, over into another run's folder; see `check_carried`."""
    path = storage.join(run, FILE)
    if storage.exists(path):
        storage.write_bytes(storage.join(output, FILE), storage.read_bytes(path))


def _read(run: str) -> list[Decision]:
    """Every line of a run's file, in order."""
    path = storage.join(run, FILE)
    if not storage.exists(path):
        return []
    *lines, tail = storage.read_bytes(path).split(b"\n")
    decisions = []
    for number, line in enumerate([*lines, tail] if _is_whole(tail) else lines, start=1):
        try:
            decisions.append(Decision.from_json(json.loads(line)))
        except ValueError as error:
            raise ValueError(
                f"{path!r}, line {number} is no decision ({error}); correct the line, or delete it"
            ) from None
    return decisions


def _is_whole(tail: bytes) -> bool:
    """Whether what follows the last newline is a line that merely lacks its own: no part of a JSON object is JSON."""
    try:
        json.loads(tail)
    except ValueError:
        return False
    return True


def _mended(file: int) -> bytes:
    """Removes a torn line from the end of an open file; returns what has to go before the next line."""
    size = os.fstat(file).st_size
    if size == 0 or os.pread(file, 1, size - 1) == b"\n":
        return b""
    content = os.pread(file, size, 0)
    end = content.rfind(b"\n") + 1
    if _is_whole(content[end:]):
        return b"\n"
    os.ftruncate(file, end)
    return b""
