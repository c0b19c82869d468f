"""How likely the matches are under a motion: what hypotheses are compared by.

Across its epipolar line a match may be off by the noise alone. Along it, depth decides, and is known only roughly: from
a network, or not at all, when all points count as equally far. So each match has a normal density in two dimensions,
as wide along the line as depth leaves it open, beside a uniform one for wrong matches. A motion with more parallax than
it needs leaves more open, and pays for it: the density has to reach further and is lower everywhere. That is what tells
the two motions of a plane apart, and a pure rotation from a translation that a turn happens to cancel.
"""

import numpy as np

from depth_pose_ros.geometry.triangulation import signed_inverse_depth

WRONG_SHARE = 0.3  # of the matches, before they are looked at
WRONG_REACH = 0.06  # side of the square over which wrong matches spread, per focal length
DEPTH_SPREADS = (0.1, 0.2, 0.4, 0.8)  # relative errors of depth that are tried; the likeliest holds


def likelihood(
    R: np.ndarray,
    t: np.ndarray,
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    focal: float,
    weights: np.ndarray,
    noise_px: float,
    inverse_depth: np.ndarray | None,
) -> tuple[float, float]:
    """Mean log density of matches in nats under ``X_2 = R X_1 + t``, and the relative error of depth that it takes.

    The length of t does not matter, but 0 is a pure rotation.

    rays_1, rays_2: (3, N) with z = 1. noise_px: standard deviation of one coordinate of a match of weight one.
    inverse_depth:  (N,) in view 1 in any unit, > 0; None where nothing is known.
    """
    Y = R @ rays_1
    variance = noise_px * noise_px / weights
    rho = np.zeros(len(variance))
    if t.any():
        prior = np.ones(len(variance)) if inverse_depth is None else inverse_depth
        rho = prior * max(float(np.median(signed_inverse_depth(R, t, rays_1, rays_2) / prior)), 1e-9)
    iz = 1.0 / np.maximum(Y[2] + rho * t[2], 1e-3)
    uv = (Y[:2] + rho * t[:2, None]) * iz
    e = (rays_2[:2] - uv) * focal
    g = (t[:2, None] - uv * t[2]) * (iz * rho * focal)  # d(pixel) / d(log rho): along the epipolar line
    open_2 = g[0] * g[0] + g[1] * g[1]
    length_2 = e[0] * e[0] + e[1] * e[1]
    along_2 = (g[0] * e[0] + g[1] * e[1]) ** 2 / (open_2 + 1e-18)
    across = -0.5 * ((length_2 - along_2) / variance + np.log(variance))
    wrong = np.log(WRONG_SHARE / (WRONG_REACH * focal) ** 2)
    across += np.log((1.0 - WRONG_SHARE) / (2.0 * np.pi))
    best = (-np.inf, 0.0)
    for spread in DEPTH_SPREADS if t.any() else (0.0,):
        total = variance + open_2 * (spread * spread)
        right = across - 0.5 * (along_2 / total + np.log(total))
        best = max(best, (float(np.mean(np.logaddexp(right, wrong))), spread))
    return best
