"""Errors of optical flow, and the files of Middlebury (.flo) and KITTI (16-bit PNG)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depth_pose_ros.errors import SequenceError


@dataclass(frozen=True)
class FlowErrors:
    """Over the pixels whose true flow is known.

    epe:          mean end-point error in pixels; median: the median of it.
    under_1px:    share of pixels with an error below 1 pixel; under_3px likewise.
    outliers:     share with an error above 3 pixels and above 5 % of the flow (KITTI 2015, "Fl").
    pixels:       how many were compared.
    """

    epe: float
    median: float
    under_1px: float
    under_3px: float
    outliers: float
    pixels: int


def flow_errors(estimate: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> FlowErrors:
    """Compare two flow fields (H, W, 2) in pixels; ``valid`` (H, W) bool limits the pixels, beside finite truth.

    An estimate that is not finite counts as an infinite error. ValueError for other sizes, or when no pixel is valid.
    """
    if estimate.shape != truth.shape or truth.ndim != 3 or truth.shape[2] != 2:
        raise ValueError(
            f"estimate of shape {estimate.shape} and truth of shape {truth.shape}; expected (H, W, 2) both"
        )
    known = np.isfinite(truth).all(axis=-1)
    if valid is not None:
        known &= valid
    d, g = estimate[known].astype(np.float64), truth[known].astype(np.float64)
    if len(g) == 0:
        raise ValueError("no pixel has a known true flow")
    error = np.linalg.norm(d - g, axis=-1)
    error[~np.isfinite(error)] = np.inf
    length = np.linalg.norm(g, axis=-1)
    return FlowErrors(
        epe=float(error.mean()),
        median=float(np.median(error)),
        under_1px=float(np.mean(error < 1)),
        under_3px=float(np.mean(error < 3)),
        outliers=float(np.mean((error > 3) & (error > 0.05 * length))),
        pixels=len(g),
    )


def read_flow(path: str | Path) -> np.ndarray:
    """A .flo file, or a 16-bit PNG as KITTI's -> (H, W, 2) float32 in pixels, NaN where unknown."""
    return read_flo(path) if Path(path).suffix.lower() == ".flo" else read_kitti_flow(path)


def read_kitti_flow(path: str | Path) -> np.ndarray:
    """A 16-bit PNG of u, v as 64 * pixels + 32768 and a flag for what is known -> (H, W, 2) float32, NaN where not."""
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.ndim != 3 or image.shape[2] != 3:
        raise SequenceError(f"{path} is not a flow image; expected a PNG of 16 bits and three channels, as KITTI has")
    known, v, u = (image[..., channel] for channel in range(3))  # OpenCV turns the channels round
    flow = np.stack([u, v], axis=-1).astype(np.float32) / 64.0 - 512.0
    flow[known == 0] = np.nan
    return flow


def read_flo(path: str | Path) -> np.ndarray:
    """A Middlebury .flo file -> (H, W, 2) float32 in pixels, NaN where unknown (stored as 1e9 or more)."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise SequenceError(f"cannot read {path}: {error}") from error
    if data[:4] != b"PIEH":
        raise SequenceError(f"{path} is not a .flo file: it starts with {data[:4]!r}; expected b'PIEH'")
    width, height = np.frombuffer(data, "<i4", 2, 4).tolist() if len(data) >= 12 else (0, 0)
    if width <= 0 or height <= 0 or len(data) != 12 + 8 * width * height:
        raise SequenceError(f"{path} has {len(data)} bytes for a flow of {width} x {height}; the file is damaged")
    flow = np.frombuffer(data, "<f4", offset=12).reshape(height, width, 2).copy()
    flow[(np.abs(flow) > 1e9).any(axis=-1) | ~np.isfinite(flow).all(axis=-1)] = np.nan
    return flow
