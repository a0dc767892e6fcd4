"""How boxes are drawn from maps."""

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

from camboxes.pipeline.options.fields import Options, changed, option

if TYPE_CHECKING:
    from camboxes.transforms import BoxRule


@dataclasses.dataclass(frozen=True, kw_only=True)
class BoxOptions(Options):
    """A BoxRule; None for what suits the maps, which each job says."""

    threshold: float | str | None = option(
        None,
        "smallest foreground value of the map, scaled to 0 to 1; or a share of each map's Otsu level: 0.8*otsu",
        group="boxes",
        metavar="T",
    )
    min_area: float | None = option(
        None, "smallest component, as a share of the image", group="boxes", type=float, metavar="A"
    )
    boxes: str | None = option(
        None,
        "which components of a label's map become boxes: the largest, the one with the map's peak, all, or instances "
        "(all, split where objects touch, without small ones)",
        group="boxes",
        choices=["largest", "peak", "all", "instances"],
    )

    def box_rule(self, default: "BoxRule") -> "BoxRule":
        """The rule that is asked for; what is None is the default's.

        Raises:
          ValueError: a value out of its range.
        """
        options = {"threshold": self.threshold, "min_area": self.min_area, "boxes": self.boxes}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if "threshold" in given:
            given["thresholds"] = {}
            with contextlib.suppress(ValueError):  # any other text is for the rule to read
                given["threshold"] = float(given["threshold"])
        return dataclasses.replace(default, **given)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NewBoxOptions(BoxOptions):
    """A BoxRule for maps that are made; None for what suits them."""

    threshold: float | str | None = changed(
        BoxOptions, "threshold", None, stated="1*otsu; with --refine none 0.25, of efficientnet_lite1 and _lite2 0.15"
    )
    min_area: float | None = changed(BoxOptions, "min_area", None, stated="0")
    boxes: str | None = changed(BoxOptions, "boxes", None, stated="peak")
