"""Depth at the pixels of matches, and a coarse depth map of what matches have triangulated.

Maps show the camera's whole view at any resolution; NaN is unknown.
"""

import cv2
import numpy as np

from depth_pose_ros.camera import PinholeCamera

COLUMNS = 128  # of a map of triangulated points; coarser cells mix near and far, and the scale drifts


def sample(depth: np.ndarray | None, points: np.ndarray, camera: PinholeCamera) -> np.ndarray:
    """(N,) float64 depth of the cell in which each of (N, 2) pixels lies; NaN outside and where it is not positive.

    Not interpolated: between a near and a far surface there is nothing. All NaN without a map.
    """
    if depth is None:
        return np.full(len(points), np.nan)
    h, w = depth.shape
    j = np.clip(np.floor((points[:, 0] + 0.5) * (w / camera.width)), -1, w).astype(np.intp)
    i = np.clip(np.floor((points[:, 1] + 0.5) * (h / camera.height)), -1, h).astype(np.intp)
    inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
    z = depth[np.clip(i, 0, h - 1), np.clip(j, 0, w - 1)].astype(np.float64)
    z[~(inside & np.isfinite(z) & (z > 0))] = np.nan
    return z


def gather(depth: np.ndarray, points: np.ndarray, camera: PinholeCamera) -> np.ndarray:
    """(h, COLUMNS) float64 map of (N,) depths at (N, 2) pixels: geometric mean of each cell, NaN in empty ones."""
    rows = max(1, round(COLUMNS * camera.height / camera.width))
    x = np.floor((points[:, 0] + 0.5) * (COLUMNS / camera.width))
    y = np.floor((points[:, 1] + 0.5) * (rows / camera.height))
    good = np.isfinite(depth) & (depth > 0) & (x >= 0) & (x < COLUMNS) & (y >= 0) & (y < rows)
    cell = (y[good] * COLUMNS + x[good]).astype(np.intp)
    count = np.bincount(cell, minlength=rows * COLUMNS)
    total = np.bincount(cell, np.log(depth[good]), rows * COLUMNS)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.exp(total / np.where(count > 0, count, np.nan)).reshape(rows, COLUMNS)


def masked(depth: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """(h, w) depth with NaN where a (H, W) bool mask of the same view is False."""
    if mask is None:
        return depth
    usable = cv2.resize(mask.astype(np.uint8), depth.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return np.where(usable > 0, depth, np.float32(np.nan))


def middle(depth: np.ndarray | None) -> float:
    """Median of the depths that are known, from some thousand of them; NaN where there is none."""
    if depth is None:
        return float("nan")
    some = depth.ravel()[:: max(1, depth.size // 4096)]
    some = some[np.isfinite(some)]
    return float(np.median(some)) if len(some) else float("nan")
