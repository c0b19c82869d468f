"""From the depth network's grid to what is published: depth at another size."""

from __future__ import annotations

import cv2
import numpy as np

EDGE = 0.04
"""Inverse depth is linear on a plane; where it differs by more than this share from the mean of its 3 x 3 neighbours
(a step of 15 % does), two surfaces meet."""


def resize_depth(depth: np.ndarray, width: int, height: int, interpolation: str = "edge_aware") -> np.ndarray:
    """(h, w) float32 depth -> (height, width) float32 of the same view (half-pixel rule).

    interpolation: ``nearest``, or ``edge_aware``: linear in inverse depth, which is exact on planes, except where the
        four neighbours lie on different surfaces; there the nearest one, for depth between two surfaces is in the air.
    NaN, where nothing is known, stays where it is.
    """
    if depth.shape == (height, width):
        return depth
    rows = ((np.arange(height) + 0.5) * (depth.shape[0] / height)).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * (depth.shape[1] / width)).astype(np.intp)
    if interpolation == "nearest":
        return depth[rows][:, columns]
    inverse = 1.0 / depth
    unknown = np.isnan(inverse)
    inverse[unknown] = 0.0  # beside it all is edge; as NaN it would spread
    edge = np.abs(inverse - cv2.blur(inverse, (3, 3), borderType=cv2.BORDER_REPLICATE)) > EDGE * inverse
    edge |= unknown
    smooth = cv2.resize(inverse, (width, height), interpolation=cv2.INTER_LINEAR)
    with np.errstate(divide="ignore"):
        np.reciprocal(smooth, out=smooth)
    at_edge = np.flatnonzero(edge[rows][:, columns])
    i, j = np.divmod(at_edge, width)
    smooth.ravel()[at_edge] = depth[rows[i], columns[j]]
    return smooth
