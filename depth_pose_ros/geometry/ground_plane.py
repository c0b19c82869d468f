"""The ground under a vehicle, found in triangulated points: with the camera's height known, it gives metres."""

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.geometry.covariance import by_cluster
from depth_pose_ros.geometry.robust import geman_mcclure, noise_scale

MAX_TILT = np.radians(25.0)  # of the ground's normal from the camera's y axis: a camera that looks ahead
CLIMB = 0.005  # rad, standard deviation of the angle between the motion and the ground: wheels follow it
ROLL = 0.02  # rad, likewise of the camera's x axis against the ground
MIN_SHARE = 0.2  # of the points below the horizon that must lie on the plane
SAMPLES = 100
MIN_NOISE_PX = 0.2


@dataclass(frozen=True)
class GroundPlane:
    """``normal . X = height`` for points X in the camera's optical frame; the normal points down.

    height:  of the camera above the plane, in the unit of the depth. spread: its relative standard deviation.
    inliers: points on the plane, of ``points`` that lie below the horizon.
    """

    normal: np.ndarray
    height: float
    spread: float
    inliers: int
    points: int


def find_ground(
    rays: np.ndarray,
    inverse_depth: np.ndarray,
    pixels_per_inverse_depth: np.ndarray,
    direction: np.ndarray,
    clusters: np.ndarray,
    min_inliers: int = 40,
) -> GroundPlane | None:
    """The plane below the camera on which most points of the lower image lie; None where there is no convincing one.

    rays:                     (3, N) with z = 1; inverse_depth: (N,) along them.
    pixels_per_inverse_depth: (N,) how far a match moves by a unit of inverse depth, divided by its expected error
                              relative to the median one: it makes residuals pixels.
    direction:                (3,) unit vector of the camera's motion, which runs along the ground.
    clusters:                 (N,) image region ids, for the spread.

    A plane is linear in inverse depth: ``rho = m . ray`` with ``m = normal / height``. So two points and the direction
    of motion are a 3 x 3 system, the fit is linear least squares, and its errors are those of the flow.
    """
    below = (rays[1] > 0.03) & np.isfinite(inverse_depth) & (inverse_depth > 0)
    count = int(np.count_nonzero(below))
    if count < min_inliers:
        return None
    x, rho, gain = rays[:, below], inverse_depth[below], pixels_per_inverse_depth[below]

    rng = np.random.default_rng(count)
    pairs = rng.integers(0, count, (SAMPLES, 2))
    A = np.empty((SAMPLES, 3, 3))
    A[:, :2] = x[:, pairs].transpose(1, 2, 0)
    A[:, 2] = direction
    b = np.zeros((SAMPLES, 3, 1))
    b[:, :2, 0] = rho[pairs]
    usable = np.abs(np.linalg.det(A)) > 1e-4
    m = np.linalg.solve(A[usable], b[usable])[:, :, 0]
    m = m[_is_level(m)]
    if not len(m):
        return None
    some = np.arange(count) if count <= 400 else rng.choice(count, 400, replace=False)
    error = np.abs(rho[some] - m @ x[:, some]) * gain[some]  # (samples, points) in pixels
    m = m[np.argmin(np.mean(np.minimum(error, 1.0), axis=1))]

    soft = np.stack([direction / CLIMB, np.array([1.0, 0.0, 0.0]) / ROLL])
    # Points of one region err together: only as many as there are regions count against what is known beforehand.
    regions = clusters[below]
    discount = np.sqrt(min(1.0, len(np.unique(regions)) / count))
    noise = 0.5
    for _ in range(6):
        residual = (rho - m @ x) * gain
        squared = (residual / noise) ** 2
        root = np.sqrt(geman_mcclure(squared, 2.0)) / noise
        root *= discount
        J = x * (gain * root)
        prior = soft / np.linalg.norm(m)
        H = J @ J.T + prior.T @ prior
        m = m + np.linalg.solve(H, J @ (residual * root) - prior.T @ (prior @ m))
        noise = max(noise_scale(residual[np.abs(residual) < 1.5]), MIN_NOISE_PX)
    distance = np.abs(residual)
    on_plane, around = np.count_nonzero(distance < 1.0), np.count_nonzero((distance >= 1.0) & (distance < 3.0))
    # By chance twice as many points lie around any plane as on it.
    if on_plane < max(min_inliers, MIN_SHARE * count, around) or not _is_level(m[None])[0]:
        return None
    length = float(np.linalg.norm(m))
    score = by_cluster(J * (residual * root), regions)
    bread = np.linalg.inv(H)
    covariance = bread @ (score @ score.T + prior.T @ prior) @ bread
    normal = m / length
    return GroundPlane(
        normal, 1.0 / length, float(np.sqrt(normal @ covariance @ normal)) / length, int(on_plane), count
    )


def _is_level(m: np.ndarray) -> np.ndarray:
    return m[:, 1] > np.cos(MAX_TILT) * np.linalg.norm(m, axis=1)
