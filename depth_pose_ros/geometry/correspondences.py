"""From flow both ways to the few thousand matches that are worth using.

Everything runs on the flow's native grid, where it costs well under a millisecond (nothing is gained by resizing the
flow first). Occlusion, consistency and score follow Zhao et al., CVPR 2020 (TrianFlow), sections 3.1 and 3.2.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from depth_pose_ros.engines.engine import FlowField

CONSISTENCY_PX = 3.0  # forward and backward flow must cancel to within max(3 px, 5 % of the flow's length)
CONSISTENCY_RATIO = 0.05
TOP_SHARE = 0.2  # of the cells of each tile that may become matches
TILE_PX = 64  # side of a tile: the best matches of the whole image would all lie in one corner of it


@dataclass(frozen=True)
class Matches:
    """Points of image 1 and where they are in image 2.

    points_1, points_2: (N, 2) float32 pixels.
    scores:             (N,) float32, larger is better: about one over the expected error in pixels.
    """

    points_1: np.ndarray
    points_2: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.points_1)

    def __getitem__(self, some: np.ndarray) -> "Matches":
        """Those of an index or (N,) bool."""
        return Matches(self.points_1[some], self.points_2[some], self.scores[some])

    def resized(self, sx: float, sy: float) -> "Matches":
        """The same matches in images resized by (sx, sy), by the half-pixel rule of cv2.resize."""
        factor = np.array([sx, sy], np.float32)
        shift = 0.5 * factor - 0.5
        return Matches(self.points_1 * factor + shift, self.points_2 * factor + shift, self.scores)

    @classmethod
    def empty(cls) -> "Matches":
        """No match at all."""
        return cls(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32), np.zeros(0, np.float32))


def visibility(flow_21: np.ndarray) -> np.ndarray:
    """How much of each cell of image 1 is seen in image 2, by splatting image 2 back along its flow.

    flow_21: (h, w, 2) in cells, from image 2 to image 1. Returns (h, w) float32 in [0, 1], soft
    (Wang et al., CVPR 2018: where nothing lands, the cell is occluded or left the view).
    """
    h, w = flow_21.shape[:2]
    x = flow_21[..., 0].ravel() + np.tile(np.arange(w, dtype=np.float32), h)
    y = flow_21[..., 1].ravel() + np.repeat(np.arange(h, dtype=np.float32), w)
    # One row and column of margin on each side takes what lands outside, so no corner needs a test of its own.
    np.clip(x, -1.0, w, out=x)
    np.clip(y, -1.0, h, out=y)
    x0, y0 = np.floor(x), np.floor(y)
    ax, ay = x - x0, y - y0
    corner = ((y0 + 1) * (w + 3) + (x0 + 1)).astype(np.intp)
    size = (h + 3) * (w + 3)
    landed = np.bincount(corner, (1 - ax) * (1 - ay), size)
    landed += np.bincount(corner + 1, ax * (1 - ay), size)
    landed += np.bincount(corner + w + 3, (1 - ax) * ay, size)
    landed += np.bincount(corner + w + 4, ax * ay, size)
    return np.minimum(landed.reshape(h + 3, w + 3)[1 : h + 1, 1 : w + 1], 1.0).astype(np.float32)


def score(flow: FlowField) -> np.ndarray:
    """How much each cell of image 1 is to be trusted: (h, w) float32, 0 where occluded, inconsistent or outside.

    ``visible * consistent / (0.1 + mean |forward + backward| [+ sigma])`` in input pixels: the score M_s of TrianFlow,
    with the network's own expected error added where it gives one. Cells that are not finite get 0.
    """
    h, w = flow.forward.shape[:2]
    finite = np.isfinite(flow.forward).all(-1)
    forward = flow.forward if finite.all() else np.nan_to_num(flow.forward, nan=1e6, posinf=1e6, neginf=-1e6)
    backward = flow.backward if np.isfinite(flow.backward).all() else np.nan_to_num(flow.backward, nan=1e6, posinf=1e6)
    cells = forward * np.float32(1.0 / flow.stride)
    x = cells[..., 0] + np.arange(w, dtype=np.float32)
    y = cells[..., 1] + np.arange(h, dtype=np.float32)[:, None]
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    back = cv2.remap(backward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    difference = np.abs(forward + back)
    length = np.hypot(difference[..., 0], difference[..., 1])
    limit = np.maximum(CONSISTENCY_PX, CONSISTENCY_RATIO * np.hypot(forward[..., 0], forward[..., 1]))
    expected_error = 0.1 + 0.5 * (difference[..., 0] + difference[..., 1])
    if flow.sigma is not None:
        expected_error = expected_error + np.where(np.isfinite(flow.sigma), flow.sigma, np.inf)
    visible = visibility(backward * np.float32(1.0 / flow.stride))
    return (visible * (inside & finite & (length < limit)) / expected_error).astype(np.float32)


def select(flow: FlowField, max_matches: int, mask: np.ndarray | None = None, seed: int = 0) -> Matches:
    """At most ``max_matches`` good matches, spread over the image, in input pixels.

    mask: (H, W) bool of any size, False where neither end of a match may lie.

    Inside each tile the best ``TOP_SHARE`` of the cells qualify (more where the grid is too coarse to give enough), and
    of those a random choice is taken, the same one for the same ``seed``. The best scores of the whole image cluster on
    one region and fail on forward motion; the best of each tile, taken at random, do not (performance: section 3.4).
    """
    scores = score(flow)
    h, w = scores.shape
    if mask is not None:
        usable = cv2.resize(mask.astype(np.uint8), (w, h), interpolation=cv2.INTER_NEAREST)
        y, x = np.indices((h, w), np.float32)
        cells = np.nan_to_num(flow.forward) * np.float32(1.0 / flow.stride)
        there = cv2.remap(usable, x + cells[..., 0], y + cells[..., 1], cv2.INTER_NEAREST)
        scores *= usable & there
    side = max(4, TILE_PX // flow.stride)
    rows, columns = -(-h // side), -(-w // side)
    tiles = np.zeros((rows * side, columns * side), np.float32)
    tiles[:h, :w] = scores
    tiles = tiles.reshape(rows, side, columns, side).swapaxes(1, 2).reshape(rows * columns, side * side)
    share = float(np.clip(1.2 * max_matches / (h * w), TOP_SHARE, 1.0))
    worst = min(round(side * side * (1.0 - share)), side * side - 1)
    limit = np.partition(tiles, worst, axis=1)[:, worst]
    limit = limit.reshape(rows, columns).repeat(side, 0).repeat(side, 1)[:h, :w]
    chosen = np.flatnonzero((scores > 0) & (scores >= limit))
    if len(chosen) > max_matches:
        chosen = np.random.default_rng(seed).choice(chosen, max_matches, replace=False, shuffle=False)
    i, j = np.divmod(chosen, w)
    points_1 = np.stack([j, i], 1).astype(np.float32) * flow.stride + np.float32(0.5 * flow.stride - 0.5)
    return Matches(points_1, points_1 + flow.forward.reshape(-1, 2)[chosen], scores.ravel()[chosen])
