"""A component that covers several objects of one label, taken apart at its saddles: numpy and OpenCV alone.

Two dogs side by side give a map of two hills, and often one component that holds both. The map is flooded from its
highest cell down. Where the waters of two hills meet, on the saddle between them, the lower hill is an instance of its
own if it is nearly as high as the map's highest and the saddle lies deep beneath it (persistence on superlevel sets:
Edelsbrunner, Letscher and Zomorodian, Discrete & Computational Geometry, 2002); else it is a shoulder of the other.
An instance's region is what its waters reached first, down to the threshold (watershed by flooding: Meyer, Signal
Processing, 1994).

The surface is the one that boxes are drawn from, bilinear between the centres of the stored cells: its peaks are cells,
and its saddles are cells, too, or lie inside a square of four, where they have a closed form. So some hundred cells are
flooded, not the working grid.

The constants were chosen on two development sets: docs/refinement.md.
"""

from typing import Any

import cv2
import numpy as np

SADDLE = 0.4  # of a hill's height above the threshold: below that, a saddle parts it from a higher hill
PEAK = 0.9  # of the highest hill's height above the threshold: a lower hill is a part, not a second object
AREA = 0.25  # of the largest region's area: a smaller region gives no box


def split(labels: np.ndarray, owners: np.ndarray, heights: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Takes every component apart at its saddles.

    Args:
      labels: integers [grid height, grid width], the component of each of the grid's points, from 1; 0 for none.
      owners: int32 [rows, columns], that of each cell, likewise.
      heights: [rows, columns], of the cells, on the scale of the level.
      level: the smallest foreground value.

    Returns:
      labels and owners with the numbers of regions for those of components: a component's highest region keeps its
      number, the others follow after the last component. A point belongs to the region of the nearest cell of its
      component.
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
    """The region of each cell, numbered as `split` says. Among equally high peaks the first in row order is higher."""
    above = np.maximum(heights - level, 0)  # a cell just below the threshold may have points above it
    top = float(above.max())
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    peaks = (above >= PEAK * top) & (above == cv2.dilate(above, cross)) & (owners > 0)
    if np.count_nonzero(peaks) < 2:
        return owners.copy()  # most maps
    values = above.ravel().tolist()
    region = list(range(len(values)))  # towards the peak of the region that a cell belongs to
    summit = list(range(len(values)))  # towards the highest cell of all under the same water
    for saddle, one, other in _passes(heights - level, owners):
        low, high = _root(summit, one), _root(summit, other)
        if low == high:
            continue
        beyond = other
        if (values[low], -low) > (values[high], -high):
            low, high, beyond = high, low, one
        summit[low] = high
        if saddle >= SADDLE * values[low] or values[low] < PEAK * top:
            # What was parted before from a hill that is a shoulder now would be one, too: the hill is one region.
            region[low] = _root(region, beyond)
    flooded = owners.ravel().copy()
    roots = np.array([_root(region, cell) for cell in range(len(values))])
    parted = [root for root in np.unique(roots).tolist() if summit[root] != root]
    for number, root in enumerate(parted, start=int(owners.max()) + 1):
        flooded[roots == root] = number
    return flooded.reshape(owners.shape)


def _root(parents: list[int], cell: int) -> int:
    """The end of a chain of cells; shortens it on the way."""
    while parents[cell] != cell:
        parents[cell] = cell = parents[parents[cell]]
    return cell


def _passes(above: np.ndarray, owners: np.ndarray) -> list[tuple[float, int, int]]:
    """Where the waters of two neighbours of one component meet: the height, and both cells; the highest first.

    None is lower than the threshold, for the component holds together. A cell that several higher neighbours would
    flood at once is reached from the highest.
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
    """The height of the pass between opposite corners of a square of cells, on the bilinear surface between them."""
    around = np.minimum(np.minimum(one, other), np.maximum(left, right))
    between = one + other - left - right
    saddle = (one * other - left * right) / np.where(between > 0, between, 1)
    return np.where(np.minimum(one, other) > np.maximum(left, right), saddle, around)
