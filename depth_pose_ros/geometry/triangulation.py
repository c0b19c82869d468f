"""Depth of matches between two views whose motion is known.

Arrays of rays are (3, N) float64 with z = 1; the motion is ``X_2 = R X_1 + t``.
"""

from dataclasses import dataclass

import numpy as np

MIN_ANGLE = 0.001  # rad between the two rays: the angle filter of TrianFlow (method 1.7); below, depth is only noise


@dataclass(frozen=True)
class Triangulation:
    """Depths are along Z, in the unit of t, and NaN where ``ok`` is False.

    depth_1, depth_2: (N,) in each view. angle: (N,) rad between the rays, positive in front of the cameras.
    ok:               (N,) bool: in front of both views, and an angle that says something.
    """

    depth_1: np.ndarray
    depth_2: np.ndarray
    angle: np.ndarray
    ok: np.ndarray


def triangulate(
    R: np.ndarray, t: np.ndarray, rays_1: np.ndarray, rays_2: np.ndarray, min_angle: float = MIN_ANGLE
) -> Triangulation:
    """Midpoint of the shortest segment between the two rays of each match (Zhao et al., CVPR 2020, section 3.2).

    Rejects matches whose rays diverge, meet behind a camera, or meet at less than ``min_angle``.
    """
    a = R @ rays_1  # direction of ray 1 in the axes of view 2, its origin is t
    b = rays_2
    aa, bb, ab = np.einsum("ij,ij->j", a, a), np.einsum("ij,ij->j", b, b), np.einsum("ij,ij->j", a, b)
    at, bt = t @ a, t @ b
    # |t + z_1 a - z_2 b| is least where its derivatives by z_1 and z_2 vanish
    determinant = np.maximum(aa * bb - ab * ab, 1e-18)
    z_1 = (ab * bt - bb * at) / determinant
    z_2 = (aa * bt - ab * at) / determinant
    sine = np.sqrt(np.maximum(1.0 - ab * ab / (aa * bb), 0.0))
    angle = np.where((z_1 > 0) & (z_2 > 0), sine, -sine)
    ok = angle > min_angle
    # Depth of the midpoint in each view
    midpoint = 0.5 * (t[:, None] + z_1 * a + z_2 * b)
    depth_2 = midpoint[2]
    depth_1 = R[:, 2] @ (midpoint - t[:, None])
    ok &= (depth_1 > 0) & (depth_2 > 0)
    return Triangulation(np.where(ok, depth_1, np.nan), np.where(ok, depth_2, np.nan), angle, ok)


def signed_inverse_depth(R: np.ndarray, t: np.ndarray, rays_1: np.ndarray, rays_2: np.ndarray) -> np.ndarray:
    """(N,) inverse depth in view 1 that best explains each match in view 2; negative where it lies behind.

    ``x_2 ~ R x_1 + rho t`` is linear in rho once it is multiplied out.
    """
    Y = R @ rays_1
    k = t[:2, None] - rays_2[:2] * t[2]
    m = rays_2[:2] * Y[2] - Y[:2]
    return (k[0] * m[0] + k[1] * m[1]) / (k[0] * k[0] + k[1] * k[1] + 1e-18)
