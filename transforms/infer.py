"""The second step: class activation maps, by one forward pass for each image in batches of one shape."""

import collections
import dataclasses
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.utils import shared
from apache_beam.utils.windowed_value import WindowedValue

from camboxes.models.spec import MapSpec, ModelSpec
from camboxes.transforms import storage
from camboxes.transforms.contents.shard_contents import contents
from camboxes.transforms.counters import count, images_done
from camboxes.transforms.images.decoding import DEFAULT_LIMITS, Limits
from camboxes.transforms.inference.image_loading import ImageLoader, PlannedImage
from camboxes.transforms.inference.rows import RowBuilder
from camboxes.transforms.inference.scheduling import Answered, Scheduler
from camboxes.transforms.planning.label_matching import LabelMap, LabelMatcher
from camboxes.transforms.planning.reuse import ReusableRows
from camboxes.transforms.records import MAPPED, REJECTED, Shard

if TYPE_CHECKING:
    from camboxes.models import Classifier, Localizer


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class InferClassMaps(beam.PTransform):
    """Reads each shard's images, runs the network, and computes a map for every label of an image.

    The network is loaded once in each process. Every forward pass has one fixed shape, and on a CPU it runs on one
    core, with as many passes side by side as there are cores. The last bits of a result depend on the shape of the
    batch and on the number of threads that share a pass, and on nothing else. A batch holds images of one shape, of a
    shard and the next one; it is filled up with zeros where there are no further ones.

    An image that cannot be read costs that image alone: its row is `rejected`, with a reason. A shard is emitted when
    its last image has had its pass, at its own timestamp and in its own window.

    Counters: decoded, rejected_REASON, reused, halved_batches, milliseconds_decode and milliseconds_forward (summed
    over threads).
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
          label_map: see `LabelMatcher`; for shards whose labels no plan has matched. There a label without a class does
            not fail the job: it gets no map, and an image without any other label is skipped.
          reuse: the folder of another run; see `ReusableRows`.
          limits: larger images are rejected.
          loaded: model and maps that this process has loaded already; it does not load them again.
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


@beam.typehints.with_output_types(Shard)
@dataclasses.dataclass(eq=False)
class _InferClassMaps(beam.DoFn):
    _model: ModelSpec
    _maps: MapSpec
    _label_map: LabelMap | None
    _reuse: str | None
    _limits: Limits = DEFAULT_LIMITS
    _shared: shared.Shared = dataclasses.field(default_factory=shared.Shared)

    def hold(self, localizer: "Localizer") -> None:
        self._shared.acquire(lambda: localizer)

    def setup(self) -> None:
        from camboxes.models import Localizer

        self._localizer = self._shared.acquire(lambda: Localizer(load_stored(self._model), self._maps))
        names, settings = self._localizer.classifier.class_names, self._localizer.settings
        reusable = None if self._reuse is None else ReusableRows(self._reuse, settings)
        self._loader = ImageLoader(self._localizer, LabelMatcher(names, self._label_map), reusable, self._limits)
        self._rows = RowBuilder(settings, names)

    def start_bundle(self) -> None:
        self._open = collections.deque[_OpenShard]()
        self._scheduler = Scheduler(self._localizer, self._loader.load)

    def process(
        self, shard: Shard, timestamp: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue]:
        """Takes a shard, and yields those whose last image is answered: mostly the one before.

        While boxes are drawn on that one and written, the network has images of this one.
        """
        opened = _OpenShard(shard, shard.rows.to_pylist(), timestamp, window)
        self._open.append(opened)
        try:
            for image in opened.images():
                self._take(self._scheduler.put(image))
                yield from self._complete()
            yield from self._complete()  # a shard without rows
        except BaseException:  # also GeneratorExit, where a step fails that takes what is yielded
            self._scheduler.close()  # Beam does not call finish_bundle for this bundle
            raise

    def finish_bundle(self) -> Iterator[WindowedValue]:
        try:
            self._take(self._scheduler.rest())
        finally:
            self._scheduler.close()
        yield from self._complete()

    def teardown(self) -> None:
        if hasattr(self, "_scheduler"):  # there was a bundle
            self._scheduler.close()

    def _take(self, answered: Iterable[Answered]) -> None:
        for image, answers in answered:
            row = self._rows.row(image, answers)
            image.planned.shard.done[image.planned.number] = row
            if isinstance(image.finished, dict):
                count("reused")
            else:
                count(f"rejected_{row['reason'].partition(':')[0]}" if row["status"] == REJECTED else "decoded")
            images_done(1)

    def _complete(self) -> Iterator[WindowedValue]:
        """The shards all of whose rows are done, in the order in which they were opened."""
        settings = self._localizer.settings | self._limits.settings
        while self._open and len(self._open[0].done) == len(self._open[0].rows):
            opened = self._open.popleft()
            rows = [opened.done[number] for number in range(len(opened.rows))]
            yield WindowedValue(opened.shard.extended(rows, MAPPED, settings), opened.timestamp, (opened.window,))


@dataclasses.dataclass(eq=False)
class _OpenShard:
    """A shard whose images are on their way through the network; `done` holds the finished rows, by their numbers."""

    shard: Shard
    rows: list[dict[str, Any]]
    timestamp: Any
    window: Any
    done: dict[int, dict[str, Any]] = dataclasses.field(default_factory=dict)

    def images(self) -> Iterator[PlannedImage]:
        """The shard's images; a container of images is read once, in this thread."""
        for number, (row, content) in enumerate(zip(self.rows, contents(self.rows), strict=True)):
            yield PlannedImage(self, number, row, content, is_last=number == len(self.rows) - 1)


def load_stored(model: ModelSpec) -> "Classifier":
    """Loads a classifier as `load_classifier` does; a checkpoint on a store is copied to this machine first.

    Raises:
      ValueError, OSError, RuntimeError: see `load_classifier`.
    """
    from camboxes.models import load_classifier
    from camboxes.models.networks.checkpoints import DESCRIPTION, WEIGHTS

    if storage.is_local(model.name):
        return load_classifier(model)
    with tempfile.TemporaryDirectory(prefix="camboxes-") as folder:
        for name in (DESCRIPTION, WEIGHTS):
            Path(folder, name).write_bytes(storage.read_bytes(storage.join(model.name, name)))
        return load_classifier(dataclasses.replace(model, name=folder))
