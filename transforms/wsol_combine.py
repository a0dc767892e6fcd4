"""Kept for programs written for version 0.1: `camboxes.transforms.wsol` has the combiners now."""

from camboxes.transforms.wsol.combiners import BoxedMap, MaskedMap, MaxBoxAcc, PxAP

__all__ = ["BoxedMap", "MaskedMap", "MaxBoxAcc", "PxAP"]
