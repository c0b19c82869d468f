"""Motion of something that drives on a plane."""

import numpy as np

from depth_pose_ros.geometry import se3

LEFT = 1e-4
"""Standard deviation (rad, and the length of the motion) that is left of what the plane forbids: none is ever exact."""


def planar(T: np.ndarray, covariance: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest motion that turns about ``up`` and does not move along it, and its covariance.

    T: (4, 4). covariance: (6, 6) in the axes of T's parent. up: (3,) unit vector, the same in parent and child.
    """
    along = np.outer(up, up)
    across = np.eye(3) - along
    keep = np.zeros((6, 6))
    keep[:3, :3], keep[3:, 3:] = across, along
    moved = across @ T[:3, 3]
    left = np.zeros((6, 6))
    left[:3, :3], left[3:, 3:] = LEFT**2 * (moved @ moved + 1e-6) * along, LEFT**2 * across
    return se3.make_pose(se3.so3_exp(along @ se3.so3_log(T[:3, :3])), moved), keep @ covariance @ keep.T + left
