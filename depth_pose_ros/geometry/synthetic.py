"""Matches of simple scenes with exact truth: what the geometry is tested and timed on, without any image or network.

The scenes and the errors follow the cases on which two-view solvers are known to differ: a street, a room, the ground
alone, a single wall, a cloud of points; forward, sideways, tiny and no translation; wrong matches that are scattered
and ones that move together like another car; and matches of which some are far better than others.
"""

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.geometry import se3

CAMERA = PinholeCamera(832, 256, 480.0, 489.0, 408.0, 126.5)  # KITTI at the size of the paper; fx != fy on purpose
CAMERA_HEIGHT = 1.65  # m above the ground of the scenes that have one


@dataclass(frozen=True)
class TwoViews:
    """Matches between two views of one scene, and the truth.

    points_1, points_2: (N, 2) float64 pixels, with noise and outliers.
    depth_1, depth_2:   (N,) true depth in m of the point in view 1 and in view 2, for outliers too.
    network_depth_1, network_depth_2: (N,) the same with the errors of a depth network.
    scores:             (N,) float64, about one over the expected error; all alike where the noise is.
    inliers:            (N,) bool, the matches that are not wrong.
    T_2_1:              (4, 4), X_2 = T_2_1 X_1.
    noise_px:           standard deviation of each coordinate of ``points_2``, of a match of median score.
    """

    camera: PinholeCamera
    points_1: np.ndarray
    points_2: np.ndarray
    depth_1: np.ndarray
    depth_2: np.ndarray
    network_depth_1: np.ndarray
    network_depth_2: np.ndarray
    scores: np.ndarray
    inliers: np.ndarray
    T_2_1: np.ndarray
    noise_px: float


def scene_depth(scene: str, rays: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Depth along Z in m of (N, 3) rays, z = 1, in a ``street``, ``room``, ``ground``, ``wall`` or ``random`` scene."""
    x, y = rays[:, 0], rays[:, 1]
    far = np.full(len(rays), np.inf)
    ground = np.where(y > 1e-3, CAMERA_HEIGHT / np.maximum(y, 1e-3), far)
    if scene == "ground":
        return ground
    if scene == "wall":  # seen at an angle, 8 m ahead
        return 8.0 / (1.0 + 0.3 * x - 0.05 * y)
    if scene == "random":
        return np.exp(rng.uniform(np.log(2.0), np.log(80.0), len(rays)))
    if scene == "room":
        planes = [ground, -1.1 / np.minimum(y, -1e-3), 1.8 / np.maximum(np.abs(x), 1e-3), 3.6 / (1.0 + 0.2 * x)]
        # Furniture stands out of the walls by up to 1.2 m, in blocks.
        return np.min(planes, 0) * (1.0 - 0.35 * (np.sin(23.0 * x) > 0.4) * (np.sin(17.0 * y) > -0.5))
    sides = 7.0 / np.maximum(np.abs(x), 1e-3)
    # House fronts and parked cars stand out of the two side planes by up to 4 m, in blocks.
    sides *= 1.0 - 0.55 * (np.sin(40.0 * x) > 0.3) * (y > -0.15)
    return np.minimum(np.minimum(ground, sides), 80.0)


def two_views(
    scene: str = "street",
    translation: tuple[float, float, float] = (0.0, 0.0, 1.0),
    rotation_deg: tuple[float, float, float] = (0.2, 0.8, -0.1),
    matches: int = 2000,
    noise_px: float = 0.3,
    outliers: float = 0.1,
    depth_noise: float = 0.18,
    depth_scale: float = 1.0,
    noise_spread: float = 0.0,
    noise_shared: float = 0.0,
    seed: int = 0,
    camera: PinholeCamera = CAMERA,
) -> TwoViews:
    """Matches between two views, the second moved by ``translation`` (m) and turned by ``rotation_deg`` in the first.

    noise_px:    standard deviation of each coordinate of ``points_2``.
    outliers:    share of wrong matches: half of them scattered (15 px), half moving together (4 to 15 px).
    depth_noise: relative error of the network's depth, constant over patches of 60 x 40 px; a third of it again per
                 pixel. depth_scale is its unit.
    noise_spread: standard deviation of the logarithm of the noise from match to match; the scores tell it with an
                  error of 30 %.
    noise_shared: share of the variance of the noise that the matches of a patch of 60 x 40 px have in common.
    """
    rng = np.random.default_rng(seed)
    T_1_2 = se3.make_pose(se3.so3_exp(np.radians(rotation_deg)), np.asarray(translation, np.float64))
    T_2_1 = se3.inverse(T_1_2)
    points_1, points_2, depth_1, depth_2 = [np.zeros((0, 2))], [np.zeros((0, 2))], [np.zeros(0)], [np.zeros(0)]
    while sum(map(len, points_1)) < matches:
        p = rng.uniform((0, 0), (camera.width - 1, camera.height - 1), (2 * matches, 2))
        z = scene_depth(scene, camera.rays(p), rng)
        keep = np.isfinite(z) & (z > 0.5) & (z < 100.0)
        p, z = p[keep], z[keep]
        X_2 = camera.rays(p) * z[:, None] @ T_2_1[:3, :3].T + T_2_1[:3, 3]
        keep = X_2[:, 2] > 0.3
        p, z, X_2 = p[keep], z[keep], X_2[keep]
        q = camera.project(X_2)
        keep = (q >= 0).all(1) & (q[:, 0] <= camera.width - 1) & (q[:, 1] <= camera.height - 1)
        points_1.append(p[keep])
        points_2.append(q[keep])
        depth_1.append(z[keep])
        depth_2.append(X_2[keep, 2])
    p, q = np.concatenate(points_1)[:matches], np.concatenate(points_2)[:matches]
    z_1, z_2 = np.concatenate(depth_1)[:matches], np.concatenate(depth_2)[:matches]
    spread = np.exp(rng.normal(0, noise_spread, matches)) if noise_spread else np.ones(matches)
    scores = 1.0 / (spread * np.exp(rng.normal(0, 0.3, matches))) if noise_spread else np.ones(matches)
    noise = rng.normal(0, noise_px, q.shape)
    if noise_shared:
        cells = (p // (60, 40)).astype(int)
        shared = rng.normal(0, noise_px, (camera.height // 40 + 1, camera.width // 60 + 1, 2))[cells[:, 1], cells[:, 0]]
        noise = np.sqrt(1.0 - noise_shared) * noise + np.sqrt(noise_shared) * shared
    q = q + noise * spread[:, None]

    wrong = rng.permutation(matches)[: round(outliers * matches)]
    scattered, together = wrong[: len(wrong) // 2], wrong[len(wrong) // 2 :]
    q[scattered] += rng.normal(0, 15.0, (len(scattered), 2))
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(4.0, 15.0)
    q[together] += length * np.array([np.cos(angle), np.sin(angle)])
    inliers = np.ones(matches, bool)
    inliers[wrong] = False

    def as_network(points: np.ndarray, depth: np.ndarray) -> np.ndarray:
        cells = (np.clip(points, 0, (camera.width, camera.height)) // (60, 40)).astype(int)
        patch = rng.normal(0, depth_noise, (camera.height // 40 + 2, camera.width // 60 + 2))[cells[:, 1], cells[:, 0]]
        pixel = rng.normal(0, depth_noise / 3, len(points))
        return depth * depth_scale * np.exp(np.clip(patch, -0.7, 0.7) + pixel)

    return TwoViews(camera, p, q, z_1, z_2, as_network(p, z_1), as_network(q, z_2), scores, inliers, T_2_1, noise_px)
