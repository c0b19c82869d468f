"""The motion between two frames: several hypotheses, the best of them refined, and the model that the matches allow."""

from dataclasses import dataclass

import numpy as np

from depth_pose_ros.geometry import pnp, se3, two_view
from depth_pose_ros.geometry.covariance import estimator_covariance
from depth_pose_ros.geometry.robust import geman_mcclure_loss
from depth_pose_ros.geometry.rotation import RotationFit, fit_rotation
from depth_pose_ros.geometry.triangulation import signed_inverse_depth

SUBSET = 400  # matches on which hypotheses are made and compared; all of them only polish the best
MIN_KNOWN = 0.2  # share of the matches that must have a depth for it to be used
DEPTH_SPREAD = 0.3  # relative standard deviation of depth in PnP
UNKNOWN_SPREAD = 10.0  # the same where the depth is not known
DEPTH_SHARE = 0.2  # of the depth in the choice between hypotheses: it breaks ties, and may be wrong
PARSIMONY = 0.08  # weight of the logarithm of how much more the rotation does than what is seen of it
PRIOR_INFLATION = 2.0  # of the standard deviation of a pose from depth: not all errors of depth show
PRIOR_LIMIT = 25.0  # chi-square, 5 degrees of freedom: farther from the matches' own motion, the depth is not believed
CERTAIN_TRANSLATION = 16.0  # chi-square, 3 degrees of freedom: chance alone gives this in 1 of 900 cases
SAME_TRACE = 1.0 + 2.0 * np.cos(np.radians(0.2))  # rotations closer than 0.2 degrees,
SAME_COSINE = np.cos(np.radians(2.0))  # with directions closer than 2 degrees, lead to the same minimum
MAX_WEIGHT = 25.0  # no match counts as more than five times as certain as the median one
INLIER_SIGMAS = 3.0


@dataclass(frozen=True)
class Motion:
    """``X_2 = R X_1 + t``.

    model:         "essential" (|t| = 1), "pnp" (t in the unit of the depth) or "rotation" (t = 0).
    covariance:    (6, 6) of (dt, dr): ``t + dt, exp(dr) R``; for "essential" the length of t counts as exact.
    inliers:       (N,) bool.
    noise_px:      robust standard deviation of the residual of a match of median score.
    parallax_px:   median length of what the best rotation leaves of the flow.
    flow_px:       median length of the flow.
    """

    model: str
    R: np.ndarray
    t: np.ndarray
    covariance: np.ndarray
    inliers: np.ndarray
    noise_px: float
    parallax_px: float
    flow_px: float


@dataclass(frozen=True)
class _Rays:
    """Matches as the solvers take them: (3, N) rays with z = 1, (N,) weights of median one, and (N,) region ids."""

    rays_1: np.ndarray
    rays_2: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    focal: float

    def __getitem__(self, some: np.ndarray) -> "_Rays":
        return _Rays(self.rays_1[:, some], self.rays_2[:, some], self.weights[some], self.clusters[some], self.focal)

    @property
    def args(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        return self.rays_1, self.rays_2, self.focal, self.weights


def estimate_motion(
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    scores: np.ndarray,
    focal: float,
    clusters: np.ndarray,
    depth_1: np.ndarray | None = None,
    guesses: tuple[tuple[np.ndarray, np.ndarray], ...] = (),
    min_parallax_px: float = 0.0,
) -> Motion:
    """Motion from matches, and depth in view 1 if there is any.

    rays_1, rays_2:  (3, N) float64 with z = 1, N >= 8, finite. scores: (N,) > 0, about one over the expected error.
    clusters:        (N,) int, the image region of each match, for the covariance.
    depth_1:         (N,) along Z, NaN where unknown; None without any.
    guesses:         further (R, t) to start from, such as the previous motion; the length of t does not matter.
    min_parallax_px: below it there is no translation but one that depth makes certain.

    Matches alone leave the motion open where it is slow or the scene is a plane, and depth alone is only as good as the
    network. So PnP on the depth is a hypothesis beside sample consensus and the guesses; the essential matrix is
    refined from the best of them; and the pose from depth stays in it as a prior, as far as its own residuals and the
    matches allow.
    """
    matches = _Rays(rays_1, rays_2, _weights(scores), clusters, focal)
    some = _subset(len(scores))
    sample = matches[some]
    rotation = fit_rotation(*sample.args)
    parallax_px, flow_px = _parallax(rotation, sample)

    inverse_depth = spread = from_depth = None
    if depth_1 is not None and np.count_nonzero(np.isfinite(depth_1)) >= MIN_KNOWN * len(scores):
        inverse_depth, spread = _invert(depth_1)
        depth_args = inverse_depth[some], spread[some]
        from_depth = pnp.refine_pose(rotation.R, np.zeros(3), *sample.args, *depth_args, iterations=8, anneal=10.0)

    if parallax_px < min_parallax_px:
        if from_depth is not None:
            fit = pnp.refine_pose(from_depth.R, from_depth.t, *matches.args, inverse_depth, spread)
            motion = _conclude("pnp", fit, fit.t, np.eye(6), clusters, parallax_px, flow_px)
            C = motion.covariance[:3, :3] + 1e-15 * np.eye(3)
            if fit.t @ np.linalg.solve(C, fit.t) > CERTAIN_TRANSLATION:
                return motion
        return _without_translation(matches, parallax_px, flow_px)

    starts = [(from_depth.R, from_depth.t)] if from_depth is not None else []
    starts += [two_view.sample_consensus(sample.rays_1, sample.rays_2, focal), *guesses]
    starts = _distinct([start for start in starts if start is not None and np.linalg.norm(start[1]) > 0])
    if not starts:
        return _without_translation(matches, parallax_px, flow_px)
    fits = [two_view.refine_essential(R, t, *sample.args, iterations=3) for R, t in starts]
    best = fits[_cheapest(fits, sample, rotation, inverse_depth[some] if inverse_depth is not None else None)]

    prior = None
    if from_depth is not None:
        if best is not fits[0]:  # the depth is to say what it makes of this hypothesis, not of its own
            rho = signed_inverse_depth(best.R, best.t, sample.rays_1, sample.rays_2)
            t = best.t * max(float(np.median(rho / depth_args[0])), 1e-3)
            from_depth = pnp.refine_pose(best.R, t, *sample.args, *depth_args, iterations=4)
        C = PRIOR_INFLATION**2 * _covariance(from_depth, np.eye(6), sample.clusters)
        prior = two_view.PosePrior.from_pose(from_depth.R, from_depth.t, C)
        C_best = _covariance(best, two_view.freedoms(best.t), sample.clusters)
        if prior.distance(best.R, best.t, C_best) > PRIOR_LIMIT:
            prior = None
    fit = two_view.refine_essential(best.R, best.t, *matches.args, iterations=6, anneal=1.0, prior=prior)
    return _conclude("essential", fit, fit.t, two_view.freedoms(fit.t), clusters, parallax_px, flow_px, prior)


def parallax(rays_1: np.ndarray, rays_2: np.ndarray, scores: np.ndarray, focal: float) -> tuple[float, float]:
    """``parallax_px`` and ``flow_px`` of :class:`Motion`, without the rest of it."""
    sample = _Rays(rays_1, rays_2, _weights(scores), np.zeros(len(scores), np.intp), focal)[_subset(len(scores))]
    return _parallax(fit_rotation(*sample.args), sample)


def _parallax(rotation: RotationFit, sample: _Rays) -> tuple[float, float]:
    flow = np.hypot(*(sample.rays_2[:2] - sample.rays_1[:2]))
    return float(np.median(rotation.distance_px)), sample.focal * float(np.median(flow))


def _distinct(starts: list[tuple[np.ndarray, np.ndarray]]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The motions, but those that lead where an earlier one leads."""
    kept: list[tuple[np.ndarray, np.ndarray]] = []
    for R, t in starts:
        t = t / np.linalg.norm(t)
        if all(np.trace(R.T @ A) < SAME_TRACE or t @ b < SAME_COSINE for A, b in kept):
            kept.append((R, t))
    return kept


def _subset(n: int) -> np.ndarray:
    """Indices of the matches that hypotheses are made and compared on; always the same ones for the same number."""
    return np.arange(n) if n <= SUBSET else np.random.default_rng(n).choice(n, SUBSET, replace=False, shuffle=False)


def _weights(scores: np.ndarray) -> np.ndarray:
    """Scores are inverse errors, so weights are their squares, relative to the median match."""
    return np.minimum((scores / np.median(scores)) ** 2, MAX_WEIGHT)


def _invert(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth and its spread, with a vague guess where the depth is not known."""
    known = np.isfinite(depth)
    return 1.0 / np.where(known, depth, np.median(depth[known])), np.where(known, DEPTH_SPREAD, UNKNOWN_SPREAD)


def _cheapest(
    fits: list[two_view.EssentialFit], sample: _Rays, rotation: RotationFit, inverse_depth: np.ndarray | None
) -> int:
    """Index of the fit with the least robust loss, at the noise of the one with the least noise.

    Two motions can explain a plane, or a crowd of moving cars, equally well. Then depth has a say, and so has
    parsimony: a large turn that a large translation happens to cancel, all but the parallax that is seen, is unlikely.
    """
    if len(fits) == 1:
        return 0
    noise = min(fit.noise_px for fit in fits)
    losses = []
    for fit in fits:
        loss = np.mean(geman_mcclure_loss((fit.residual_px / noise) ** 2))
        if inverse_depth is not None:
            rho = signed_inverse_depth(fit.R, fit.t, sample.rays_1, sample.rays_2)
            ratio = rho / inverse_depth
            ratio /= max(float(np.median(ratio)), 1e-9)
            loss += DEPTH_SHARE * np.mean(geman_mcclure_loss(((ratio - 1.0) / DEPTH_SPREAD) ** 2))
        cancelled_px = sample.focal * se3.rotation_angle(fit.R @ rotation.R.T)
        loss += PARSIMONY * np.log1p(cancelled_px / (np.median(rotation.distance_px) + 1e-9))
        losses.append(loss)
    return int(np.argmin(losses))


def _without_translation(matches: _Rays, parallax_px: float, flow_px: float) -> Motion:
    fit = fit_rotation(*matches.args)
    return _conclude("rotation", fit, np.zeros(3), np.eye(6)[:, 3:], matches.clusters, parallax_px, flow_px)


Fit = pnp.PoseFit | two_view.EssentialFit | RotationFit


def _conclude(
    model: str,
    fit: Fit,
    t: np.ndarray,
    free: np.ndarray,
    clusters: np.ndarray,
    parallax_px: float,
    flow_px: float,
    prior: two_view.PosePrior | None = None,
) -> Motion:
    inliers = (fit.residual_px / fit.noise_px) ** 2 < INLIER_SIGMAS**2
    C = _covariance(fit, free, clusters, prior)
    return Motion(model, fit.R, t, C, inliers, fit.noise_px, parallax_px, flow_px)


def _covariance(
    fit: Fit, free: np.ndarray, clusters: np.ndarray, prior: two_view.PosePrior | None = None
) -> np.ndarray:
    """(6, 6) of (dt, dr) of a fit whose degrees of freedom are the columns of ``free`` (6, k)."""
    squared = (fit.residual_px / fit.noise_px) ** 2
    known = None if prior is None else free.T @ prior.information @ free
    return free @ estimator_covariance(free.T @ fit.jacobian, fit.residual, squared, clusters, known) @ free.T
