"""Is what moves in the image the camera, or something in front of it?

A lorry that passes may hide most of the view. Its matches agree on one motion, and the few that are left of the world
even fit it: points that rest while the camera seems to move sideways are, for two views, infinitely far. What tells the
two apart is depth, which says that they are not, and that a camera does not change its motion at once.
"""

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.geometry.covariance import tiles

MIN_SHARE = 0.2  # of the matches that must go on as before to be taken for the world
CLEAR = 3.0  # times the threshold of standing still: contradicted so far, a match has moved otherwise
DEPTH_ERROR = 0.6  # relative: so far may the parallax of a match be off because of its depth alone
FAR = 5.0  # times as far as the others is a match at most whose depth is not known


@dataclass(frozen=True)
class Scene:
    """The matches between two views.

    rays_1, rays_2: (3, N) with z = 1. depth_1: (N,) in view 1, NaN where unknown. far: of those, at most.
    focal: px. still_px: what a match moves at most that rests.
    """

    rays_1: np.ndarray
    rays_2: np.ndarray
    depth_1: np.ndarray
    far: float
    focal: float
    still_px: float

    @property
    def flow_px(self) -> np.ndarray:
        """(N,) length of the matches."""
        return self.focal * np.hypot(*(self.rays_2 - self.rays_1)[:2])

    def shift(self, T_2_1: np.ndarray) -> "Shift":
        """Where a motion (4, 4), in the unit of the depth, takes the matches.

        A match without depth may be anywhere along its epipolar line, and is expected to be far away.
        """
        is_known = np.isfinite(self.depth_1)
        turned = T_2_1[:3, :3] @ self.rays_1
        moved = turned + T_2_1[:3, 3:] / np.where(is_known, self.depth_1, self.far)
        there, at_infinity = moved[:2] / np.maximum(moved[2], 1e-3), turned[:2] / np.maximum(turned[2], 1e-3)
        expected, error = (np.hypot(*(there - rays[:2])) for rays in (self.rays_1, self.rays_2))
        if not is_known.all():
            line = T_2_1[:2, 3:] - at_infinity * T_2_1[2, 3]
            line /= np.hypot(*line) + 1e-12
            way = self.rays_2[:2] - at_infinity
            along, across = (way * line).sum(0), np.abs(way[0] * line[1] - way[1] * line[0])
            error = np.where(is_known, error, np.where(along > 0, across, np.hypot(*way)))
        tolerance = np.where(is_known, DEPTH_ERROR * np.hypot(*(there - at_infinity)), 0.0)
        return Shift(self.focal * expected, self.focal * error, self.focal * tolerance, self.still_px)


@dataclass(frozen=True)
class Shift:
    """Where a motion takes each match, in (N,) pixels.

    expected_px: length of the way. error_px: from there to where the match went. tolerance_px: what of that the depth
    alone may explain.
    """

    expected_px: np.ndarray
    error_px: np.ndarray
    tolerance_px: np.ndarray
    still_px: float

    @property
    def fits(self) -> np.ndarray:
        """(N,) bool, the matches that this motion explains."""
        return self.error_px < self.still_px + 0.5 * self.tolerance_px

    @property
    def contradicts(self) -> np.ndarray:
        """(N,) bool, the matches that have moved otherwise, whatever is wrong with their depth."""
        return self.error_px > CLEAR * self.still_px + self.tolerance_px

    def fits_beside(self, other: "Shift") -> np.ndarray:
        """(N,) bool, as ``fits``, but no more tolerant than with another motion: a long one tolerates much."""
        return self.error_px < self.still_px + 0.5 * np.minimum(self.tolerance_px, other.tolerance_px)

    def is_clearly_worse_than(self, other: "Shift") -> np.ndarray:
        """(N,) bool, the matches that another motion explains and this one does not."""
        worse = (self.error_px > CLEAR * self.still_px) & (self.error_px > CLEAR * other.error_px)
        return other.fits_beside(self) & worse

    def allows(self, some: np.ndarray) -> bool:
        """Whether most of ``some`` (N,) bool matches may have moved by this."""
        return bool(np.mean(self.contradicts[some]) <= 0.5) if some.any() else False


def rests(scene: Scene, found: Shift) -> bool:
    """Whether so many matches rest, which would move if the camera had, that it stands still and other things move."""
    still = scene.flow_px < scene.still_px
    if np.count_nonzero(still) < MIN_SHARE * len(still):
        return False
    return bool(np.median(found.expected_px[still]) > CLEAR * scene.still_px)


def world_tiles(points: np.ndarray, world: np.ndarray, width: int, height: int) -> np.ndarray:
    """(C,) bool, the tiles of an image (see covariance.tiles) most of whose points (N, 2) are of the ``world`` (N,)."""
    ids, size = tiles(points, width, height), tile_count(width, height)
    count = np.bincount(ids, minlength=size)
    return 2 * np.bincount(ids, world, size) > count


def tile_count(width: int, height: int) -> int:
    """Of an image."""
    return int(tiles(np.array([[width - 1, height - 1]]), width, height)[0]) + 1
