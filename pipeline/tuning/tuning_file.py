"""Reads and writes tuning.json: thresholds and calibrated scores for `camboxes rebox --thresholds`."""

import dataclasses
import json
import shlex
from typing import Any

from camboxes.transforms import BoxRule, PlannedRun, storage
from camboxes.transforms.boxes.calibration import Calibration
from camboxes.transforms.boxes_from_maps import drawing_settings
from camboxes.transforms.settings import in_words, settings_that_differ

FILE = "tuning.json"

_MAPS = ("method", "scales", "fine_scales", "flip", "compete", "refine", "model")  # settings that maps depend on


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Thresholds and calibrated scores."""

    rule: BoxRule  # how boxes are drawn
    calibration: Calibration | None  # of the scores of boxes drawn by the rule; None to leave scores as they are
    maps: dict[str, Any]  # the run's settings that its maps depend on; the rule suits no other maps
    images: list[str]  # the run's paths of the boxed images that it was learnt from; figures on them flatter
    figures: dict[str, Any]  # what is expected on other images

    @classmethod
    def read(cls, path: str) -> "Tuning":
        """Reads a file.

        Raises:
          ValueError: `camboxes tune` did not write it.
        """
        try:
            value = json.loads(storage.read_bytes(path))
            calibration = value["calibration"]
            calibration = None if calibration is None else Calibration.from_json(calibration)
            return cls(BoxRule(**value["rule"]), calibration, value["maps"], value["images"], value["figures"])
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path!r} is not what camboxes tune wrote ({type(error).__name__}: {error}); expected OUT/{FILE}"
            ) from None

    def write(self, path: str) -> None:
        """Writes the file."""
        storage.write_json(path, dataclasses.asdict(self))

    @classmethod
    def drawn_with(cls, run: PlannedRun) -> "Tuning | None":
        """The tuning that a run's boxes were drawn with; None if `camboxes rebox --thresholds` did not draw them."""
        path = storage.join(run.output, FILE)
        tuning = cls.read(path) if storage.exists(path) else None
        return tuning if tuning and tuning.drawing_settings.items() <= run.settings.items() else None

    @property
    def drawing_settings(self) -> dict[str, Any]:
        """The settings of a run whose boxes are drawn with this tuning."""
        return json.loads(json.dumps(drawing_settings(self.rule, self.calibration)))

    def check_maps(self, run: PlannedRun) -> None:
        """Checks that a run's maps are made as those that this was tuned on.

        Raises:
          ValueError: another network or method made them.
        """
        if differing := settings_that_differ(maps_settings(run), self.maps):
            raise ValueError(
                f"these thresholds were tuned for other maps than those of {run.output!r}: {in_words(differing)}; tune "
                f"this run: camboxes tune --run {shlex.quote(run.output)}"
            )


def maps_settings(run: PlannedRun) -> dict[str, Any]:
    """The settings that a run's maps depend on."""
    return {name: run.settings.get(name) for name in _MAPS}
