"""Robust relative scale: by which factor one set of depths is larger than another, in one frame and over time."""

import math
from dataclasses import dataclass

import numpy as np

from depth_pose_ros.geometry.covariance import by_window
from depth_pose_ros.geometry.robust import curvature_share, geman_mcclure, noise_scale


@dataclass(frozen=True)
class ScaleFit:
    """value: the factor. spread: relative standard deviation of the factor. residual_spread: of a single ratio."""

    value: float
    spread: float
    residual_spread: float
    inliers: int


def align_scale(
    depth: np.ndarray,
    reference: np.ndarray,
    variance: np.ndarray | float = 0.0,
    clusters: np.ndarray | None = None,
    min_count: int = 20,
) -> ScaleFit | None:
    """The factor s with ``s * depth ~ reference``, from their log ratios; None with fewer than ``min_count``.

    depth, reference: (N,) positive; others are left out. variance: of the log ratio by what is known beforehand.
    clusters:         (N,) int, the tile of each (covariance.tiles): neighbours have their errors in common, as flow and
                      depth networks err by patches; None: each errs by itself.

    A redescending estimate from the middle of the shortest half of the log ratios: relative, as in DF-VO (Zhan et al.,
    2020), with a start that leans to the mode, so that one-sided outliers do not pull it as they pull a median.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(reference / depth)
    good = np.isfinite(ratio)
    if np.count_nonzero(good) < min_count:
        return None
    ratio = ratio[good]
    variance = np.broadcast_to(variance, good.shape)[good]
    ordered = np.sort(ratio)
    half = len(ordered) // 2
    start = int(np.argmin(ordered[half:] - ordered[: len(ordered) - half]))
    center = float(ordered[start + half // 2])
    spread = max(noise_scale(ratio - center), 0.005)
    for _ in range(6):
        total = variance + spread * spread
        deviation = ratio - center
        robust = geman_mcclure(deviation * deviation / total)
        weights = robust / total
        center += float(weights @ deviation / weights.sum()) / curvature_share(robust, 1.0 / total)
    squared = (ratio - center) ** 2 / total
    score = weights * (ratio - center)
    if clusters is not None:
        score = by_window(score[None], clusters[good])
    sd = float(np.sqrt(np.sum(score**2))) / (float(weights.sum()) * curvature_share(robust, 1.0 / total))
    return ScaleFit(float(np.exp(center)), sd, spread, int(np.count_nonzero(squared < 9.0)))


class ScaleFilter:
    """One factor that drifts slowly and is measured now and then: a scalar Kalman filter on its logarithm."""

    def __init__(self, drift: float) -> None:
        """``drift``: relative standard deviation by which the factor changes from one measurement to the next."""
        self.drift = drift
        self.value = 1.0
        self.variance = math.inf  # of the logarithm; infinite before the first measurement

    @property
    def is_known(self) -> bool:
        """Whether there was a measurement at all."""
        return self.variance < math.inf

    def drift_by(self, spread: float) -> None:
        """The factor may have changed by this relative standard deviation, beside its usual drift."""
        self.variance += spread * spread

    def restart(self, variance: float) -> None:
        """The factor is what it was, by definition, but known no better than to this variance (relative, squared)."""
        self.variance = variance

    def update(self, measured: float, variance: float) -> bool:
        """Take in a measurement and its variance (relative, squared). False if it is too far off to be believed."""
        if not self.is_known:
            self.value, self.variance = measured, variance
            return True
        self.variance += self.drift**2
        innovation = math.log(measured / self.value)
        expected = self.variance + variance
        if innovation * innovation > 9.0 * expected:
            self.variance += 0.1 * innovation * innovation  # if they keep saying so, they will be believed
            return False
        gain = self.variance / expected
        self.value *= math.exp(gain * innovation)
        self.variance *= 1.0 - gain
        return True
