"""Bend the depth of a network to what the camera's own motion has triangulated.

A depth network sees shapes and edges everywhere, but its depth is wrong by smooth amounts: a wall too near, the far end
of a street too far. Triangulated points are right, but few, and none where nothing moves in the image. The ratio of the
two is therefore fitted by a smooth field, and the whole depth map is multiplied by it.
"""

from functools import lru_cache

import cv2
import numpy as np

from depth_pose_ros.geometry.robust import geman_mcclure, noise_scale

COLUMNS, ROWS = 8, 5
"""Knots of the field, over the whole view."""
MIN_POINTS, MAX_POINTS = 40, 600
"""Fewer points say nothing of the whole view; more cost time and say no more."""
BELIEVED, REFUSED = 0.25, 0.45
"""Median error (of the log) up to which points and network are thought to see the same things, and from which on not:
what moves by itself is triangulated wrongly, and by more than networks err."""
SMOOTHNESS, CLOSENESS, SLOPE = 1.0, 0.3, 3.0
"""How strongly neighbouring knots are alike, the field is near one, and near and far things are bent alike; in points
that are known to a tenth."""
LARGEST = 1.5  # of the log of the field


def corrected(depth: np.ndarray, points: np.ndarray | None) -> np.ndarray:
    """(h, w) float32 depth along Z, multiplied by a smooth field that brings it near the points.

    depth:  (h, w) positive, NaN where it is not known; of the same view as
    points: (r, c) depth of triangulated points in any unit, NaN where there is none; None without any.

    The median ratio of the two stays as it is: the unit of the depth is not changed. The same array comes back where
    the points are too few, or disagree so much that they are more likely to be wrong than the network.

    The log of the field is bilinear between ``COLUMNS`` x ``ROWS`` knots, plus a slope in the log of the depth: least
    squares with a prior that keeps it smooth where there are no points, made robust by reweighting.
    """
    if points is None:
        return depth
    shape = points.shape
    here = cv2.resize(depth, shape[::-1], interpolation=cv2.INTER_NEAREST)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(points / here).ravel()
    known = np.flatnonzero(np.isfinite(ratio))
    if len(known) < MIN_POINTS:
        return depth
    known = known[:: -(-len(known) // MAX_POINTS)]
    wanted = ratio[known] - np.median(ratio[known])
    doubt = (np.median(np.abs(wanted)) - BELIEVED) / (REFUSED - BELIEVED)
    if doubt >= 1.0:
        return depth
    log_depth = np.log(here.ravel()[known])
    middle = np.median(log_depth)
    knots = _hats(shape[0], ROWS), _hats(shape[1], COLUMNS)
    row, column = np.divmod(known, shape[1])
    design = np.empty((len(known), ROWS * COLUMNS + 1))
    design[:, :-1] = (knots[0][row][:, :, None] * knots[1][column][:, None, :]).reshape(len(known), -1)
    design[:, -1] = log_depth - middle
    prior = _prior()
    found = np.zeros(design.shape[1])
    for _ in range(5):
        error = wanted - design @ found
        spread = max(noise_scale(error), 0.05)
        weights = geman_mcclure((error / (2.0 * spread)) ** 2) * (0.1 / spread) ** 2
        found = np.linalg.solve(design.T @ (weights[:, None] * design) + prior, design.T @ (weights * wanted))
    h, w = depth.shape
    field = _hats(h, ROWS) @ found[:-1].reshape(ROWS, COLUMNS) @ _hats(w, COLUMNS).T
    field += found[-1] * (np.log(depth) - middle)
    field *= min(1.0, 1.0 - doubt)
    return depth * np.exp(np.clip(field, -LARGEST, LARGEST)).astype(np.float32)


@lru_cache(maxsize=16)
def _hats(cells: int, knots: int) -> np.ndarray:
    """(cells, knots) weights of the knots in each cell, linear between them."""
    x = (np.arange(cells) + 0.5) * ((knots - 1) / cells)
    return np.maximum(0.0, 1.0 - np.abs(x[:, None] - np.arange(knots)))


@lru_cache(maxsize=1)
def _prior() -> np.ndarray:
    """Inverse covariance of the knots and of the slope before any point is seen."""
    across, down = np.diff(np.eye(COLUMNS), axis=0), np.diff(np.eye(ROWS), axis=0)
    steps = np.vstack([np.kron(np.eye(ROWS), across), np.kron(down, np.eye(COLUMNS))])
    prior = np.zeros((ROWS * COLUMNS + 1,) * 2)
    prior[:-1, :-1] = SMOOTHNESS * steps.T @ steps + CLOSENESS * np.eye(ROWS * COLUMNS)
    prior[-1, -1] = SLOPE
    return prior
