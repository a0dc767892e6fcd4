"""Splits a component that covers several objects of one label at its saddles, with numpy and OpenCV alone.

Two dogs side by side give a map of two hills, and often one component that holds both. The map is flooded from its
highest cell down. Two hills meet at the saddle between them. There the lower hill becomes an instance if it is nearly
as high as the map's highest hill and the saddle is deep below it (persistence on superlevel sets: Edelsbrunner,
Letscher and Zomorodian, Discrete & Computational Geometry, 2002). Otherwise it is a shoulder of the other hill.
An instance's region is what its water reaches first, down to the threshold (watershed by flooding: Meyer, Signal
Processing, 1994).

The surface is the one that boxes are drawn from, bilinear between the centres of the stored cells. Its peaks are cells.
Its saddles are cells or lie inside a square of four cells, where they have a closed form. So only some hundred cells
are flooded, not the working grid.

The constants were chosen on two development sets: benchmarks/records/refinement.md.
"""

from typing import Any

import cv2
import numpy as np

SADDLE = 0.4  # of a hill's height above the threshold: a lower saddle separates it from a higher hill
PEAK = 0.9  # of the highest hill's height above the threshold: a lower hill is no second object
AREA = 0.25  # of the largest region's area: a smaller region gives no box


def split(labels: np.ndarray, owners: np.ndarray, heights: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Splits every component at its saddles.

    Args:
      labels: the component of each grid point, from 1; 0 for none: integers [grid height, grid width].
      owners: the component of each cell, likewise: int32 [rows, columns].
      heights: the values of the cells, on the scale of the level: [rows, columns].
      level: the smallest foreground value.

    Returns:
      labels and owners with region numbers instead of component numbers. A component's highest region keeps the
      component's number; the numbers of the others follow after the last component. A point belongs to the region of
      the nearest cell of its component.
    """
    flooded = flood(heights, owners, level)
    parted = labels.copy()
    for component in np.unique(owners[flooded != owners]):
        inside = owners == component
        _, nearest = cv2.distanceTransformWithLabels(
            (~inside).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        region_of = np.zeros(nearest.max() + 1, np.int32)
        region_of[nearest[inside]] = flooded[inside]
        regions = cv2.resize(region_of[nearest], labels.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        parted = np.where(labels == component, regions, parted)
    return parted, flooded


def flood(heights: np.ndarray, owners: np.ndarray, level: float) -> np.ndarray:
    """The region of each cell, numbered as in `split`. Of equally high peaks the first in row order is higher."""
    above = np.maximum(heights - level, 0)  # a cell just below the threshold may have points above it
    top = float(above.max())
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    peaks = (above >= PEAK * top) & (above == cv2.dilate(above, cross)) & (owners > 0)
    if np.count_nonzero(peaks) < 2:
        return owners.copy()  # most maps
    values = above.ravel().tolist()
    region = list(range(len(values)))  # parents that lead to the peak of a cell's region
    summit = list(range(len(values)))  # parents that lead to the highest cell of all connected cells
    for saddle, one, other in _passes(heights - level, owners):
        low, high = _root(summit, one), _root(summit, other)
        if low == high:
            continue
        beyond = other
        if (values[low], -low) > (values[high], -high):
            low, high, beyond = high, low, one
        summit[low] = high
        if saddle >= SADDLE * values[low] or values[low] < PEAK * top:
            # A hill that was separated from this shoulder before would be a shoulder, too: the hill is one region.
            region[low] = _root(region, beyond)
    flooded = owners.ravel().copy()
    roots = np.array([_root(region, cell) for cell in range(len(values))])
    parted = [root for root in np.unique(roots).tolist() if summit[root] != root]
    for number, root in enumerate(parted, start=int(owners.max()) + 1):
        flooded[roots == root] = number
    return flooded.reshape(owners.shape)


def _root(parents: list[int], cell: int) -> int:
    """The root of a cell in a union-find forest; shortens the path on the way."""
    while parents[cell] != cell:
        parents[cell] = cell = parents[parents[cell]]
    return cell


def _passes(above: np.ndarray, owners: np.ndarray) -> list[tuple[float, int, int]]:
    """The passes between neighbouring cells of one component: height above the threshold and both cells, highest first.

    No pass is below the threshold, because a component is connected. If several higher neighbours reach a cell at the
    same height, the highest of them comes first.
    """
    cells = np.arange(above.size).reshape(above.shape)
    left, right = np.s_[:, :-1], np.s_[:, 1:]
    upper, lower = np.s_[:-1], np.s_[1:]
    a, b, c, d = np.s_[:-1, :-1], np.s_[:-1, 1:], np.s_[1:, :-1], np.s_[1:, 1:]
    pairs: list[tuple[Any, Any, np.ndarray]] = [
        (left, right, np.minimum(above[left], above[right])),
        (upper, lower, np.minimum(above[upper], above[lower])),
        (a, d, _diagonal(above[a], above[d], above[b], above[c])),
        (b, c, _diagonal(above[b], above[c], above[a], above[d])),
    ]
    found = []
    for one, other, height in pairs:
        same = (owners[one] == owners[other]) & (owners[one] > 0)
        found.append((height[same].clip(0), cells[one][same], cells[other][same]))
    heights, ones, others = (np.concatenate(column) for column in zip(*found, strict=True))
    order = np.lexsort((others, ones, -np.maximum(above.flat[ones], above.flat[others]), -heights))
    return list(zip(heights[order].tolist(), ones[order].tolist(), others[order].tolist(), strict=True))


def _diagonal(one: np.ndarray, other: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The height of the pass between opposite corners of a square of four cells, on the bilinear surface."""
    around = np.minimum(np.minimum(one, other), np.maximum(left, right))
    between = one + other - left - right
    saddle = (one * other - left * right) / np.where(between > 0, between, 1)
    return np.where(np.minimum(one, other) > np.maximum(left, right), saddle, around)
