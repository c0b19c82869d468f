"""Rigid motions: rotations and poses as matrices, vectors and quaternions.

``T_a_b`` (4, 4) maps coordinates in b to a: ``X_a = T_a_b @ X_b``. Twists are ``(x, y, z, rx, ry, rz)``: translation
first, as in ROS covariances; formulas after Sola et al., "A micro Lie theory" (2018), appendices B and D.
"""

import math

import numpy as np


def hat(v: np.ndarray) -> np.ndarray:
    """(3,) -> (3, 3) with ``hat(v) @ x == cross(v, x)``."""
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


def so3_exp(w: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) in rad -> (3, 3) rotation matrix (Rodrigues)."""
    angle2 = float(w @ w)
    if angle2 < 1e-8:  # Taylor: exact to 1e-17 here, and finite at zero
        a, b = 1.0 - angle2 / 6.0, 0.5 - angle2 / 24.0
    else:
        angle = math.sqrt(angle2)
        a, b = math.sin(angle) / angle, (1.0 - math.cos(angle)) / angle2
    W = hat(w)
    return np.eye(3) + a * W + b * (W @ W)


def so3_log(R: np.ndarray) -> np.ndarray:
    """(3, 3) rotation matrix -> rotation vector (3,) in rad, of length at most pi."""
    q = quaternion_from_matrix(R)
    v = math.sqrt(q[0] ** 2 + q[1] ** 2 + q[2] ** 2)
    if v < 1e-10:
        return 2.0 * q[:3]
    return q[:3] * (2.0 * math.atan2(v, q[3]) / v)


def rotation_angle(R: np.ndarray) -> float:
    """Angle of a (3, 3) rotation in rad, exact for small angles too."""
    return float(np.linalg.norm(so3_log(R)))


def _left_jacobian(w: np.ndarray) -> np.ndarray:
    angle2 = float(w @ w)
    if angle2 < 1e-8:
        a, b = 0.5 - angle2 / 24.0, 1.0 / 6.0 - angle2 / 120.0
    else:
        angle = math.sqrt(angle2)
        a, b = (1.0 - math.cos(angle)) / angle2, (angle - math.sin(angle)) / (angle2 * angle)
    W = hat(w)
    return np.eye(3) + a * W + b * (W @ W)


def se3_exp(twist: np.ndarray) -> np.ndarray:
    """Twist (6,) -> (4, 4)."""
    return make_pose(so3_exp(twist[3:]), _left_jacobian(twist[3:]) @ twist[:3])


def se3_log(T: np.ndarray) -> np.ndarray:
    """(4, 4) -> twist (6,)."""
    w = so3_log(T[:3, :3])
    return np.concatenate([np.linalg.solve(_left_jacobian(w), T[:3, 3]), w])


def make_pose(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(3, 3) and (3,) -> (4, 4)."""
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = t
    return T


def inverse(T: np.ndarray) -> np.ndarray:
    """(4, 4) -> (4, 4), using that the rotation is orthogonal."""
    return make_pose(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])


def adjoint(T: np.ndarray) -> np.ndarray:
    """(4, 4) -> (6, 6) with ``T @ se3_exp(x) @ inverse(T) == se3_exp(adjoint(T) @ x)``."""
    R = T[:3, :3]
    Ad = np.zeros((6, 6))
    Ad[:3, :3] = Ad[3:, 3:] = R
    Ad[:3, 3:] = hat(T[:3, 3]) @ R
    return Ad


def orthonormal(R: np.ndarray) -> np.ndarray:
    """The rotation matrix nearest to a (3, 3) matrix."""
    U, _, Vt = np.linalg.svd(R)
    return U @ np.diag([1.0, 1.0, np.linalg.det(U @ Vt)]) @ Vt


def quaternion_from_matrix(R: np.ndarray) -> np.ndarray:
    """(3, 3) rotation matrix -> unit quaternion (x, y, z, w) with w >= 0 (Shepperd's method: no loss near 180 deg)."""
    trace = R[0, 0] + R[1, 1] + R[2, 2]
    i = int(np.argmax([R[0, 0], R[1, 1], R[2, 2], trace]))
    q = np.empty(4)
    if i == 3:
        q[:] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1], 1.0 + trace
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i], q[j], q[k] = 1.0 + 2.0 * R[i, i] - trace, R[j, i] + R[i, j], R[k, i] + R[i, k]
        q[3] = R[k, j] - R[j, k]
    q /= np.linalg.norm(q)
    return -q if q[3] < 0 else q


def matrix_from_quaternion(q: np.ndarray) -> np.ndarray:
    """Quaternion (x, y, z, w), of any length but zero -> (3, 3) rotation matrix."""
    x, y, z, w = np.asarray(q, np.float64) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
