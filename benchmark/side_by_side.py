"""This package beside classical odometry, frame to frame, on the same images and in the same run.

Two comparisons. Whole methods: ours against corners tracked with Lucas-Kanade (KLT) and against dense inverse search
(DIS), each followed by OpenCV's USAC_MAGSAC. And solvers alone: the matches that our networks give go to each of them,
so that only cost and error of the solver differ.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import cv2
import numpy as np

from benchmark.drive import Drive, frames_at, load_drive, load_odometry
from benchmark.result import Guarded, Result, Table, note
from benchmark.timing import Reference, Spread
from depth_pose_ros.errors import SequenceError
from depth_pose_ros.geometry import correspondences, covariance, depth_map, se3
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.motion import estimate_motion
from depth_pose_ros.geometry.refine import refine
from depth_pose_ros.odometry import Frame, VisualOdometry

MAGSAC_PX = 0.5
"""Threshold of USAC_MAGSAC, at which KLT and DIS do best on real sequences."""
SELDOM = 8
COUNT = 2000
"""Matches that each method may use."""

Motion = tuple[np.ndarray, np.ndarray]
"""R (3, 3) and t (3,) from the earlier to the later camera; t of any length."""


# ------------------------------------------------------------------------------------------------- classical matches
def klt(gray_1: np.ndarray, gray_2: np.ndarray) -> Motion:
    """Shi-Tomasi corners, tracked by pyramidal Lucas-Kanade there and back: points (N, 2) in both images."""
    corners = cv2.goodFeaturesToTrack(gray_1, COUNT, 0.01, 8)
    if corners is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32)
    options = {"winSize": (21, 21), "maxLevel": 4}
    there, found, _ = cv2.calcOpticalFlowPyrLK(gray_1, gray_2, corners, None, **options)
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(gray_2, gray_1, there, None, **options)
    good = (found.ravel() > 0) & (found_back.ravel() > 0)
    good &= np.abs(corners - back).reshape(-1, 2).max(axis=1) < 0.5
    return corners.reshape(-1, 2)[good], there.reshape(-1, 2)[good]


def dis(gray_1: np.ndarray, gray_2: np.ndarray) -> Motion:
    """Dense inverse search both ways, on a grid of 6 px: the matches that come back best, within half a pixel."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    forward, backward = search.calc(gray_1, gray_2, None), search.calc(gray_2, gray_1, None)
    height, width = gray_1.shape
    x, y = np.meshgrid(np.arange(4, width - 4, 6), np.arange(4, height - 4, 6))
    x, y = x.ravel(), y.ravel()
    points_1 = np.stack([x, y], axis=1).astype(np.float32)
    points_2 = points_1 + forward[y, x]
    back = cv2.remap(backward, points_2[None], None, cv2.INTER_LINEAR)[0]
    error = np.linalg.norm(forward[y, x] + back, axis=1)
    inside = (points_2 >= 2).all(axis=1) & (points_2[:, 0] <= width - 3) & (points_2[:, 1] <= height - 3)
    error[~inside] = np.inf
    best = np.argsort(error)[:COUNT]
    best = best[error[best] < 0.5]
    return points_1[best], points_2[best]


def essential(points_1: np.ndarray, points_2: np.ndarray, K: np.ndarray, method: int, threshold_px: float) -> Motion:
    """OpenCV's essential matrix and the pose from it."""
    E, inliers = cv2.findEssentialMat(points_1, points_2, K, method, 0.999, threshold_px)
    _, R, t, _ = cv2.recoverPose(E[:3], points_1, points_2, K, mask=inliers)
    return R, t.ravel()


def trianflow(points_1: np.ndarray, points_2: np.ndarray, K: np.ndarray) -> Motion:
    """The settings of TrianFlow's infer_vo.py: ten times RANSAC at 0.1 px with one focal length, the most inliers."""
    best = np.eye(3), np.zeros(3)
    most, principal = 50, (K[0, 2], K[1, 2])
    for seed in range(10):
        cv2.setRNGSeed(seed)
        E, inliers = cv2.findEssentialMat(points_2, points_1, K[0, 0], principal, cv2.RANSAC, 0.99, 0.1)
        count, R, t, _ = cv2.recoverPose(E, points_2, points_1, focal=K[0, 0], pp=principal)
        if inliers.sum() > most and count > 50:
            most, best = inliers.sum(), (R.T, -R.T @ t.ravel())
    return best


# ----------------------------------------------------------------------------------------------------- what is counted
@dataclass
class Tally:
    """Errors and cost of one method: deg, deg, ms, one for each pair of frames."""

    rotation: list[float] = field(default_factory=list)
    direction: list[float] = field(default_factory=list)
    ms: list[float] = field(default_factory=list)
    failed: int = 0

    def add(self, motion: Motion | None, T_2_1: np.ndarray, ms: float) -> None:
        """A motion that was found, or None, and what it should have been; a failure counts as no motion at all."""
        self.failed += motion is None
        R, t = motion or (np.eye(3), np.zeros(3))
        true = T_2_1[:3, 3]
        self.rotation.append(np.degrees(se3.rotation_angle(R @ T_2_1[:3, :3].T)))
        length = np.linalg.norm(t) * np.linalg.norm(true)
        self.direction.append(np.degrees(np.arccos(np.clip(t @ true / length, -1, 1))) if length > 1e-12 else 90.0)
        self.ms.append(ms)

    def row(self, name: str) -> list:
        """Of a table."""
        ms = Spread.of(self.ms)
        return [
            name,
            f"{np.median(self.rotation):.3f} ({np.mean(self.rotation):.3f})",
            f"{np.median(self.direction):.2f} ({np.mean(self.direction):.2f})",
            f"{self.failed} of {len(self.ms)}",
            f"{ms.median:.1f} ({ms.p95:.1f})",
        ]

    def to_dict(self) -> dict:
        """For JSON."""
        return {
            "rotation_deg": Spread.of(self.rotation).to_dict(),
            "rotation_mean_deg": float(np.mean(self.rotation)),
            "direction_deg": Spread.of(self.direction).to_dict(),
            "direction_mean_deg": float(np.mean(self.direction)),
            "failed": self.failed,
            "ms": Spread.of(self.ms).to_dict(),
        }


def run(options: argparse.Namespace, reference: Reference) -> Result:
    """Both comparisons at the first size."""
    drive, size = load_drive(options), options.sizes[0]
    if drive.truth is None:
        raise SequenceError(f"{drive.name} has no true path to compare with")
    result = Result("side_by_side", {**drive.settings(), "size": f"{size[0]}x{size[1]}", "threads": options.threads})
    note(f"side by side: {len(drive)} frames at {size[0]}x{size[1]}")
    odometry, frames = load_odometry(size, options), frames_at(drive, size)
    odometry.process(frames[0])
    odometry.reset()
    methods: dict[str, Tally] = {}
    solvers: dict[str, Tally] = {}
    cv2.setRNGSeed(0)
    previous = None
    for count, (frame, T_2_1) in enumerate(zip(frames, true_steps(drive))):
        start = time.perf_counter()
        estimate = odometry.process(frame)
        ours_ms = 1e3 * (time.perf_counter() - start)
        if previous is not None and T_2_1 is not None:
            step = se3.inverse(estimate.T_previous_current)
            tracked = estimate.state.value == "tracking"
            tally(methods, "this package").add((step[:3, :3], step[:3, 3]) if tracked else None, T_2_1, ours_ms)
            for name, match in (("KLT, USAC_MAGSAC", klt), ("DIS, USAC_MAGSAC", dis)):
                _time(tally(methods, name), partial(_classical, match, previous, frame), T_2_1)
            matches = _matches(odometry, previous, frame)
            for name, solve in _solvers(odometry, previous, frame, matches).items():
                _time(tally(solvers, name), solve, T_2_1)
            if count % SELDOM == 0:  # a second each
                solve = partial(trianflow, matches.points_1, matches.points_2, frame.camera.K)
                _time(tally(solvers, f"TrianFlow's own, every {SELDOM}th pair"), solve, T_2_1)
            reference.measure()
        previous = frame
    result.details = {
        "methods": {name: t.to_dict() for name, t in methods.items()},
        "solvers": {name: t.to_dict() for name, t in solvers.items()},
    }
    ours, alone = methods["this package"], solvers[OURS]
    result.guarded = [
        Guarded("rotation, deg", "error", float(np.median(ours.rotation))),
        Guarded("direction, deg", "error", float(np.median(ours.direction))),
        Guarded("rotation of the solver, deg", "error", float(np.median(alone.rotation))),
        Guarded("direction of the solver, deg", "error", float(np.median(alone.direction))),
        Guarded("one frame", "ms, all cores", Spread.of(ours.ms).low),
        Guarded("the solver", "ms, one core", Spread.of(alone.ms).low),
    ]
    columns = ["", "rotation, deg", "direction, deg", "failed", "ms"]
    result.tables = [
        Table(
            f"Frame to frame on {drive.name}: median (mean) error, median (95th percentile) cost",
            columns,
            [t.row(name) for name, t in methods.items()],
            "Ours: flow, depth, matches, refinement, motion and scale at "
            f"{size[0]}x{size[1]}. KLT and DIS: motion alone, in the whole image.",
        ),
        Table("Solvers on the same matches, those of our networks", columns, [t.row(n) for n, t in solvers.items()]),
    ]
    return result


OURS = "this package, with depth"


def tally(tallies: dict[str, Tally], name: str) -> Tally:
    """Of a method, made when it is asked for."""
    return tallies.setdefault(name, Tally())


def true_steps(drive: Drive) -> Iterator[np.ndarray | None]:
    """For each frame T_2_1 (4, 4) from the frame before; None without truth, or where the camera hardly moved."""
    indices = drive.truth.at(drive.stamps_ns)
    poses = [drive.truth.poses[i] if i >= 0 else None for i in indices]
    yield None
    for before, now in pairwise(poses):
        T = None if before is None or now is None else se3.inverse(now) @ before
        yield T if T is not None and np.linalg.norm(T[:3, 3]) > 1e-3 else None


def _time(into: Tally, solve: Callable[[], Motion], T_2_1: np.ndarray) -> None:
    start = time.perf_counter()
    try:
        motion = solve()
    except (cv2.error, TypeError, ValueError):  # OpenCV gives None instead of E, or raises, on too few matches
        motion = None
    into.add(motion, T_2_1, 1e3 * (time.perf_counter() - start))


def _classical(match: Callable, previous: Frame, frame: Frame) -> Motion:
    return essential(*match(previous.gray, frame.gray), frame.camera.K, cv2.USAC_MAGSAC, MAGSAC_PX)


def _matches(odometry: VisualOdometry, previous: Frame, frame: Frame) -> Matches:
    """As the odometry makes them, always from the frame before."""
    flow = odometry.flow.flow(odometry.flow.features(previous.image), odometry.flow.features(frame.image))
    matches = correspondences.select(flow, COUNT)
    height, width = frame.image.shape[:2]
    matches = matches.resized(frame.camera.width / width, frame.camera.height / height)
    return refine(previous.gray, frame.gray, matches)


def _solvers(
    odometry: VisualOdometry, previous: Frame, frame: Frame, matches: Matches
) -> dict[str, Callable[[], Motion]]:
    camera, p_1, p_2 = frame.camera, matches.points_1, matches.points_2
    focal = float(np.sqrt(camera.fx * camera.fy))
    depth = odometry.depth.depth(previous.image, previous.image_camera.fx)

    def ours(with_depth: bool) -> Motion:
        motion = estimate_motion(
            np.ascontiguousarray(camera.rays(p_1).T),
            np.ascontiguousarray(camera.rays(p_2).T),
            matches.scores.astype(np.float64),
            focal,
            covariance.tiles(p_1, camera.width, camera.height),
            depth_map.sample(depth, p_1, camera) if with_depth else None,
            min_parallax_px=odometry.config.stationary_px * camera.width / 1000.0,
        )
        return motion.R, motion.t

    return {
        OURS: lambda: ours(True),
        "this package, without depth": lambda: ours(False),
        "cv2 USAC_MAGSAC": lambda: essential(p_1, p_2, camera.K, cv2.USAC_MAGSAC, MAGSAC_PX),
        "cv2 USAC_FAST": lambda: essential(p_1, p_2, camera.K, cv2.USAC_FAST, MAGSAC_PX),
        "cv2 USAC_ACCURATE": lambda: essential(p_1, p_2, camera.K, cv2.USAC_ACCURATE, MAGSAC_PX),
        "cv2 RANSAC": lambda: essential(p_1, p_2, camera.K, cv2.RANSAC, MAGSAC_PX),
    }
