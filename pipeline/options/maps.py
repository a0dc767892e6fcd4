"""Which maps are made."""

import argparse
import dataclasses
import functools
from typing import get_args

from camboxes.models.spec import CELLS, METHODS, MapSpec, Refinement
from camboxes.pipeline.options.fields import Options, option

_option = functools.partial(option, group="maps")


def _scales(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MapOptions(Options):
    """A MapSpec."""

    method: str | None = _option(
        None,
        f"{', '.join(METHODS)}, a sum of them (cam+gradcam++) or a product (cam*layercam@16); @16 reads the maps "
        f"of the last block at stride 16, @32[-2] of the last but one at 32, and of {', '.join(CELLS)}, which read the "
        "pixels, has cells of 16 x 16 of them",
        metavar="[WEIGHT*]METHOD[@LAYER]+…",
    )
    scales: tuple[int, ...] = _option(
        (),
        "short sides of the input, whose maps are fused; the first decides probabilities",
        stated="--size",
        type=_scales,
        metavar="PIXELS,…",
    )
    fine_scales: bool | None = _option(
        False,
        "remove the last downsampling at the smaller scales, so that their maps have as many cells as those of the "
        "largest",
        stated="off",
        action=argparse.BooleanOptionalAction,
    )
    compete: bool = _option(False, "labels of an image compete for each cell", action=argparse.BooleanOptionalAction)
    refine: Refinement = _option(
        "none",
        "affinity: spread the map along the likeness of the network's own features",
        choices=get_args(Refinement),
    )
    flip: bool = _option(False, "fuse the maps of the mirrored image in, too")

    def map_spec(self, method: str) -> MapSpec:
        """The maps that are asked for, by one method.

        Raises:
          ValueError: a value out of its range.
        """
        return MapSpec(
            method,
            tuple(self.scales),
            fine_scales=bool(self.fine_scales),
            flip=self.flip,
            compete=self.compete,
            refine=self.refine,
        )
