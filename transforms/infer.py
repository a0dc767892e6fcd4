"""The second step: maps, by one forward pass per image in batches of one shape."""

import collections
import hashlib
import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import apache_beam as beam
import numpy as np
from apache_beam.utils import shared
from apache_beam.utils.windowed_value import WindowedValue

from camboxes.models.networks.class_names import shown
from camboxes.models.spec import MapSpec, ModelSpec
from camboxes.transforms.boxes.second_look import SIDE, quarters
from camboxes.transforms.boxes.stored_maps import quantize
from camboxes.transforms.containers.any_format import Image
from camboxes.transforms.contents.shard_contents import contents, image_bytes
from camboxes.transforms.counters import count
from camboxes.transforms.images.decoding import DEFAULT_LIMITS, BadImageError, Limits, check_not_blank, decode_at_least
from camboxes.transforms.inference import stored_classifier
from camboxes.transforms.inference.salvage import Question, localize
from camboxes.transforms.ordered_threads import Batches, ThroughNetwork
from camboxes.transforms.planning.label_matching import (
    LabelMap,
    LabelMatcher,
    UnmatchedLabelsError,
    UnnamedClassesError,
)
from camboxes.transforms.planning.reuse import ReusableRows
from camboxes.transforms.records import MAPPED, OK, SKIPPED, Shard, rejected

if TYPE_CHECKING:
    import torch

    from camboxes.models import Localization, Localizer

_Row = dict[str, Any]
_Rectangle = tuple[int, int, int, int]


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class InferClassMaps(beam.PTransform):
    """Reads each shard's images, runs the network, and computes a map for every label of an image.

    The network is loaded once in each process. A forward pass has one fixed shape whatever a shard holds, and on a
    CPU it runs on one core, as many side by side as there are cores: a result's last bits depend on the batch's shape
    and on the number of threads that share it, and on nothing else. An image that cannot be read costs that image
    alone: its row is `rejected`, with a reason. A shard comes out, at its own timestamp and in its own window, when its
    last image has had its pass: that holds images of one shape, of this shard and the next, and is filled up with zeros
    where those, or the bundle, have no further one. Counters: decoded, rejected_REASON,
    milliseconds_decode and milliseconds_forward (summed over threads).
    """

    def __init__(
        self,
        model: str | ModelSpec = "efficientnet_lite0",
        maps: str | MapSpec = "cam",
        label_map: LabelMap | None = None,
        reuse: str | None = None,
        limits: Limits = DEFAULT_LIMITS,
        *,
        loaded: "Localizer | None" = None,
    ):
        """Takes a network and a method, by name or in full.

        Args:
          model: see `ModelSpec`.
          maps: see `MapSpec`.
          label_map: see `LabelMatcher`; for shards whose labels were not matched by a plan. There a label without
            a class is no error of the job: it gets no map, and an image without any other label is skipped.
          reuse: the folder of another run; see `ReusableRows`. Counter: reused.
          limits: larger images are rejected.
          loaded: model and maps, where this process has loaded them before: no other one is loaded in it.
        """
        super().__init__()
        model = ModelSpec(model) if isinstance(model, str) else model
        maps = MapSpec(maps) if isinstance(maps, str) else maps
        self._infer = _InferClassMaps(model, maps, label_map, reuse, limits)
        if loaded is not None:
            self._infer.hold(loaded)

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.ParDo(self._infer)


class _Open:
    """A shard whose images are on their way through the network.

    Attributes:
      shard: as it came.
      place: its timestamp and its windows.
      rows: those that it came with.
      done: under their numbers, those that have become something.
      found: likewise what the network said of an image so far.
    """

    def __init__(self, shard: Shard, place: tuple[Any, tuple[Any]]):
        self.shard = shard
        self.place = place
        self.rows: list[_Row] = shard.rows.to_pylist()
        self.done: dict[int, _Row] = {}
        self.found: dict[int, list[_Answered]] = collections.defaultdict(list)


class _Photograph(NamedTuple):
    """A row of a shard, and what became of its image: rectangles to look at, an error, or a row known already."""

    of: _Open
    number: int
    row: _Row
    digest: str | None = None
    width: int | None = None
    height: int | None = None
    rectangles: tuple[_Rectangle, ...] = ()
    error: BadImageError | None = None
    known: _Row | None = None


class _Look(NamedTuple):
    """A rectangle of a photograph, mostly the whole of it: pixels at each scale."""

    photograph: _Photograph
    rectangle: _Rectangle
    pixels: "tuple[torch.Tensor, ...]"


_Read = tuple[_Photograph, list[_Look]]
_Answered = tuple[_Look, "Localization | BadImageError"]


@beam.typehints.with_output_types(Shard)
class _InferClassMaps(beam.DoFn):
    def __init__(
        self,
        model: ModelSpec,
        maps: MapSpec,
        label_map: LabelMap | None,
        reuse: str | None,
        limits: Limits = DEFAULT_LIMITS,
    ):
        self._model = model
        self._maps = maps
        self._label_map = label_map
        self._reuse = reuse
        self._limits = limits
        self._shared = shared.Shared()
        self._localizer: Localizer
        self._matcher: LabelMatcher
        self._reusable: ReusableRows | None = None

    def hold(self, localizer: "Localizer") -> None:
        self._shared.acquire(lambda: localizer)

    def setup(self) -> None:
        from camboxes.models import Localizer
        from camboxes.models.execution.process import keep_freed_memory

        self._localizer = self._shared.acquire(lambda: Localizer(stored_classifier.load(self._model), self._maps))
        keep_freed_memory()  # not what staging the network took
        self._matcher = LabelMatcher(self._localizer.classifier.class_names, self._label_map)
        if self._reuse is not None:
            self._reusable = ReusableRows(self._reuse, self._localizer.settings)

    def start_bundle(self) -> None:
        localizer = self._localizer
        self._open = collections.deque[_Open]()
        self._waiting: Batches[_Look] = Batches(localizer.batch_size, lambda look: localizer.companions(look.pixels))
        self._network = ThroughNetwork(localizer.classifier, self._read, self._batches, self._localize)

    def process(
        self, shard: Shard, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue]:
        """Takes a shard, and gives those whose last image has come through the network: mostly the one before.

        So while boxes are drawn on that one and written, the network has images of this one.
        """
        opened = _Open(shard, (timestamp, (window,)))
        self._open.append(opened)
        try:
            for item in _items(opened):
                self._take(self._network.put(item))
                yield from self._complete()
            yield from self._complete()  # one without rows
        except BaseException:  # also GeneratorExit, where a step fails that takes what is yielded
            self._network.close()  # Beam gives such a bundle up, without finish_bundle
            raise

    def finish_bundle(self) -> Iterator[WindowedValue]:
        try:
            self._take(self._network.rest(self._waiting.rest()))
        finally:
            self._network.close()
        yield from self._complete()

    def teardown(self) -> None:
        if hasattr(self, "_network"):  # there was a bundle
            self._network.close()

    def _take(self, passed: Iterable[tuple[list[_Answered], int]]) -> None:
        """Takes what came through the network; a row is done with its image's last look."""
        for answers, halved in passed:
            count("halved_batches", halved)
            for look, answer in answers:
                photograph = look.photograph
                found = photograph.of.found[photograph.number]
                found.append((look, answer))
                if len(found) == len(photograph.rectangles):
                    photograph.of.done[photograph.number] = self._answered(photograph, found)
                    del photograph.of.found[photograph.number]

    def _complete(self) -> Iterator[WindowedValue]:
        """The shards all of whose rows are done, in the order in which they were opened."""
        while self._open and len(self._open[0].done) == len(self._open[0].rows):
            opened = self._open.popleft()
            rows = [opened.done[number] for number in range(len(opened.rows))]
            settings = self._localizer.settings | self._limits.settings
            yield WindowedValue(opened.shard.extended(rows, MAPPED, settings), *opened.place)

    def _batches(self, read: _Read) -> Iterator[list[_Look]]:
        """The batches that are complete with an image; one that is not looked at is done.

        A shard's last images of a shape wait for those of the next shard.
        """
        photograph, looks = read
        if photograph.error is not None:
            photograph.of.done[photograph.number] = _rejected(photograph, photograph.error)
        elif photograph.known is not None:
            count("reused")
            photograph.of.done[photograph.number] = photograph.known
        yield from self._waiting.put(looks)
        # For no further ones: a shard's file is what a killed job keeps.
        if photograph.number == len(photograph.of.rows) - 1:
            yield from self._waiting.rest(lambda look: look.photograph.of is not photograph.of)

    @property
    def _side(self) -> int:
        """How many pixels a photograph's short side is decoded to at least: two for one of the largest scale's.

        With no more than one for one, one box in ten is another: docs/speed.md.
        """
        settings = self._localizer.settings
        return math.ceil(2 * max(settings["scales"]) / (SIDE if settings["second_look"] else 1))

    def _read(self, given: tuple[_Open, int, _Row, Image | None]) -> _Read:
        from camboxes.transforms.inference.jpegs import decode_jpeg

        opened, number, row, content = given
        photograph = _Photograph(opened, number, row)
        for label in photograph.row["labels"]:
            if label["class_indices"] is None:
                label["class_indices"] = self._match(label)
        try:
            data = image_bytes(row, content, self._limits)
            digest = hashlib.sha256(data).hexdigest()
            photograph = photograph._replace(digest=digest)
            if self._reusable is not None and (known := self._reusable.find(digest, photograph.row)) is not None:
                self._limits.check_pixels(known["width"], known["height"])
                return photograph._replace(known=known), []
            pixels, width, height = decode_at_least(data, self._side, decode_jpeg, self._limits)
            check_not_blank(pixels)
        except BadImageError as error:
            return photograph._replace(error=error), []
        second = quarters(width, height) if self._localizer.settings["second_look"] else ()
        photograph = photograph._replace(width=width, height=height, rectangles=((0, 0, width, height), *second))
        return photograph, [
            _Look(photograph, rectangle, self._localizer.resize(_crop(pixels, rectangle, width, height)))
            for rectangle in photograph.rectangles
        ]

    def _match(self, label: _Row) -> tuple[int, ...]:
        if label["category_id"] is None:
            return ()
        try:
            return self._matcher.match(label["label"])
        except UnnamedClassesError:  # of no image, ever
            raise
        except UnmatchedLabelsError:
            return ()

    def _localize(self, batch: list[_Look]) -> tuple[list[_Answered], int]:
        """The answers to looks, and how often the batch was halved."""
        questions = [
            Question(
                look.pixels,
                [label["class_indices"] for label in look.photograph.row["labels"] if label["class_indices"]],
            )
            for look in batch
        ]
        answers, halved = localize(self._localizer, questions)
        return list(zip(batch, answers, strict=True)), halved

    def _answered(self, photograph: _Photograph, answers: list[_Answered]) -> _Row:
        for _, answer in answers:
            if isinstance(answer, BadImageError):
                return _rejected(photograph, answer)
        return self._mapped(photograph, cast("list[tuple[_Look, Localization]]", answers))

    def _mapped(self, photograph: _Photograph, looks: "list[tuple[_Look, Localization]]") -> _Row:
        """A row from what was seen of its image, in whatever order; what the network says of it is of the whole."""
        looks.sort(key=lambda found: photograph.rectangles.index(found[0].rectangle))
        localization = looks[0][1]
        if not np.isfinite(localization.logits).all():
            return _rejected(photograph, BadImageError("not_finite", "the network's output holds NaN or infinity"))
        count("decoded")
        labels: list[_Row] = []
        maps: list[_Row] = []
        plain: list[_Row] = []
        for planned in photograph.row["labels"]:
            label = {name: planned[name] for name in ("label", "category_id")}
            if planned["class_indices"]:
                number = len(maps) // len(looks)  # among the labels that have a class
                index = localization.class_ids[number]
                label |= {
                    "class_index": index,
                    "logit": localization.logits[index],
                    "probability": localization.probabilities[index],
                }
                for look, of_look in looks:
                    maps.append(self._entry(label, look, of_look, number, plain=False))
                    if self._localizer.settings["keep_plain"]:
                        plain.append(self._entry(label, look, of_look, number, plain=True))
            labels.append(label)
        names = self._localizer.classifier.class_names
        return _read_of(photograph) | {
            "image_id": photograph.row["image_id"],
            "path": photograph.row["path"],
            "status": OK if maps else SKIPPED,
            "reason": None if maps else "no_class: none of its labels stands for a class of the network",
            "labels": labels,
            "top5": [
                {"class_index": index, "name": shown(names, index), "probability": localization.probabilities[index]}
                for index in localization.best
            ],
            "maps": maps,
            "plain_maps": plain,
        }

    def _entry(self, label: _Row, look: _Look, localization: "Localization", number: int, *, plain: bool) -> _Row:
        """An entry of the column `maps`: of a label, the classes' number `number`."""
        maps = localization.plain if plain else localization.maps
        assert maps is not None, "asked for only where plain maps are kept"
        method, refined = (self._localizer.settings[name] for name in ("method", "refine"))
        return {
            "category_id": label["category_id"],
            **quantize(maps[number]).entry(),
            "rectangle": list(look.rectangle),
            "method": method if plain or refined == "none" else f"{refined}({method})",
            "scales": self._localizer.settings["scales"],
            **{name: _known(getattr(localization, name)[number]) for name in ("coherence", "agreement")},
        }


def _crop(pixels: np.ndarray, rectangle: _Rectangle, width: int, height: int) -> np.ndarray:
    """What of a photograph of width x height lies in a rectangle of it, where fewer pixels may have been decoded."""
    x, y, wide, high = rectangle
    rows, columns = pixels.shape[:2]
    left, right = round(x * columns / width), round((x + wide) * columns / width)
    top, bottom = round(y * rows / height), round((y + high) * rows / height)
    return pixels[top:bottom, left:right]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _items(opened: _Open) -> Iterator[tuple[_Open, int, _Row, Image | None]]:
    """Its rows, and what is known of their images without opening a file of their own for each."""
    for number, (row, content) in enumerate(zip(opened.rows, contents(opened.rows), strict=True)):
        yield opened, number, row, content


def _rejected(photograph: _Photograph, error: BadImageError) -> _Row:
    count(f"rejected_{error.code}")
    return rejected(photograph.row | _read_of(photograph), str(error))


def _read_of(photograph: _Photograph) -> _Row:
    """What is known of an image whatever becomes of it."""
    return {name: getattr(photograph, name) for name in ("digest", "width", "height")}
