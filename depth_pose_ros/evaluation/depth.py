"""Errors of depth images (Eigen et al., NIPS 2014, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np


@dataclass(frozen=True)
class DepthErrors:
    """Over the pixels that have a true depth.

    abs_rel, sq_rel: mean of \\|d - d*\\| / d* and of (d - d*)^2 / d*.
    rmse, rmse_log:  root mean square of d - d* and of ln d - ln d*.
    delta_1..3:      share of pixels with max(d / d*, d* / d) below 1.25, 1.25^2, 1.25^3.
    pixels:          how many were compared.
    scale:           what the estimate was multiplied by (1 without median scaling).
    """

    abs_rel: float
    sq_rel: float
    rmse: float
    rmse_log: float
    delta_1: float
    delta_2: float
    delta_3: float
    pixels: int
    scale: float


EIGEN_CROP = (0.3324324, 0.91351351, 0.0359477, 0.96405229)
"""Top, bottom, left and right of the part of a KITTI image that Eigen et al. compare, as shares of its sides."""


def eigen_crop(height: int, width: int) -> np.ndarray:
    """(height, width) bool: the part of a KITTI image that Eigen et al. compare."""
    top, bottom, left, right = EIGEN_CROP
    inside = np.zeros((height, width), bool)
    inside[int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = True
    return inside


def mean_depth_errors(errors: Sequence[DepthErrors]) -> DepthErrors:
    """Over images: the mean of each error, as the benchmarks have it; all pixels, and the median scale."""
    means = {f.name: float(np.mean([getattr(e, f.name) for e in errors])) for f in fields(DepthErrors)}
    return DepthErrors(
        **means | {"pixels": sum(e.pixels for e in errors), "scale": float(np.median([e.scale for e in errors]))}
    )


def depth_errors(
    estimate: np.ndarray, truth: np.ndarray, median_scaling: bool, minimum: float = 1e-3, maximum: float = 80.0
) -> DepthErrors:
    """Compare two depth images (H, W) of the same size along Z.

    Pixels count where the truth lies from minimum to maximum (m; 80 is usual for KITTI) and the estimate is finite and
    positive; then the estimate is clipped to that range. With median_scaling it is first multiplied by the ratio of the
    medians, which is what a depth without metric scale needs (Zhou et al., CVPR 2017). ValueError for other sizes, or
    when no pixel can be compared.
    """
    if estimate.shape != truth.shape:
        raise ValueError(f"estimate of shape {estimate.shape} and truth of shape {truth.shape}; resize one before")
    valid = np.isfinite(truth) & (truth >= minimum) & (truth <= maximum) & np.isfinite(estimate) & (estimate > 0)
    d, g = estimate[valid].astype(np.float64), truth[valid].astype(np.float64)
    if len(g) == 0:
        raise ValueError(f"no pixel has both a true depth from {minimum} to {maximum} and an estimated one")
    scale = float(np.median(g) / np.median(d)) if median_scaling else 1.0
    d = np.clip(d * scale, minimum, maximum)
    ratio = np.maximum(d / g, g / d)
    return DepthErrors(
        abs_rel=float(np.mean(np.abs(d - g) / g)),
        sq_rel=float(np.mean((d - g) ** 2 / g)),
        rmse=float(np.sqrt(np.mean((d - g) ** 2))),
        rmse_log=float(np.sqrt(np.mean(np.log(d / g) ** 2))),
        delta_1=float(np.mean(ratio < 1.25)),
        delta_2=float(np.mean(ratio < 1.25**2)),
        delta_3=float(np.mean(ratio < 1.25**3)),
        pixels=len(g),
        scale=scale,
    )
