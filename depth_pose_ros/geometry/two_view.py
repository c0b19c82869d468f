"""The motion between two calibrated views from matches alone: the essential matrix.

Convention: ``X_2 = R X_1 + t``, ``E = [t]x R``, ``x_2' E x_1 = 0``; t has length one. Rays are (3, N) with z = 1.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.robust import MIN_NOISE_PX, WIDTH, curvature_share, geman_mcclure, noise_scale
from depth_pose_ros.geometry.triangulation import signed_inverse_depth


@dataclass(frozen=True)
class EssentialFit:
    """R, t with |t| = 1.

    residual_px: (N,) Sampson distance, or for a match behind a camera its distance from infinity if that is larger,
                 times the root of the match's weight.
    noise_px:    robust standard deviation of the Sampson distance of a match of weight one.
    jacobian:    (6, N) whitened and robustly weighted, rows dt (of length zero along t) and dr, as in pnp.PoseFit.
    residual:    (N,) whitened likewise.
    """

    R: np.ndarray
    t: np.ndarray
    residual_px: np.ndarray
    noise_px: float
    jacobian: np.ndarray
    residual: np.ndarray


@dataclass(frozen=True)
class PosePrior:
    """What is known of a motion before its matches are asked: R, t with |t| = 1.

    information: (6, 6) of (dt, dr): ``t + dt, exp(dr) R``; nothing along t.
    """

    R: np.ndarray
    t: np.ndarray
    information: np.ndarray

    @classmethod
    def from_pose(cls, R: np.ndarray, t: np.ndarray, covariance: np.ndarray) -> "PosePrior":
        """From a pose with a length, whose covariance (6, 6) is of (dt, dr)."""
        length = float(np.linalg.norm(t))
        free = freedoms(t / length)
        unit = np.diag([1.0 / length] * 3 + [1.0] * 3)
        C = free.T @ unit @ covariance @ unit @ free
        return cls(R, t / length, free @ np.linalg.inv(C + 1e-16 * np.eye(5)) @ free.T)

    def distance(self, R: np.ndarray, t: np.ndarray, covariance: np.ndarray) -> float:
        """Squared distance to another motion with |t| = 1, in units of both uncertainties: chi-square, 5 degrees."""
        free = freedoms(self.t)
        C = np.linalg.inv(free.T @ self.information @ free) + free.T @ covariance @ free
        error = free.T @ np.concatenate([t - self.t, se3.so3_log(R @ self.R.T)])
        return float(error @ np.linalg.solve(C, error))

    def at(self, R: np.ndarray, t: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hessian (5, 5) and gradient (5,) at another motion, by the columns of ``free`` (6, 5)."""
        error = np.concatenate([t - self.t, se3.so3_log(R @ self.R.T)])
        return free.T @ self.information @ free, free.T @ self.information @ error


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


def freedoms(t: np.ndarray) -> np.ndarray:
    """(6, 5) orthonormal basis of the small motions (dt, dr) that an essential matrix sees: all but along t."""
    basis = np.zeros((6, 5))
    basis[:3, :2], basis[3:, 2:] = np.linalg.svd(t[None])[2][1:].T, np.eye(3)
    return basis


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


def refine_essential(
    R: np.ndarray,
    t: np.ndarray,
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    focal: float,
    weights: np.ndarray,
    iterations: int = 8,
    anneal: float = 2.0,
    prior: "PosePrior | None" = None,
) -> EssentialFit:
    """Robust Newton steps on the Sampson distance over the five degrees of freedom of (R, direction of t).

    The distance is the first-order geometric error (Hartley and Zisserman, 11.4.3); weights as in pnp.refine_pose.
    prior: what else is known of the motion.
    """
    t = t / np.linalg.norm(t)
    root_weights = np.sqrt(weights)
    J = np.empty((6, rays_1.shape[1]))
    for step in range(iterations + 1):
        if step == iterations:
            rho = signed_inverse_depth(R, t, rays_1, rays_2)
            if np.count_nonzero(rho < 0) > np.count_nonzero(rho > 0):
                t, rho = -t, -rho  # E does not know the sign of t; cheirality does
        Y = R @ rays_1
        line_2 = se3.hat(t) @ Y  # E x_1
        p = -(se3.hat(t) @ rays_2)  # x_2 x t
        line_1 = R[:, :2].T @ p  # first two rows of E' x_2
        scale = focal / np.sqrt(line_2[0] ** 2 + line_2[1] ** 2 + line_1[0] ** 2 + line_1[1] ** 2 + 1e-18)
        distance = (rays_2[0] * line_2[0] + rays_2[1] * line_2[1] + rays_2[2] * line_2[2]) * scale
        noise = max(noise_scale(distance * root_weights), MIN_NOISE_PX)
        squared = distance * distance * weights / (noise * noise)
        robust = geman_mcclure(squared, WIDTH * max(1.0, anneal * 0.5**step))
        for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
            np.subtract(Y[j] * rays_2[k], Y[k] * rays_2[j], out=J[i])  # by t: Y x x_2
            np.subtract(Y[j] * p[k], Y[k] * p[j], out=J[3 + i])  # by the rotation: Y x (x_2 x t)
        root = np.sqrt(robust) * root_weights / noise
        J *= scale * root
        residual = -distance * root
        if step == iterations:
            break
        free = freedoms(t)
        flat = free.T @ J
        H, b = flat @ flat.T, flat @ residual
        H += np.diag(1e-9 * np.diag(H) + 1e-12)
        if anneal * 0.5**step <= 1.0:
            H *= curvature_share(robust, weights)  # so that steps are as long as Newton's
        if prior is not None:
            L, difference = prior.at(R, t, free)
            H += L
            b -= difference
        dx = np.linalg.solve(H, b)
        R = se3.so3_exp(dx[2:]) @ R
        t = t + free[:3, :2] @ dx[:2]
        t /= np.linalg.norm(t)
        if max(abs(dx)) * focal < 5e-3 and anneal * 0.5**step <= 1.0:
            iterations = step + 1
    distance = np.abs(distance)
    behind = (rho < 0) & (Y[2] > 0)
    at_infinity = focal * np.hypot(*(rays_2[:2, behind] - Y[:2, behind] / Y[2, behind]))
    distance[behind] = np.maximum(distance[behind], at_infinity)
    return EssentialFit(se3.orthonormal(R), t, distance * root_weights, noise, J, residual)
