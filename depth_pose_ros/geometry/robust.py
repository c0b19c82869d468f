"""Robust statistics that every solver here shares."""

import numpy as np

MAD_TO_SIGMA = 1.4826  # of a Gaussian
WIDTH = 1.5  # of the robust kernel, in standard deviations
MIN_NOISE_PX = 0.05  # a measured noise of matches is never believed to be lower


def noise_scale(residuals: np.ndarray) -> float:
    """Standard deviation of the good part of residuals of any shape; 0 when there are none.

    From their median length, once over all and twice over those within 2.5 of the last value: half the matches may be
    wrong without doubling it.
    """
    length = np.abs(residuals).ravel()
    scale = 0.0
    for _ in range(3):
        n = len(length)
        if not n:
            break
        scale = MAD_TO_SIGMA * float(np.partition(length, n // 2)[n // 2])
        length = length[length < 2.5 * scale]
    return scale


def geman_mcclure(squared: np.ndarray, width: float = WIDTH) -> np.ndarray:
    """Weights of iteratively reweighted least squares for squared residuals in sigmas: 1 at 0, and redescending.

    The loss is :func:`geman_mcclure_loss`, so a gross outlier pulls at nothing (Geman and McClure, 1987).
    """
    w = 1.0 / (1.0 + squared / (width * width))
    return w * w


def geman_mcclure_loss(squared: np.ndarray, width: float = WIDTH) -> np.ndarray:
    """What the weights above minimise: 0 for no residual, 1 for a gross outlier."""
    return squared / (width * width + squared)


def curvature_share(robust: np.ndarray, weights: np.ndarray | float = 1.0) -> float:
    """Curvature of the Geman-McClure loss over what its weights ``robust`` make of it, at least 0.3.

    Reweighted least squares takes the weights for the curvature: it steps too short and thinks itself too certain.
    """
    total = weights * robust
    return max(4.0 * float(np.sum(total * np.sqrt(robust)) / np.sum(total)) - 3.0, 0.3)
