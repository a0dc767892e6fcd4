"""The second step: maps, by one forward pass per image in batches of one shape."""

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam
import numpy as np
from apache_beam.utils import shared

from camboxes.models.spec import ModelSpec
from camboxes.transforms import storage
from camboxes.transforms.images import BadImageError, decode
from camboxes.transforms.labels import LabelMap, LabelMatcher, UnmatchedLabelsError
from camboxes.transforms.maps import quantize
from camboxes.transforms.metering import count, milliseconds
from camboxes.transforms.records import MAPPED, OK, REJECTED, SKIPPED, Shard

if TYPE_CHECKING:
    import torch

    from camboxes.models import Classifier, Localization

_Row = dict[str, Any]

_DECODERS = 2  # threads that read and decode ahead of the network
_BATCHES_AHEAD = 2


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class InferClassMaps(beam.PTransform):
    """Reads each shard's images, runs the network, and computes a class activation map for every label of an image.

    The network is loaded once in each process. A forward pass has one fixed shape whatever a shard holds, because a
    result's last bits depend on the batch's shape (and on nothing else of the batch). An image that cannot be read
    costs that image alone: its row is `rejected`, with a reason. Counters: decoded, rejected_REASON,
    milliseconds_decode (summed over threads), milliseconds_forward.
    """

    def __init__(self, model: str | ModelSpec = "efficientnet_lite0", label_map: LabelMap | None = None):
        """Takes a network, by name or in full.

        Args:
          model: see `ModelSpec`.
          label_map: see `LabelMatcher`; for shards whose labels were not matched by a plan. There a label without
            a class is no error of the job: it gets no map, and an image without any other label is skipped.
        """
        super().__init__()
        self._model = ModelSpec(model) if isinstance(model, str) else model
        self._label_map = label_map

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.ParDo(_InferClassMaps(self._model, self._label_map))


class _Photograph(NamedTuple):
    """What decoding made of a row's image: pixels for the network, or the reason why there are none."""

    seconds: float
    digest: str | None = None
    width: int | None = None
    height: int | None = None
    pixels: "torch.Tensor | None" = None
    error: BadImageError | None = None


@beam.typehints.with_output_types(Shard)
class _InferClassMaps(beam.DoFn):
    def __init__(self, model: ModelSpec, label_map: LabelMap | None):
        self._model = model
        self._label_map = label_map
        self._shared = shared.Shared()
        self._classifier: Classifier
        self._matcher: LabelMatcher

    def setup(self) -> None:
        from camboxes.models import load_classifier

        self._classifier = self._shared.acquire(lambda: load_classifier(self._model), tag=self._model)
        self._matcher = LabelMatcher(self._classifier.class_names, self._label_map)

    def process(self, shard: Shard) -> Iterator[Shard]:
        rows = shard.rows.to_pylist()
        for label in itertools.chain.from_iterable(row["labels"] for row in rows):
            if label["class_indices"] is None:
                label["class_indices"] = self._match(label)
        mapped: dict[int, _Row] = {}
        waiting: dict[tuple[int, ...], dict[int, _Photograph]] = {}
        for index, photograph in self._photographs(rows):
            count("milliseconds_decode", round(photograph.seconds * 1000))
            if photograph.error is not None:
                count(f"rejected_{photograph.error.code}")
                mapped[index] = _rejected(rows[index], photograph)
                continue
            count("decoded")
            batch = waiting.setdefault(tuple(photograph.pixels.shape), {})
            batch[index] = photograph
            if len(batch) == self._classifier.spec.batch_size:
                mapped |= self._infer(rows, batch)
                batch.clear()
        for batch in filter(None, waiting.values()):
            mapped |= self._infer(rows, batch)
        settings = {"method": "cam", "model": self._classifier.settings}
        yield shard.extended((mapped[index] for index in range(len(rows))), MAPPED, settings)

    def _match(self, label: _Row) -> tuple[int, ...]:
        if label["category_id"] is None:
            return ()
        try:
            return self._matcher.match(label["label"])
        except UnmatchedLabelsError:
            return ()

    def _photographs(self, rows: Sequence[_Row]) -> Iterator[tuple[int, _Photograph]]:
        """Reads and decodes in threads, a bounded number of images ahead of the network."""
        ahead = _BATCHES_AHEAD * self._classifier.spec.batch_size
        with ThreadPoolExecutor(_DECODERS) as threads:
            waiting: deque[Future[_Photograph]] = deque()
            upcoming = iter(rows)
            for index in range(len(rows)):
                waiting += (threads.submit(self._read, row) for row in itertools.islice(upcoming, ahead - len(waiting)))
                yield index, waiting.popleft().result()

    def _read(self, row: _Row) -> _Photograph:
        start = time.perf_counter()
        digest = None
        try:
            data = _bytes(row)
            digest = hashlib.sha256(data).hexdigest()
            image = decode(data)
        except BadImageError as error:
            return _Photograph(time.perf_counter() - start, digest, error=error)
        pixels = self._classifier.preprocessing.resize(image)
        return _Photograph(time.perf_counter() - start, digest, image.shape[1], image.shape[0], pixels)

    def _infer(self, rows: Sequence[_Row], batch: dict[int, _Photograph]) -> dict[int, _Row]:
        """The rows of one batch, by their index in the shard."""
        from camboxes.models import localize

        candidates = [
            [label["class_indices"] for label in rows[index]["labels"] if label["class_indices"]] for index in batch
        ]
        with milliseconds("forward"):
            found = localize(self._classifier, [photograph.pixels for photograph in batch.values()], candidates)
        return {
            index: self._mapped(rows[index], photograph, localization)
            for (index, photograph), localization in zip(batch.items(), found, strict=True)
        }

    def _mapped(self, row: _Row, photograph: _Photograph, localization: "Localization") -> _Row:
        if not np.isfinite(localization.logits).all():
            error = BadImageError("not_finite", "the network's output holds NaN or infinity")
            count(f"rejected_{error.code}")
            return _rejected(row, photograph._replace(error=error))
        best = np.argsort(-localization.probabilities, kind="stable")[:5]
        slots = itertools.count()
        labels, maps = [], []
        for label in row["labels"]:
            slot = next(slots) if label["class_indices"] else None
            labels.append(_label(label, localization, slot))
            if slot is not None:
                maps.append(self._map(label, photograph, localization.maps[slot]))
        return _mapped_row(row, photograph) | {
            "status": OK if maps else SKIPPED,
            "reason": None if maps else "no_class: none of its labels stands for a class of the network",
            "labels": labels,
            "top5": [
                {"class_index": i, "name": self._classifier.class_names[i][0], "probability": localization.probabilities[i]}
                for i in best.tolist()
            ],
            "maps": maps,
        }

    def _map(self, label: _Row, photograph: _Photograph, score_map: np.ndarray) -> _Row:
        stored = quantize(score_map)
        return {
            "category_id": label["category_id"],
            "height": stored.cells.shape[0],
            "width": stored.cells.shape[1],
            "raw_min": stored.raw_min,
            "raw_max": stored.raw_max,
            "cells": stored.cells.tobytes(),
            "rectangle": [0, 0, photograph.width, photograph.height],
            "method": "cam",
            "scales": [self._classifier.spec.size],
        }


def _bytes(row: _Row) -> bytes:
    if row["reason"]:
        raise BadImageError(*row["reason"].split(": ", 1))
    if row["image"] is not None:
        return row["image"]
    try:
        return storage.read_bytes(row["location"])
    except FileNotFoundError:
        raise BadImageError("missing", "there is no file at this path") from None
    except Exception as error:  # a folder, no permission, a store's own errors
        raise BadImageError("unreadable", f"{type(error).__name__}: {error}") from error


def _label(label: _Row, localization: "Localization", slot: int | None) -> _Row:
    chosen = {name: label[name] for name in ("label", "category_id")}
    if slot is None:
        return chosen
    index = localization.class_ids[slot]
    return chosen | {
        "class_index": index,
        "logit": localization.logits[index],
        "probability": localization.probabilities[index],
    }


def _mapped_row(row: _Row, photograph: _Photograph) -> _Row:
    return {name: row[name] for name in ("image_id", "path")} | {
        name: getattr(photograph, name) for name in ("digest", "width", "height")
    }


def _rejected(row: _Row, photograph: _Photograph) -> _Row:
    labels = [{name: label[name] for name in ("label", "category_id")} for label in row["labels"]]
    return _mapped_row(row, photograph) | {
        "status": REJECTED,
        "reason": str(photograph.error),
        "labels": labels,
        "top5": [],
        "maps": [],
    }
