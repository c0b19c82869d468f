"""How well a motion is known, and how that adds up along a path."""

import numpy as np

from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.robust import curvature_share, geman_mcclure

COLUMNS = 12  # tiles across an image
IN_COMMON = 0.7  # correlation of the errors of two motions from the same view
REACH = 3  # tiles over which errors of flow and of depth were seen to go together


def by_cluster(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Sums of (k, N) values over each cluster of (N,) non-negative ids: (k, C)."""
    return np.stack([np.bincount(clusters, row) for row in values])


def tiles(points: np.ndarray, width: int, height: int, columns: int = COLUMNS) -> np.ndarray:
    """(N, 2) pixels -> (N,) id of the square tile each lies in, ``columns`` of them across the image."""
    side = width / columns
    rows = max(1, round(height / side))
    x = np.clip(points[:, 0] * (columns / width), 0, columns - 1).astype(np.intp)
    y = np.clip(points[:, 1] * (rows / height), 0, rows - 1).astype(np.intp)
    return y * columns + x


def by_window(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """(k, N) values -> (k, B) sums over every square of REACH by REACH tiles, over REACH.

    The sum of their squares is that of all pairs of tiles, each weighted by how far apart the two are: 1 for a tile and
    itself, falling to 0 at REACH tiles (Conley, 1999).
    """
    rows = int(clusters.max()) // COLUMNS + 1
    size = rows * COLUMNS
    grid = np.stack([np.bincount(clusters, row, size) for row in values]).reshape(-1, rows, COLUMNS)
    total = np.pad(grid, ((0, 0), (REACH, REACH - 1), (REACH, REACH - 1))).cumsum(1).cumsum(2)
    sums = total[:, REACH:, REACH:] - total[:, :-REACH, REACH:] - total[:, REACH:, :-REACH]
    return (sums + total[:, :-REACH, :-REACH]).reshape(len(values), -1) / REACH


def estimator_covariance(
    jacobian: np.ndarray,
    residual: np.ndarray,
    per_px: np.ndarray,
    squared: np.ndarray,
    shared_px: float,
    clusters: np.ndarray,
    prior_information: np.ndarray | float = 0.0,
) -> np.ndarray:
    """(k, k) covariance of a robust least-squares estimate whose errors go together over parts of the image.

    jacobian: (k, 2 N), residual: (2 N,), both whitened and multiplied by the roots of the robust weights; across the
              epipolar lines of all matches, then along them. per_px: (2 N,) what a pixel of error is in the residual.
    squared:  (N,) squared normalised residuals that the Geman-McClure weights were made of. clusters: (N,) tiles.
    shared_px: error that neighbours have in common beyond what the residuals still show: the estimate has fitted it.
    prior_information: (k, k) of what else the estimate was made from.

    The sandwich estimator with spatial correlation: the flow and the depth of neighbours err together, so two thousand
    matches are not two thousand measurements.
    """
    n = len(squared)
    H = jacobian @ jacobian.T * curvature_share(geman_mcclure(squared)) + prior_information
    bread = np.linalg.inv(H + 1e-12 * np.eye(len(jacobian)))
    meat = prior_information
    for part in (slice(0, n), slice(n, 2 * n)):
        for values in (residual[part], shared_px * per_px[part]):
            score = by_window(jacobian[:, part] * values, clusters)
            meat = meat + score @ score.T
    return bread @ meat @ bread


def with_others(C: np.ndarray, away: np.ndarray, log_likelihoods: np.ndarray) -> np.ndarray:
    """Covariance (k, k) of an estimate that may be one of several: C and what the others add.

    away: (M, k) from the estimate to each of them. log_likelihoods: (M,) in nats.
    """
    shares = np.exp(log_likelihoods - log_likelihoods.max())
    return C + (away.T * (shares / shares.sum())) @ away


def of_pose_in_first_view(R: np.ndarray, t: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of T_1_2, in the axes of view 1, from that of (dt, dr) in ``t + dt, exp(dr) R``."""
    J = np.zeros((6, 6))
    J[:3, :3] = J[3:, 3:] = -R.T
    J[:3, 3:] = -R.T @ se3.hat(t)
    return J @ covariance @ J.T


def of_start() -> np.ndarray:
    """Covariance (7, 7) of a pose that is known exactly, and of the error of the unit; see :func:`along_path`."""
    return np.diag([0.0] * 6 + [1.0])


def along_path(
    T_a_b: np.ndarray,
    C_a_b: np.ndarray,
    T_b_c: np.ndarray,
    C_b_c: np.ndarray,
    scale_spread: float = 0.0,
    kept: float = 1.0,
) -> np.ndarray:
    """Covariance (7, 7) of ``T_a_c = T_a_b T_b_c``, each in the axes of its parent frame, and of the error of the unit.

    C_a_b: (7, 7) likewise. C_b_c: (6, 6) but for what is wrong with the unit.
    scale_spread: relative standard deviation of the unit of T_b_c. Its error changes slowly, so it does not average out
    as those of single steps do: it is the seventh unknown, in its standard deviations.
    kept: correlation of the error of the unit in b and in c.
    """
    R = T_a_b[:3, :3]
    way = R @ T_b_c[:3, 3]
    stretch = np.concatenate([scale_spread * way, np.zeros(3), [1.0]])
    F = np.eye(7)
    F[:3, 3:6] = -se3.hat(way)
    F[:, 6] = kept * stretch
    G = np.zeros((7, 6))
    G[:3, :3] = G[3:6, 3:] = R
    return F @ C_a_b @ F.T + G @ C_b_c @ G.T + (1.0 - kept * kept) * np.outer(stretch, stretch)


def with_scale(C: np.ndarray, way: np.ndarray, scale_spread: float) -> np.ndarray:
    """Covariance (6, 6) of a motion along ``way`` (3,) from that but for what is wrong with the unit."""
    C = C.copy()
    C[:3, :3] += scale_spread**2 * np.outer(way, way)
    return C


def of_difference(C_a_c: np.ndarray, C_a_b: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of T_b_c, turned into the axes of a, from those of T_a_c and T_a_b.

    way: (3,) from b to c in the axes of a. Flow from one and the same view a errs much the same in b and in c.
    """
    G = -np.eye(6)
    G[:3, 3:] = se3.hat(way)
    common = IN_COMMON * _root(C_a_c) @ _root(C_a_b) @ G.T
    return C_a_c + G @ C_a_b @ G.T + common + common.T


def _root(C: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(C)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
