"""Which maps are made."""

import argparse
import dataclasses
import functools
from typing import get_args

from camboxes.models.spec import CELLS, DEFAULT_MAPS, LITE_MAPS, METHODS, MapSpec, Refinement
from camboxes.pipeline.options.fields import Options, option

_option = functools.partial(option, group="maps")


def _scales(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOptions(Options):
    """A MapSpec; what is left open suits the network."""

    method: str | None = _option(
        None,
        f"{', '.join(METHODS)}, a sum of them (cam+gradcam++) or a product (cam*layercam@16); @16 reads the last "
        f"block at stride 16, @32[-2] the last but one at stride 32; for {', '.join(CELLS)}, which read pixels, @16 "
        "means cells of 16 x 16 pixels",
        stated=f"{DEFAULT_MAPS.method}; of EfficientNet-Lite {LITE_MAPS.method}",
        metavar="[WEIGHT*]METHOD[@LAYER]+…",
    )
    scales: tuple[int, ...] = _option(
        (),
        "short sides of the input; their maps are averaged, and the first one gives the probabilities",
        stated="--size and twice that",
        type=_scales,
        metavar="PIXELS,…",
    )
    fine_scales: bool | None = _option(
        None,
        "remove the last downsampling at the smaller scales, so that their maps have as many cells as those of the "
        "largest",
        stated="on for EfficientNet-Lite, else off",
        action=argparse.BooleanOptionalAction,
    )
    compete: bool = _option(
        DEFAULT_MAPS.compete,
        "labels of an image compete for each cell",
        stated="on",
        action=argparse.BooleanOptionalAction,
    )
    refine: Refinement = _option(
        DEFAULT_MAPS.refine,
        "affinity: spread each map over cells that look alike to the network",
        choices=get_args(Refinement),
    )
    flip: bool = _option(False, "also use the maps of the mirrored image")

    def map_spec(self, default: MapSpec = DEFAULT_MAPS) -> MapSpec:
        """The maps that are asked for; what is left open is the default's.

        Raises:
          ValueError: a value out of its range.
        """
        scales = self.scales or default.scales
        fine = default.fine_scales if self.fine_scales is None else self.fine_scales
        if default.fine_scales and len(scales) == 1:
            fine = False
        return MapSpec(
            self.method or default.method,
            scales,
            fine_scales=fine,
            flip=self.flip,
            compete=self.compete,
            refine=self.refine,
        )
