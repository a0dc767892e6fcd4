"""An optional step: replaces a run's maps by those of a regressor that learnt from the run's own boxes.

p | ReadShards(run) | RegressMaps(run.root, spec, regressor, settings) | BoxesFromMaps(threshold) | WriteCoco(output)
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import apache_beam as beam
import cv2
import numpy as np
from apache_beam.utils import shared

from camboxes.models.spec import ModelSpec
from camboxes.transforms import storage
from camboxes.transforms.boxes.from_map import BoxRule, WorkingMap
from camboxes.transforms.boxes.second_look import is_whole
from camboxes.transforms.boxes.stored_maps import StoredMap, quantize
from camboxes.transforms.contents.image_files import locate, read_image
from camboxes.transforms.contents.shard_contents import seen
from camboxes.transforms.counters import count, images_done
from camboxes.transforms.images.decoding import ACCEPTED, BadImageError, decode
from camboxes.transforms.inference.rows import finite
from camboxes.transforms.ordered_threads import through_network
from camboxes.transforms.records import MAPPED, Shard, rejected

if TYPE_CHECKING:
    import torch

    from camboxes.models.training.selftraining import FeatureReader, MapRegressor

_Row = dict[str, Any]

_CUT = 112  # cells a side of the square on which a component is cut out


def selftrained(method: str) -> str:
    """The method's name of maps that a regressor makes of those of `method`."""
    return f"selftrained({method})"


def can_be_regressed(row: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Whether a regressor takes a map: it covers the whole image, and a box can be drawn from it."""
    return is_whole(entry, row) and StoredMap.of(entry).empty_because is None


def on_grid(entry: Mapping[str, Any], height: int, width: int) -> np.ndarray:
    """Resizes an entry of the column `maps` to a grid of height x width cells, min-max scaled: float32, in [0, 1]."""
    resized = cv2.resize(StoredMap.of(entry).cells.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    low, high = resized.min(), resized.max()
    return (resized - low) / (high - low) if high > low else np.zeros_like(resized)


def component(stored: StoredMap, rule: BoxRule, height: int, width: int) -> np.ndarray | None:
    """The share of each cell of a grid that lies in the component of a rule's first box.

    The component is a better example than the filled box: benchmarks/records/selftraining.md.

    Returns:
      float32 [height, width], in [0, 1]; None where the rule draws no box.
    """
    working = WorkingMap(stored, _CUT, _CUT)
    drawn = working.draw(rule)
    if not drawn.boxes:
        return None
    labels, statistics = working.components(drawn.level)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    first = labels.flat[working.scaled.argmax()] if rule.boxes == "peak" else 1 + areas.argmax()
    return cv2.resize((labels == first).astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def read_unchanged(root: str, row: Mapping[str, Any]) -> np.ndarray:
    """Reads the photograph of a row, uint8 [height, width, 3].

    Raises:
      BadImageError: see `read_image` and `decode`; or `changed`: its bytes are not those that the run saw.
    """
    return decode(seen(read_image(locate(root, row["path"]), ACCEPTED), row["digest"]), ACCEPTED)


@beam.typehints.with_input_types(Shard)
@beam.typehints.with_output_types(Shard)
class RegressMaps(beam.PTransform):
    """Reads the images of a run's shards again, and replaces their maps by a regressor's.

    Other columns, and rows without such maps, stay as they are. An image that cannot be read any more, or whose bytes
    are not those that the run saw, is rejected, with the reason. A shard's bytes do not depend on the number of workers
    or threads. Counters: decoded, rejected_REASON, milliseconds_decode and milliseconds_forward (summed over threads).
    """

    def __init__(self, root: str, model: ModelSpec, regressor: str, settings: Mapping[str, Any]):
        """Takes the network and the regressor.

        Args:
          root: the folder that the run's paths are relative to.
          model: the run's network, at the size that the regressor was trained at, squashing.
          regressor: a file that holds `MapRegressor.safetensors`.
          settings: for the records of the new run.
        """
        super().__init__()
        self._regress = _RegressMaps(root, model, regressor, settings)

    def expand(self, shards: beam.PCollection[Shard]) -> beam.PCollection[Shard]:
        """Applies the transform to a collection of shards."""
        return shards | beam.ParDo(self._regress)


class _Photograph(NamedTuple):
    """A row of the shard, by its number, and its image as the network takes it."""

    number: int
    row: _Row
    pixels: "torch.Tensor"


@dataclasses.dataclass(frozen=True)
class _Regressing:
    """The network and the regressor, held once in each process."""

    reader: "FeatureReader"
    regressor: "MapRegressor"


@beam.typehints.with_output_types(Shard)
@dataclasses.dataclass(eq=False)
class _RegressMaps(beam.DoFn):
    _root: str
    _model: ModelSpec
    _regressor: str
    _settings: Mapping[str, Any]
    _shared: shared.Shared = dataclasses.field(default_factory=shared.Shared)

    def setup(self) -> None:
        from camboxes.models import load_classifier
        from camboxes.models.training.selftraining import FeatureReader, MapRegressor

        def load() -> _Regressing:
            regressor = MapRegressor.load(storage.read_bytes(self._regressor))
            return _Regressing(FeatureReader(load_classifier(self._model)), regressor)

        self._held = self._shared.acquire(load, tag=(self._model, self._regressor))

    def process(self, shard: Shard) -> Iterator[Shard]:
        rows = shard.rows.to_pylist()
        wanted = [(n, row) for n, row in enumerate(rows) if any(can_be_regressed(row, entry) for entry in row["maps"])]
        classifier, errors = self._held.reader.classifier, dict[int, BadImageError]()

        def read(numbered: tuple[int, _Row]) -> _Photograph | None:
            number, row = numbered
            try:
                image = read_unchanged(self._root, row)
            except BadImageError as error:
                errors[number] = error
                return None
            return _Photograph(number, row, classifier.preprocessing.resize(image))

        for batch in through_network(classifier, read, self._regressed, wanted):
            for photograph, maps in batch:
                count("decoded")
                rows[photograph.number] = photograph.row | {"maps": maps}
            images_done(len(batch))
        for number, error in errors.items():
            count(f"rejected_{error.code}")
            rows[number] = rejected({name: rows[number][name] for name in ("image_id", "path", "labels")}, str(error))
        images_done(len(rows) - len(wanted) + len(errors))
        yield shard.extended(rows, MAPPED, self._settings)

    def _regressed(self, batch: list[_Photograph]) -> list[tuple[_Photograph, list[_Row]]]:
        features = self._held.reader.features([photograph.pixels for photograph in batch])
        return [
            (photograph, self._maps(photograph.row, of_image))
            for photograph, of_image in zip(batch, features, strict=True)
        ]

    def _maps(self, row: _Row, features: "torch.Tensor") -> list[_Row]:
        """A row's entries of the column `maps`; those that the regressor takes are replaced."""
        import torch

        from camboxes.models.localization.affinity import coherence

        maps: list[_Row] = []
        for entry in row["maps"]:
            maps.append(entry)
            if can_be_regressed(row, entry):
                before = torch.from_numpy(on_grid(entry, features.shape[1], features.shape[2]))
                made = self._held.regressor.predict(features, before)
                its = coherence(made[None, None], features[None])
                maps[-1] = entry | quantize(made.numpy()).entry()
                maps[-1] |= {
                    "method": selftrained(entry["method"]),
                    "coherence": finite(its.coherence.item()),
                    "agreement": finite(its.agreement.item()),
                }
        return maps
