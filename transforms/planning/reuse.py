"""Finished rows of another run, looked up by the digest of an image's bytes."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from camboxes.transforms.planning.plan import PlannedRun, read_shard
from camboxes.transforms.records import OK, REJECTED
from camboxes.transforms.settings import in_words, settings_that_differ

_Row = dict[str, Any]


class ReusableRows:
    """Finds the row that another run inferred for an image with the same bytes.

    A row is reused only if inference would give the same bytes: the other run has the same method, network, weights and
    settings; the image has the same content and the same labels, which stand for the same classes. Its path may differ.
    Holds 40 bytes for each row of the run, and the shards that were used last.
    """

    def __init__(self, run: str, settings: Mapping[str, Any]):
        """Indexes a run's finished shards; the settings are `method` and `model` of the current job.

        Raises:
          ValueError: there is no run, or it has other settings.
        """
        planned = reusable(run, settings)
        self._classes = {category.name: list(category.class_indices) for category in planned.categories}
        self._keys = planned.written()
        digests, places = [], []
        for file, key in enumerate(self._keys):
            for number, row in enumerate(read_shard(run, key, ["digest", "status"]).rows.to_pylist()):
                if row["status"] != REJECTED:
                    digests.append(bytes.fromhex(row["digest"]))
                    places.append((file, number))
        order = np.argsort(np.array(digests, "S32"), kind="stable")
        self._digests = np.array(digests, "S32")[order]
        self._places = np.array(places, np.int32).reshape(-1, 2)[order]
        self._shard = functools.lru_cache(maxsize=64)(functools.partial(read_shard, run))

    def find(self, digest: str, planned: _Row) -> _Row | None:
        """The row that inference would give for an image with this SHA-256; None if the run does not have it.

        `planned` is the image's row in the schema PLANNED, with a label that stands for a class.
        """
        place = int(np.searchsorted(self._digests, bytes.fromhex(digest)))
        while place < len(self._digests) and self._digests[place].ljust(32, b"\0") == bytes.fromhex(digest):
            file, number = self._places[place]
            row = self._shard(self._keys[file]).rows.slice(number, 1).to_pylist()[0]
            known = [(label["label"], self._classes[label["label"]]) for label in row["labels"]]
            if known == [(label["label"], list(label["class_indices"])) for label in planned["labels"]]:
                return _with_ids_of(planned, row)
            place += 1
        return None


def reusable(run: str, settings: Mapping[str, Any]) -> PlannedRun:
    """The plan of a run whose rows may be reused. Arguments and errors: see `ReusableRows`."""
    planned = PlannedRun.load(run)
    if planned is None:
        raise ValueError(f"{run!r} holds no run to take rows from; expected the --output of camboxes label")
    if differing := settings_that_differ({name: planned.settings.get(name) for name in settings}, settings):
        raise ValueError(f"the rows of {run!r} cannot be taken over: the call asks for {in_words(differing)}")
    return planned


def _with_ids_of(planned: _Row, row: _Row) -> _Row:
    """A row with the ids of the current job."""
    now = {label["label"]: label["category_id"] for label in planned["labels"]}
    before = {label["category_id"]: label["label"] for label in row["labels"]}
    return row | {
        "image_id": planned["image_id"],
        "path": planned["path"],
        "status": OK,
        "reason": None,
        "labels": [label | {"category_id": now[label["label"]]} for label in row["labels"]],
        **{
            column: [stored | {"category_id": now[before[stored["category_id"]]]} for stored in row[column]]
            for column in ("maps", "plain_maps")
        },
    }
