"""The motion between two calibrated views from matches alone: the essential matrix.

Convention: ``X_2 = R X_1 + t``, ``E = [t]x R``, ``x_2' E x_1 = 0``; t has length one. Rays are (3, N) with z = 1.
"""

import cv2
import numpy as np

from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.robust import geman_mcclure
from depth_pose_ros.geometry.triangulation import signed_inverse_depth


def sample_consensus(
    rays_1: np.ndarray, rays_2: np.ndarray, focal: float, threshold_px: float = 1.0
) -> tuple[np.ndarray, np.ndarray] | None:
    """A first (R, t) by OpenCV's USAC (locally optimised RANSAC with SPRT); None where it finds nothing.

    Only a hypothesis: refine it. OpenCV may give None, an empty array, or several solutions stacked.
    """
    if rays_1.shape[1] < 8:
        return None
    try:
        E, _ = cv2.findEssentialMat(
            np.ascontiguousarray(rays_1[:2].T),
            np.ascontiguousarray(rays_2[:2].T),
            np.eye(3),
            method=cv2.USAC_FAST,
            prob=0.999,
            threshold=threshold_px / focal,
        )
    except cv2.error:
        return None
    if E is None or E.size < 9 or not np.isfinite(E).all():
        return None
    candidates = [decompose(E[i : i + 3], rays_1, rays_2) for i in range(0, len(E) - 2, 3)]
    R, t, _ = max(candidates, key=lambda candidate: candidate[2])
    return R, t


def decompose(E: np.ndarray, rays_1: np.ndarray, rays_2: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The (R, t) of the four that E stands for with the most points in front of both views, and their number."""
    U, _, Vt = np.linalg.svd(E)
    W = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    best = (np.eye(3), U[:, 2], -1)
    for R in (U @ W @ Vt, U @ W.T @ Vt):
        R = R * np.sign(np.linalg.det(R))
        for t in (U[:, 2], -U[:, 2]):
            rho = signed_inverse_depth(R, t, rays_1, rays_2)
            in_front = int(np.count_nonzero((rho > 0) & (R[2] @ rays_1 + rho * t[2] > 0)))
            if in_front > best[2]:
                best = (R, t, in_front)
    return best


def twin(
    R: np.ndarray, t: np.ndarray, rays_1: np.ndarray, rays_2: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """The other motion (R, t) under which a plane looks the same; None where less than half the matches lie on one.

    t: of any length but 0. noise: standard deviation of a match in units of the rays.
    The plane is fitted to the inverse depths, in which it is linear: rho = n x. Its homography R + t n' has two
    decompositions with the plane in front (Faugeras and Lustman, 1988).
    """
    Y = R @ rays_1
    rho = signed_inverse_depth(R, t, rays_1, rays_2)
    k = t[:2, None] - rays_2[:2] * t[2]
    information = (k[0] * k[0] + k[1] * k[1]) / (np.maximum(Y[2], 1e-3) * noise) ** 2
    weights = information
    for _ in range(5):
        weighted = rays_1 * weights
        n = np.linalg.solve(weighted @ rays_1.T + 1e-12 * np.eye(3), weighted @ rho)
        squared = (rho - n @ rays_1) ** 2 * information
        weights = information * geman_mcclure(squared, 3.0)
    if np.count_nonzero(squared < 9.0) < 0.5 * len(squared):
        return None
    _, rotations, translations, normals = cv2.decomposeHomographyMat(R + np.outer(t, n), np.eye(3))
    best = None
    for other, direction, normal in zip(rotations, translations, normals, strict=True):
        if not np.isfinite(other).all():  # of matches of no scene
            continue
        in_front = np.median(normal.ravel() @ rays_1)
        differs = se3.rotation_angle(other @ R.T)
        if in_front > 0 and differs > 1e-4 and (best is None or differs > best[2]):
            best = other, direction.ravel(), differs
    return best[:2] if best else None
