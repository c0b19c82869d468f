"""How well a motion is known, and how that adds up along a path."""

import numpy as np

from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.robust import curvature_share, geman_mcclure


def by_cluster(values: np.ndarray, clusters: np.ndarray | None) -> np.ndarray:
    """Sums of (..., N) values over each cluster of (N,) non-negative ids: (..., C); the values themselves when None."""
    if clusters is None:
        return values
    rows = np.atleast_2d(values)
    count = int(clusters.max()) + 1 if len(clusters) else 0
    sums = np.stack([np.bincount(clusters, row, count) for row in rows])
    return sums if values.ndim > 1 else sums[0]


def tiles(points: np.ndarray, width: int, height: int, columns: int = 12) -> np.ndarray:
    """(N, 2) pixels -> (N,) id of the square tile each lies in, ``columns`` of them across the image."""
    side = width / columns
    rows = max(1, round(height / side))
    x = np.clip(points[:, 0] * (columns / width), 0, columns - 1).astype(np.intp)
    y = np.clip(points[:, 1] * (rows / height), 0, rows - 1).astype(np.intp)
    return y * columns + x


def estimator_covariance(
    jacobian: np.ndarray,
    residual: np.ndarray,
    squared: np.ndarray,
    clusters: np.ndarray,
    prior_information: np.ndarray | None = None,
) -> np.ndarray:
    """(k, k) covariance of a robust least-squares estimate whose errors go together inside clusters.

    jacobian: (k, m N), residual: (m N,), both whitened and multiplied by the roots of the robust weights.
    squared:  (N,) squared normalised residuals that the Geman-McClure weights were made of. clusters: (N,) ids.
    prior_information: (k, k) of what else the estimate was made from.

    The sandwich estimator with clusters (Liang and Zeger, 1986): matches of one image region share the errors of their
    flow, so two thousand of them are not two thousand measurements.
    """
    repeats = jacobian.shape[1] // len(squared)
    known = 0.0 if prior_information is None else prior_information
    H = jacobian @ jacobian.T * curvature_share(geman_mcclure(squared)) + known
    bread = np.linalg.inv(H + 1e-12 * np.eye(len(jacobian)))
    score = by_cluster(jacobian * residual, np.tile(clusters, repeats))
    used = max(int(np.count_nonzero(np.abs(score).sum(0))), 2)
    return bread @ (score @ score.T * (used / (used - 1.0)) + known) @ bread


def of_pose_in_first_view(R: np.ndarray, t: np.ndarray, covariance: np.ndarray, scale_spread: float) -> np.ndarray:
    """Covariance (6, 6) of T_1_2, in the axes of view 1, from that of (dt, dr) in ``t + dt, exp(dr) R``.

    The relative standard deviation of the scale adds its share along the translation.
    """
    J = np.zeros((6, 6))
    J[:3, :3] = J[3:, 3:] = -R.T
    J[:3, 3:] = -R.T @ se3.hat(t)
    C = J @ covariance @ J.T
    p = -R.T @ t
    C[:3, :3] += scale_spread**2 * np.outer(p, p)
    return C


def along_path(T_a_b: np.ndarray, C_a_b: np.ndarray, T_b_c: np.ndarray, C_b_c: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of ``T_a_c = T_a_b T_b_c``, each in the axes of its parent frame."""
    R = T_a_b[:3, :3]
    F = np.eye(6)
    F[:3, 3:] = -se3.hat(R @ T_b_c[:3, 3])
    G = np.zeros((6, 6))
    G[:3, :3] = G[3:, 3:] = R
    return F @ C_a_b @ F.T + G @ C_b_c @ G.T
