"""The rotation that explains most of the matches without any translation, and the parallax that it leaves over."""

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.geometry.robust import MIN_NOISE_PX, geman_mcclure, noise_scale


@dataclass(frozen=True)
class RotationFit:
    """R (3, 3) with ``x_2 ~ R x_1`` for rays.

    distance_px: (N,) length of the flow it does not explain; the median of them is the parallax.
    residual_px, noise_px, jacobian, residual, per_px: as in pnp.PoseFit, for a translation in median distances.
    """

    R: np.ndarray
    distance_px: np.ndarray
    residual_px: np.ndarray
    noise_px: float
    jacobian: np.ndarray
    residual: np.ndarray
    per_px: np.ndarray


def fit_rotation(
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    focal: float,
    weights: np.ndarray,
    inverse_depth: np.ndarray | None = None,
    iterations: int = 6,
) -> RotationFit:
    """Robust rotation between two sets of rays by iterated Kabsch.

    rays_1, rays_2: (3, N) with z = 1, N >= 2; focal in pixels; weights (N,), larger is more certain.
    inverse_depth:  (N,) > 0 in view 1, any unit, only for the jacobian; None: all points are equally far.
    Each step is the closed-form optimum for its weights, so no start is needed and any angle up to the field of view is
    within reach. The weights are Cauchy's, which reach further than redescending ones: parallax is no outlier here.
    """
    unit_1 = rays_1 / np.sqrt(np.einsum("ij,ij->j", rays_1, rays_1))
    unit_2 = rays_2 / np.sqrt(np.einsum("ij,ij->j", rays_2, rays_2))
    w = weights
    for _ in range(iterations):
        U, _, Vt = np.linalg.svd((unit_2 * w) @ unit_1.T)
        U[:, 2] *= np.linalg.det(U) * np.linalg.det(Vt)
        R = U @ Vt
        Y = R @ rays_1
        Y[2] = np.maximum(Y[2], 1e-3)  # behind: a far outlier, with a residual that is huge and finite
        e = (rays_2[:2] - Y[:2] / Y[2]) * focal
        length = np.sqrt(e[0] * e[0] + e[1] * e[1])
        w = weights / (1.0 + (length / max(noise_scale(length), 2 * MIN_NOISE_PX)) ** 2)

    uv = Y[:2] / Y[2]
    root_weights = np.sqrt(weights)
    noise = max(noise_scale(e * root_weights), MIN_NOISE_PX)
    weighted = length * root_weights
    root = root_weights * np.sqrt(geman_mcclure((weighted / noise) ** 2)) / noise
    J = np.zeros((6, 2, rays_1.shape[1]))
    u, v = uv
    J[3], J[4], J[5] = (-u * v, -(1 + v * v)), (1 + u * u, u * v), (-v, u)
    nearness = 1.0 if inverse_depth is None else inverse_depth / np.median(inverse_depth)
    J[0, 0] = J[1, 1] = nearness / Y[2]
    J[2] = -uv * J[0, 0]
    J *= focal * root
    return RotationFit(R, length, weighted, noise, J.reshape(6, -1), (e * root).ravel(), np.tile(root, 2))
