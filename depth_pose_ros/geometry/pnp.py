"""Pose from matches and an uncertain depth: PnP in which the depth of every point is known only roughly, or not at all.

Beside the pose, each match has one unknown, its inverse depth in view 1. What a network says of it is a prior of
relative standard deviation ``depth_spread``, and the unknown is eliminated in closed form (variable projection), so a
step costs what a step of plain PnP costs. With a small spread this is PnP; with a large one, or without any prior, only
the epipolar constraint is left, and it is the essential matrix. In between, each match counts for what it knows: across
its epipolar line always, along it only where the parallax is so small that the depth hardly matters. Hence one solver
for fast and slow motion, for planes and for pure rotation, where an essential matrix alone degenerates.

No point lies behind a camera: where a match asks for a negative inverse depth it is taken to be at infinity, and its
distance from there counts in full. Without that, slow motion past a plane has deep false minima.
"""

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.robust import MIN_NOISE_PX, WIDTH, geman_mcclure, noise_scale


@dataclass(frozen=True)
class PoseFit:
    """R, t: ``X_2 = R X_1 + t``, in the unit of the depth; with |t| = 1 if there was none.

    has_length:     whether the length of t means anything.
    residual_px:    (N,) distance that is left between match and prediction, times the root of the match's weight.
    noise_px:       robust standard deviation of one coordinate of a match of weight one.
    jacobian:       (6, 2N) whitened and robustly weighted, of a small motion of view 2: ``R <- exp(dr) R,
                    t <- t + dt``, rows dt, dr; columns: all matches across their epipolar lines, then along them.
    residual:       (2N,) whitened, weighted likewise. per_px: (2N,) what a pixel of error is in it.
    """

    R: np.ndarray
    t: np.ndarray
    has_length: bool
    residual_px: np.ndarray
    noise_px: float
    jacobian: np.ndarray
    residual: np.ndarray
    per_px: np.ndarray


def freedoms(t: np.ndarray) -> np.ndarray:
    """(6, 5) orthonormal basis of the small motions (dt, dr) that an essential matrix sees: all but along t."""
    basis = np.zeros((6, 5))
    basis[:3, :2], basis[3:, 2:] = np.linalg.svd(t[None])[2][1:].T, np.eye(3)
    return basis


def _best_inverse_depth(
    R: np.ndarray,
    t: np.ndarray,
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    prior: np.ndarray,
    prior_information: np.ndarray,
    information: np.ndarray,
) -> np.ndarray:
    """(N,) inverse depth in view 1, at least 0, that best explains match and prior for a given motion.

    As triangulation.signed_inverse_depth, with the prior added. information: of the match, per squared unit of the
    rays; prior_information: of the prior.
    """
    Y = R @ rays_1
    k = t[:2, None] - rays_2[:2] * t[2]
    m = rays_2[:2] * Y[2] - Y[:2]
    a = information / np.maximum(Y[2] + prior * t[2], 1e-3) ** 2  # undo the multiplication by the depth
    rho = (a * (k[0] * m[0] + k[1] * m[1]) + prior_information * prior) / (
        a * (k[0] * k[0] + k[1] * k[1]) + prior_information + 1e-18
    )
    return np.maximum(rho, 0.0)


def refine_pose(
    R: np.ndarray,
    t: np.ndarray,
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    focal: float,
    weights: np.ndarray,
    inverse_depth: np.ndarray | None,
    depth_spread: np.ndarray | float | None,
    iterations: int = 6,
    anneal: float = 1.0,
    max_noise_px: float = np.inf,
) -> PoseFit:
    """Robust Gauss-Newton from (R, t).

    rays_1, rays_2: (3, N) with z = 1. weights: (N,), about one; larger is more certain. focal: pixels per unit of the
                    rays. inverse_depth: (N,) prior in view 1, > 0, or None; then t must not be zero.
    depth_spread:   relative standard deviation of the prior, scalar or (N,). A network's errors go together over
                    patches, so it should be several times their own spread: thousands of matches would else outvote
                    geometry.
    anneal:         how many times wider the robust kernel is in the first step; it halves each step down to one.
    max_noise_px:   what the noise is at most. It may fall from step to step but not rise, or a motion could make itself
                    likely by calling everything noise.
    """
    n = rays_1.shape[1]
    x_2 = rays_2[:2]
    if inverse_depth is None:
        prior, prior_information = np.zeros(n), np.zeros(n)
        t = t / np.linalg.norm(t)
    else:
        prior, prior_information = inverse_depth, 1.0 / (depth_spread * inverse_depth) ** 2
    rho = prior
    root_weights = np.sqrt(weights)
    J = np.empty((6, 2, n))
    information = np.ones(n)
    for step in range(iterations + 1):
        if step or inverse_depth is None:
            rho = _best_inverse_depth(R, t, rays_1, rays_2, prior, prior_information, information * focal**2)
        Y = R @ rays_1
        iz = 1.0 / np.maximum(Y[2] + rho * t[2], 1e-3)
        uv = (Y[:2] + rho * t[:2, None]) * iz
        iz *= focal
        e = (x_2 - uv) * focal
        g = (t[:2, None] - uv * t[2]) * iz  # d(pixel) / d(rho), points along the epipolar line
        g_length = np.sqrt(g[0] * g[0] + g[1] * g[1]) + 1e-9
        g /= g_length
        g[0] += g_length < 1e-8  # no translation: any direction will do
        along = g[0] * e[0] + g[1] * e[1]
        across = g[0] * e[1] - g[1] * e[0]
        noise = min(max(noise_scale(across * root_weights), MIN_NOISE_PX), max_noise_px)
        max_noise_px = noise
        information = weights / (noise * noise)
        squared = (along * along + across * across) * information
        robust = geman_mcclure(squared, WIDTH * max(1.0, anneal * 0.5**step))
        # Derivatives of the pixel, across and along, by the point in view 2, and so by translation and rotation.
        A = np.empty((3, 2, n))
        A[0, 0], A[1, 0] = -g[1], g[0]
        A[0, 1], A[1, 1] = g
        A[2] = -(A[0] * uv[0] + A[1] * uv[1])
        A *= iz
        # Along the line by the prior's depth: the refined one shares the error of the residual, and would stretch t.
        np.multiply(A[:, 0], rho, out=J[:3, 0])
        np.multiply(A[:, 1], prior, out=J[:3, 1])
        np.subtract(Y[1] * A[2], Y[2] * A[1], out=J[3])
        np.subtract(Y[2] * A[0], Y[0] * A[2], out=J[4])
        np.subtract(Y[0] * A[1], Y[1] * A[0], out=J[5])
        # What is left of a match along its line once the best depth has taken its share (Schur complement).
        share = prior_information / (information * (g_length * g_length) + prior_information + 1e-18)
        pull = g_length * (rho - prior)
        at_infinity = rho <= 0.0
        share[at_infinity], pull[at_infinity] = 1.0, 0.0
        root = np.empty((2, n))
        np.sqrt(information * robust, out=root[0])
        np.multiply(root[0], np.sqrt(share), out=root[1])
        residual = np.empty((2, n))
        residual[0] = across
        residual[1] = along + pull
        residual *= root
        J *= root
        if step == iterations:
            break
        free = np.eye(6) if inverse_depth is not None else freedoms(t)
        flat = free.T @ J.reshape(6, 2 * n)
        H = flat @ flat.T
        dx = free @ np.linalg.solve(H + np.diag(1e-9 * np.diag(H) + 1e-12), flat @ residual.ravel())
        R = se3.so3_exp(dx[3:]) @ R
        t = t + dx[:3]
        if inverse_depth is None:
            t /= np.linalg.norm(t)
        settled = max(abs(dx[3:])) * focal < 5e-3 and max(abs(dx[:3])) < 1e-3 * (np.linalg.norm(t) + 1e-9)
        if settled and anneal * 0.5**step <= 1.0:
            iterations = step + 1  # one more look, at the settled pose
    return PoseFit(
        R=se3.orthonormal(R),
        t=t,
        has_length=inverse_depth is not None,
        residual_px=np.sqrt(squared) * noise,
        noise_px=noise,
        jacobian=J.reshape(6, 2 * n),
        residual=residual.ravel(),
        per_px=root.ravel(),
    )
