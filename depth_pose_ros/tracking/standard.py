"""What a pair of frames is like where all is well, and how much less the motion of a worse one is to be believed."""

import math

import numpy as np

from depth_pose_ros.geometry.appearance import Look

MEMORY = 10.0  # s, in which what was usual falls to a third
SMOOTH = 0.25  # sharpness of an image in which nothing is sharp
BLURRED = 0.8  # of the usual sharpness beyond that: above it, that is the scene
LEAST = 0.1  # as much support and sharpness as this doubts a motion as far as it goes: its sigma 10 times as large


class Standard:
    """Learns from tracked frames how many matches agree and how sharp images are, and compares others with that.

    What is left of the matches when the view is blurred, hidden or turned away goes together: the errors are not those
    of single matches, and the covariance that is computed from how these differ does not show them.
    """

    def __init__(self) -> None:
        self._inliers = 0.0
        self._sharpness = np.zeros(2)

    def see(self, inliers: int, look: Look | None, dt: float) -> None:
        """A tracked frame, ``dt`` seconds after the one before."""
        kept = math.exp(-dt / MEMORY)
        self._inliers = max(float(inliers), kept * self._inliers)
        if look is not None:
            self._sharpness = np.maximum(look.sharpness, kept * self._sharpness)

    def support(self, inliers: int) -> float:
        """So many matches that agree, over those that usually do."""
        return inliers / self._inliers if self._inliers else 1.0

    def doubt(self, inliers: int, *looks: Look | None) -> float:
        """Factor >= 1 on the standard deviation of a motion on which so many matches of two frames agree."""
        support, sharpness = self.support(inliers), 1.0
        for look in looks:
            if look is not None and self._sharpness.any():
                sharp, usual = (np.maximum(np.subtract(of, SMOOTH), 0.01) for of in (look.sharpness, self._sharpness))
                sharpness = min(sharpness, float(np.min(sharp / usual)) / BLURRED)
        return float(1.0 / (np.clip(support, LEAST, 1.0) * np.clip(sharpness, LEAST, 1.0)))
