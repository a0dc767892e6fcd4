"""Builds the rows of a shard from the network's answers. Pure: neither Beam nor torch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from camboxes.models.networks.class_names import shown
from camboxes.transforms.boxes.stored_maps import quantize
from camboxes.transforms.images.decoding import BadImageError
from camboxes.transforms.inference.image_loading import LoadedImage, Rectangle, Row
from camboxes.transforms.records import OK, rejected, skipped

if TYPE_CHECKING:
    from camboxes.models import Localization


@dataclasses.dataclass(frozen=True)
class RowBuilder:
    """Builds rows in the schema MAPPED.

    Attributes:
      settings: those of the `Localizer` that answers.
      class_names: see `Classifier.class_names`.
    """

    settings: Mapping[str, Any]
    class_names: Sequence[Sequence[str]]

    def row(self, image: LoadedImage, answers: "Sequence[Localization | BadImageError]") -> Row:
        """The row of an image.

        Args:
          image: as it was loaded.
          answers: for each of its rectangles, none where it has none; any number where the image is finished.
        """
        if isinstance(image.finished, dict):
            return image.finished
        read = {"digest": image.digest, "width": image.width, "height": image.height}
        error = next((answer for answer in (image.finished, *answers) if isinstance(answer, BadImageError)), None)
        localizations = cast("Sequence[Localization]", answers)
        if error is None and not all(np.isfinite(found.logits).all() for found in localizations[:1]):
            error = BadImageError("not_finite", "the network's output holds NaN or infinity")
        if error is not None:
            return rejected(image.planned.row | read, str(error))
        if not answers:
            return skipped(image.planned.row | read)
        return read | self._found(image, localizations)

    def _found(self, image: LoadedImage, localizations: "Sequence[Localization]") -> Row:
        """The columns that the network fills. Classes and probabilities are those of the whole image."""
        whole, planned = localizations[0], image.planned.row
        method, refine = self.settings["method"], self.settings["refine"]
        refined = method if refine == "none" else f"{refine}({method})"
        labels: list[Row] = []
        maps: list[Row] = []
        plain: list[Row] = []
        for planned_label in planned["labels"]:
            label = {name: planned_label[name] for name in ("label", "category_id")}
            labels.append(label)
            if not planned_label["class_indices"]:
                continue
            number = len(maps) // len(localizations)  # among the labels that have a class
            index = whole.class_ids[number]
            label |= {
                "class_index": index,
                "logit": whole.logits[index],
                "probability": whole.probabilities[index],
            }
            for rectangle, localization in zip(image.rectangles, localizations, strict=True):
                entry = self._entry(label["category_id"], rectangle, localization, number)
                maps.append(entry | quantize(localization.maps[number]).entry() | {"method": refined})
                if localization.plain is not None:
                    plain.append(entry | quantize(localization.plain[number]).entry() | {"method": method})
        return {
            "image_id": planned["image_id"],
            "path": planned["path"],
            "status": OK,
            "reason": None,
            "labels": labels,
            "top5": [
                {
                    "class_index": index,
                    "name": shown(self.class_names, index),
                    "probability": whole.probabilities[index],
                }
                for index in whole.best
            ],
            "maps": maps,
            "plain_maps": plain,
        }

    def _entry(self, category_id: int, rectangle: Rectangle, localization: "Localization", number: int) -> Row:
        """What a label's entries of the columns `maps` and `plain_maps` have in common."""
        return {
            "category_id": category_id,
            "rectangle": list(rectangle),
            "scales": self.settings["scales"],
            "coherence": finite(localization.coherence[number]),
            "agreement": finite(localization.agreement[number]),
        }


def finite(value: float) -> float | None:
    """A number for a row: None for NaN and infinity."""
    return float(value) if math.isfinite(value) else None
