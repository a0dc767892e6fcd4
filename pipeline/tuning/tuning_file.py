"""OUT/tuning.json: what a few boxed images taught about a run, for `camboxes rebox --thresholds`."""

import dataclasses
import json
import shlex
from typing import Any

from camboxes.transforms import BoxRule, PlannedRun, storage
from camboxes.transforms.boxes.calibration import Calibration
from camboxes.transforms.boxes_from_maps import drawing_settings

FILE = "tuning.json"

_MAPS = ("method", "scales", "fine_scales", "flip", "compete", "refine", "model")  # settings that decide a map


@dataclasses.dataclass(frozen=True)
class Tuning:
    """Thresholds and calibrated scores.

    Attributes:
      rule: how boxes are drawn.
      calibration: of the scores of boxes that are drawn so; None where scores are left as they are.
      maps: the settings of the run whose maps these are made for: method, scales, flip, compete,
        refine, model.
      images: the run's paths of the boxed images; figures on them flatter.
      figures: what is expected of images that were not seen.
    """

    rule: BoxRule
    calibration: Calibration | None
    maps: dict[str, Any]
    images: list[str]
    figures: dict[str, Any]

    @classmethod
    def read(cls, path: str) -> "Tuning":
        """Reads a file.

        Raises:
          ValueError: it is no such file.
        """
        try:
            value = json.loads(storage.read_bytes(path))
            calibration = value["calibration"]
            return cls(
                BoxRule(**value["rule"]),
                None if calibration is None else Calibration.from_json(calibration),
                value["maps"],
                value["images"],
                value["figures"],
            )
        except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path!r} is not what camboxes tune wrote ({type(error).__name__}: {error}); expected OUT/{FILE}"
            ) from None

    def write(self, path: str) -> None:
        """Writes the file."""
        calibration = None if self.calibration is None else self.calibration.as_json()
        storage.write_json(path, {**vars(self), "rule": dataclasses.asdict(self.rule), "calibration": calibration})

    @classmethod
    def drawn_with(cls, run: PlannedRun) -> "Tuning | None":
        """What a run's boxes were drawn with, where `camboxes rebox --thresholds` drew them."""
        path = storage.join(run.output, FILE)
        tuning = cls.read(path) if storage.exists(path) else None
        return tuning if tuning is not None and tuning.drawing_settings.items() <= run.settings.items() else None

    @property
    def drawing_settings(self) -> dict[str, Any]:
        """The settings of a run that is drawn with it."""
        return json.loads(json.dumps(drawing_settings(self.rule, self.calibration)))

    def check_maps(self, run: PlannedRun) -> None:
        """Refuses a run whose maps another network or method made.

        Raises:
          ValueError: it is one.
        """
        for name, value in maps_settings(run).items():
            if self.maps.get(name) != value:
                raise ValueError(
                    f"these thresholds were tuned for another {name} than that of {run.output!r}: "
                    f"{self.maps.get(name)}, not {value}; tune this run: camboxes tune --run {shlex.quote(run.output)}"
                )


def maps_settings(run: PlannedRun) -> dict[str, Any]:
    """The settings of a run that decide its maps."""
    return {name: run.settings.get(name) for name in _MAPS}
