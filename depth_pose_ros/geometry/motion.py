"""The motion between two frames: several hypotheses, the likeliest refined, and the model that the matches allow."""

import math
from dataclasses import dataclass, replace

import numpy as np

from depth_pose_ros.geometry import pnp, se3, two_view
from depth_pose_ros.geometry.covariance import estimator_covariance, with_others
from depth_pose_ros.geometry.likelihood import likelihood
from depth_pose_ros.geometry.robust import MIN_NOISE_PX
from depth_pose_ros.geometry.rotation import RotationFit, fit_rotation
from depth_pose_ros.geometry.triangulation import signed_inverse_depth

SUBSET = 400  # matches on which hypotheses are made and compared; all of them only polish the best
MIN_KNOWN = 0.2  # share of the matches that must have a depth for it to be used
DEPTH_SPREAD = 0.3  # relative standard deviation of depth, before it is compared with a motion
UNKNOWN_SPREAD = 10.0  # the same where the depth is not known
ROTATION_MARGIN = 0.03  # nats per match by which a translation must explain more than the rotation alone
CERTAIN_TRANSLATION = 7.8  # chi-square, 3 degrees of freedom: chance alone gives this in 1 of 20 cases
SAME_ROTATION = np.radians(0.2)  # motions that differ by less than this,
SAME_COSINE = np.cos(np.radians(2.0))  # with directions closer than 2 degrees, lead to the same minimum
SHARED_NOISE = 0.2  # error that neighbouring matches have in common, in the noise of one of them
SHARED_FLOW = 0.0005  # likewise, in the length of the flow
TOGETHER = 0.35  # of what it would be if the errors of good matches went together as far as those of bad ones do
NOISY = 0.0005  # rad, noise of matches of which some are bad
AGREEING = 0.85  # share of the matches that agree in a rigid scene
ENOUGH = 300  # matches, of which there is one wherever the scene has anything to show
INDEPENDENT = 5.0  # as many matches as the likelihood is to be believed of, for all their number
LEFT_OUT = 1.5  # times the parallax that is seen may be hidden of a translation, in a turn that looks like it
LENGTH_SHARE = 0.3  # of what a wrong rotation moves the matches, that is taken for parallax
MAX_WEIGHT = 25.0  # no match counts as more than five times as certain as the median one
INLIER_SIGMAS = 3.0
NOISE_SLACK = 1.2  # by which all matches may be noisier than the few on which the hypotheses were made


@dataclass(frozen=True)
class Motion:
    """``X_2 = R X_1 + t``.

    model:         "essential" (|t| = 1), "pnp" (t in the unit of the depth) or "rotation" (t = 0).
    covariance:    (6, 6) of (dt, dr): ``t + dt, exp(dr) R``; of "rotation" dt is in median distances. The length of t
                   of "essential" is yet to be measured: it has what a wrong rotation and direction do to it.
    inliers:       (N,) bool.
    noise_px:      robust standard deviation of one coordinate of a match of median score.
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
class _Matches:
    """Matches as the solvers take them: (3, N) rays with z = 1, (N,) weights of median one, (N,) region ids, and (N,)
    inverse depth in view 1 with its relative spread, or None."""

    rays_1: np.ndarray
    rays_2: np.ndarray
    weights: np.ndarray
    clusters: np.ndarray
    focal: float
    inverse_depth: np.ndarray | None
    depth_spread: np.ndarray | None

    def __getitem__(self, some: np.ndarray) -> "_Matches":
        known = self.inverse_depth is not None
        return _Matches(
            self.rays_1[:, some],
            self.rays_2[:, some],
            self.weights[some],
            self.clusters[some],
            self.focal,
            self.inverse_depth[some] if known else None,
            self.depth_spread[some] if known else None,
        )

    @property
    def args(self) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
        return self.rays_1, self.rays_2, self.focal, self.weights

    def refine(self, R: np.ndarray, t: np.ndarray, **options: float) -> pnp.PoseFit:
        """From (R, t), of which only the line of t matters: its sign is where the points are in front, and its length,
        where depth is known, that of the median depth."""
        if t.any():
            t = t / np.linalg.norm(t)
            rho = signed_inverse_depth(R, t, self.rays_1, self.rays_2)
            ratio = float(np.median(rho if self.inverse_depth is None else rho / self.inverse_depth))
            t = t * (math.copysign(1.0, ratio) if self.inverse_depth is None else ratio or 1e-6)
        return pnp.refine_pose(R, t, *self.args, self.inverse_depth, self.depth_spread, **options)

    def likelihood(self, R: np.ndarray, t: np.ndarray, noise_px: float) -> tuple[float, float]:
        return likelihood(R, t, *self.args, noise_px, self.inverse_depth)


def estimate_motion(
    rays_1: np.ndarray,
    rays_2: np.ndarray,
    scores: np.ndarray,
    focal: float,
    clusters: np.ndarray,
    depth_1: np.ndarray | None = None,
    guesses: tuple[tuple[np.ndarray, np.ndarray], ...] = (),
    min_parallax_px: float = 0.0,
    shared_px: float = 0.0,
) -> Motion:
    """Motion from matches, and depth in view 1 if there is any.

    rays_1, rays_2:  (3, N) float64 with z = 1, N >= 8, finite. scores: (N,) > 0, about one over the expected error.
    clusters:        (N,) int, the tile of each match (covariance.tiles): neighbours share the errors of flow and depth.
    depth_1:         (N,) along Z, NaN where unknown; None without any.
    guesses:         further (R, t) to start from, such as the previous motion; the length of t does not matter.
    min_parallax_px: below it there is no translation but one that depth makes certain.
    shared_px:       error that neighbouring matches have in common at least.

    Matches alone leave the motion open where it is slow or the scene is a plane, and depth alone is only as good as the
    network. So PnP on the depth is a hypothesis beside sample consensus, the guesses, and the other motion under which
    a plane looks the same. Each is refined on a few of the matches, the likeliest is chosen, a rotation alone among
    them, and that one is refined on all matches, with the depth believed as far as it suited the motion.
    """
    matches = _Matches(rays_1, rays_2, _weights(scores), clusters, focal, *_invert(depth_1))
    sample = matches[_subset(len(scores))]
    rotation = fit_rotation(*sample.args)
    seen = _parallax(rotation, sample)
    fits = _hypotheses(sample, rotation, guesses, with_matches_alone=seen[0] >= min_parallax_px)
    if not fits:
        return _without_translation(matches, seen, shared_px)
    noise = min(fit.noise_px for fit in fits)
    likelihoods = [sample.likelihood(fit.R, fit.t, noise) for fit in fits]
    best = max(range(len(fits)), key=lambda i: likelihoods[i][0])
    mean, spread = likelihoods[best]
    turning = sample.likelihood(rotation.R, np.zeros(3), noise)[0]
    others = [(fit.R, fit.t, of[0]) for fit, of in zip(fits, likelihoods, strict=True)]
    others.append((rotation.R, np.zeros(3), turning))
    if mean < turning + ROTATION_MARGIN:
        return _doubted(_without_translation(matches, seen, shared_px), others, matches)

    if matches.inverse_depth is not None:
        # As certain as if each region had one depth: a network errs by regions, and thousands of its depths would else
        # outvote geometry.
        repeats = np.sqrt(len(scores) / len(np.unique(clusters)))
        matches = replace(matches, depth_spread=repeats * np.maximum(matches.depth_spread, spread))
    fit = matches.refine(fits[best].R, fits[best].t, iterations=12, max_noise_px=NOISE_SLACK * noise)
    if seen[0] >= min_parallax_px:
        return _doubted(_conclude("essential", fit, matches, seen, shared_px), others, matches)
    motion = _conclude("pnp", fit, matches, seen, shared_px)
    C = motion.covariance[:3, :3] + 1e-15 * np.eye(3)
    if fit.t @ np.linalg.solve(C, fit.t) < CERTAIN_TRANSLATION:
        motion = _without_translation(matches, seen, shared_px)
    return _doubted(motion, others, matches)


def parallax(rays_1: np.ndarray, rays_2: np.ndarray, scores: np.ndarray, focal: float) -> tuple[float, float]:
    """``parallax_px`` and ``flow_px`` of :class:`Motion`, without the rest of it."""
    matches = _Matches(rays_1, rays_2, _weights(scores), np.zeros(len(scores), np.intp), focal, None, None)
    sample = matches[_subset(len(scores))]
    return _parallax(fit_rotation(*sample.args), sample)


def _parallax(rotation: RotationFit, sample: _Matches) -> tuple[float, float]:
    flow = np.hypot(*(sample.rays_2[:2] - sample.rays_1[:2]))
    return float(np.median(rotation.distance_px)), sample.focal * float(np.median(flow))


def _subset(n: int) -> np.ndarray:
    """Indices of the matches that hypotheses are made and compared on; always the same ones for the same number."""
    return np.arange(n) if n <= SUBSET else np.random.default_rng(n).choice(n, SUBSET, replace=False, shuffle=False)


def _weights(scores: np.ndarray) -> np.ndarray:
    """Scores are inverse errors, so weights are their squares, relative to the median match."""
    return np.minimum((scores / np.median(scores)) ** 2, MAX_WEIGHT)


def _invert(depth: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Inverse depth and its spread, with a vague guess where the depth is not known; nothing if it hardly ever is."""
    known = None if depth is None else np.isfinite(depth)
    if known is None or np.count_nonzero(known) < MIN_KNOWN * len(known):
        return None, None
    return 1.0 / np.where(known, depth, np.median(depth[known])), np.where(known, DEPTH_SPREAD, UNKNOWN_SPREAD)


def _hypotheses(
    sample: _Matches,
    rotation: RotationFit,
    guesses: tuple[tuple[np.ndarray, np.ndarray], ...],
    with_matches_alone: bool,
) -> list[pnp.PoseFit]:
    """Motions that may be the right one, each already refined a little."""
    fits = []
    if sample.inverse_depth is not None:
        fits.append(sample.refine(rotation.R, np.zeros(3), iterations=8, anneal=10.0))
    if with_matches_alone:
        for start in (two_view.sample_consensus(sample.rays_1, sample.rays_2, sample.focal), *guesses):
            if start is not None and _is_new(*start, fits):
                fits.append(sample.refine(*start, iterations=3))
        for fit in tuple(fits):
            other = two_view.twin(fit.R, fit.t, sample.rays_1, sample.rays_2, fit.noise_px / sample.focal)
            if other is not None and _is_new(*other, fits):
                fits.append(sample.refine(*other, iterations=3))
    return [fit for fit in fits if fit.t.any()]


def _is_new(R: np.ndarray, t: np.ndarray, fits: list[pnp.PoseFit]) -> bool:
    """Whether a motion is not standing still and leads elsewhere than those that are there."""
    length = np.linalg.norm(t)
    return length > 0 and all(
        t @ fit.t < SAME_COSINE * length * np.linalg.norm(fit.t) or se3.rotation_angle(R @ fit.R.T) > SAME_ROTATION
        for fit in fits
    )


def _without_translation(matches: _Matches, seen: tuple[float, float], shared_px: float) -> Motion:
    fit = fit_rotation(*matches.args, matches.inverse_depth)
    left_out = LEFT_OUT * max(seen[0], MIN_NOISE_PX) / matches.focal
    return _conclude("rotation", fit, matches, seen, shared_px, left_out**-2)


def _conclude(
    model: str,
    fit: pnp.PoseFit | RotationFit,
    matches: _Matches,
    seen: tuple[float, float],
    shared_px: float,
    known: float = 0.0,
) -> Motion:
    """The motion of a fit, with its covariance over the degrees of freedom that the model has.

    known: information on a translation that is left out.
    """
    t = np.zeros(3) if model == "rotation" else fit.t
    free, unit = np.eye(6), np.eye(6)
    if model == "essential":
        length = np.linalg.norm(t)
        t = t / length
        unit[:3, :3] = (np.eye(3) - np.outer(t, t)) / length
        if not fit.has_length:
            free = pnp.freedoms(t)
    squared = (fit.residual_px / fit.noise_px) ** 2
    shared_px = math.hypot(SHARED_NOISE * fit.noise_px, SHARED_FLOW * seen[1], shared_px)
    left_out = np.diag([known] * 3 + [0.0] * 3) if known else 0.0
    inliers = squared < INLIER_SIGMAS**2
    agreement = _agreement(fit.noise_px / matches.focal, inliers)
    if model == "pnp":  # depth errs, however well the matches agree
        agreement = max(agreement, 1.0)
    C = agreement * estimator_covariance(
        free.T @ fit.jacobian, fit.residual, fit.per_px, squared, shared_px, matches.clusters, left_out
    )
    unit = unit @ free
    C = unit @ C @ unit.T
    if model == "essential":
        turned_px = LENGTH_SHARE * matches.focal * math.sqrt(np.trace(C[3:, 3:]) / 3.0)
        C[:3, :3] += (np.trace(C[:3, :3]) / 2.0 + (turned_px / max(seen[0], 1e-3)) ** 2) * np.outer(t, t)
    return Motion(model, fit.R, t, C, inliers, fit.noise_px, *seen)


def _agreement(noise: float, inliers: np.ndarray) -> float:
    """Factor on the covariance of a motion: how far neighbouring matches err together, by how well all of them agree.

    noise: rad, of one coordinate of a match. inliers: (N,) bool. Both powers are those that suited the errors on 62
    rendered scenes of each motion best (benchmark/world_sequences.py, seeds 5000 to 7311), roughly.
    """
    together = TOGETHER * (1.0 + (noise / NOISY) ** 2)
    count = max(np.count_nonzero(inliers), 1)
    few = max(AGREEING * len(inliers) / count, 1.0) ** 3 * max(ENOUGH / count, 1.0) ** 2
    return together * few


def _doubted(motion: Motion, others: list[tuple[np.ndarray, np.ndarray, float]], matches: _Matches) -> Motion:
    """With what other motions (R, t, likelihood) add to its covariance, each as far as it may be the right one."""
    away = np.zeros((len(others), 6))
    for row, (R, t, _) in zip(away, others, strict=True):
        row[3:] = se3.so3_log(R @ motion.R.T)
        if motion.model == "essential":
            row[:3] = t / (np.linalg.norm(t) or 1.0) - motion.t
        elif matches.inverse_depth is not None:
            row[:3] = t * (np.median(matches.inverse_depth) if motion.model == "rotation" else 1.0) - motion.t
    likelihoods = INDEPENDENT * np.array([other[2] for other in others])
    return replace(motion, covariance=with_others(motion.covariance, away, likelihoods))
