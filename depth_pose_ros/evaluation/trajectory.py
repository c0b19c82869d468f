"""Trajectories: the data, TUM and KITTI files, and the motion from frame to frame against the truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import numpy as np

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.geometry.se3 import (
    inverse,
    make_pose,
    matrix_from_quaternion,
    orthonormal,
    quaternion_from_matrix,
    rotation_angle,
)

MAX_STAMP_DIFFERENCE = 0.02
"""s; poses whose stamps differ by more are not of one frame (evo's default is 0.01; cameras run at up to 50 Hz)."""

MOVED = 1e-3
"""Length in the truth's unit (m) below which a step between frames has no direction worth a comparison."""


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Poses over time.

    stamps_ns: (N,) int64, strictly increasing.
    poses:     (N, 4, 4) float64 T_world_camera; the camera's frame is optical unless the maker says otherwise.
    """

    stamps_ns: np.ndarray
    poses: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "stamps_ns", np.asarray(self.stamps_ns, np.int64).reshape(-1))
        object.__setattr__(self, "poses", np.asarray(self.poses, np.float64).reshape(-1, 4, 4))
        if len(self.stamps_ns) != len(self.poses):
            raise SequenceError(f"trajectory with {len(self.stamps_ns)} stamps and {len(self.poses)} poses")
        back = np.flatnonzero(np.diff(self.stamps_ns) <= 0)
        if len(back):
            i = int(back[0]) + 1
            raise SequenceError(
                f"trajectory whose stamps go back: pose {i} has {self.stamps_ns[i]} ns after {self.stamps_ns[i - 1]} ns"
            )

    def __len__(self) -> int:
        return len(self.stamps_ns)

    @property
    def length(self) -> float:
        """Of the path, in the unit of the translations."""
        return float(np.linalg.norm(np.diff(self.poses[:, :3, 3], axis=0), axis=1).sum())

    def at(self, stamps_ns: Iterable[int], max_difference: float = MAX_STAMP_DIFFERENCE) -> np.ndarray:
        """(M,) index of the pose nearest in time to each stamp; -1 where none is within max_difference seconds."""
        stamps_ns = np.asarray(stamps_ns, np.int64)
        if len(self) == 0:
            return np.full(len(stamps_ns), -1)
        right = np.searchsorted(self.stamps_ns, stamps_ns).clip(0, len(self) - 1)
        left = (right - 1).clip(0)
        nearer_left = np.abs(self.stamps_ns[left] - stamps_ns) <= np.abs(self.stamps_ns[right] - stamps_ns)
        index = np.where(nearer_left, left, right)
        return np.where(np.abs(self.stamps_ns[index] - stamps_ns) <= max_difference * 1e9, index, -1)


# ---------------------------------------------------------------------------------------------------------- files
def read_tum(path: str | Path) -> Trajectory:
    """Lines ``t x y z qx qy qz qw`` (s, m), # comments. SequenceError names the line that is not one."""
    stamps, poses = [], []
    for number, values in _rows(path):
        if len(values) != 8:
            raise SequenceError(f"{path}, line {number}: {len(values)} values; expected t x y z qx qy qz qw")
        stamps.append(seconds_to_ns(values[0], f"{path}, line {number}"))
        numbers = _numbers(values[1:], path, number)
        if not np.linalg.norm(numbers[3:]) > 1e-6:
            raise SequenceError(f"{path}, line {number}: quaternion {numbers[3:]} has no length; expected unit length")
        poses.append(make_pose(matrix_from_quaternion(numbers[3:]), numbers[:3]))
    return _trajectory(path, stamps, poses)


def write_tum(path: str | Path, trajectory: Trajectory) -> None:
    """Write lines ``t x y z qx qy qz qw``, stamps to the nanosecond; atomically."""
    lines = ["# t x y z qx qy qz qw\n"]
    for stamp, pose in zip(trajectory.stamps_ns.tolist(), trajectory.poses):
        values = [*pose[:3, 3], *quaternion_from_matrix(pose[:3, :3])]
        second, nanosecond = divmod(stamp, 1_000_000_000)
        lines.append(f"{second}.{nanosecond:09d} " + " ".join(f"{value:.9f}" for value in values) + "\n")
    write_text(path, "".join(lines))


def read_kitti(path: str | Path, stamps_ns: Iterable[int]) -> Trajectory:
    """Lines of 12 values, T_world_camera (3, 4) row by row; the format has no stamps, so they are given."""
    poses = []
    for number, values in _rows(path):
        if len(values) != 12:
            raise SequenceError(f"{path}, line {number}: {len(values)} values; expected the 12 of a 3 x 4 pose")
        pose = _numbers(values, path, number).reshape(3, 4)
        poses.append(make_pose(orthonormal(pose[:, :3]), pose[:, 3]))
    stamps_ns = np.asarray(stamps_ns, np.int64)
    if len(poses) != len(stamps_ns):
        raise SequenceError(f"{path} has {len(poses)} poses for {len(stamps_ns)} frames; expected one for each")
    return _trajectory(path, stamps_ns, poses)


def write_kitti(path: str | Path, trajectory: Trajectory) -> None:
    """Write lines of 12 values, T_world_camera (3, 4) row by row, without stamps; atomically."""
    lines = (" ".join(f"{value:.9e}" for value in pose[:3].ravel()) + "\n" for pose in trajectory.poses)
    write_text(path, "".join(lines))


def seconds_to_ns(text: str, where: str = "stamp") -> int:
    """Decimal seconds -> integer nanoseconds, exactly (a float has only 200 ns left at today's time)."""
    try:
        return int((Decimal(text) * 1_000_000_000).to_integral_value())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise SequenceError(f"{where}: '{text}' is not a time in seconds") from error


def _rows(path: str | Path) -> list[tuple[int, list[str]]]:
    """Line number (from 1) and values of every line that is not empty or a comment."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"cannot read {path}: {error}") from error
    rows = ((n, line.replace(",", " ").split()) for n, line in enumerate(text.splitlines(), 1))
    return [(n, values) for n, values in rows if values and not values[0].startswith("#")]


def _numbers(values: list[str], path: str | Path, number: int) -> np.ndarray:
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError as error:
        raise SequenceError(f"{path}, line {number}: {error}") from error
    if not np.isfinite(numbers).all():
        raise SequenceError(f"{path}, line {number}: {numbers.tolist()} is not finite")
    return numbers


def _trajectory(path: str | Path, stamps: Iterable[int], poses: list[np.ndarray]) -> Trajectory:
    try:
        return Trajectory(np.array(stamps, np.int64), np.array(poses).reshape(-1, 4, 4))
    except SequenceError as error:
        raise SequenceError(f"{path}: {error}") from error


# --------------------------------------------------------------------------------------------------------- errors
@dataclass(frozen=True)
class RelativeErrors:
    """Errors of the motion from one frame to a later one, over all such pairs.

    stamps_ns:      (pairs,) of the later frame.
    rotation:       (pairs,) deg, angle between the two rotations.
    moving:         (pairs,) bool, where the truth moves: only there directions and lengths are compared.
    direction:      (moving pairs,) deg, angle between the two translations, seen from the later camera.
    log_scale:      (moving pairs,) ln of estimated over true length of the translation.
    """

    stamps_ns: np.ndarray
    rotation: np.ndarray
    moving: np.ndarray
    direction: np.ndarray
    log_scale: np.ndarray

    @property
    def pairs(self) -> int:
        """How many pairs of frames were compared."""
        return len(self.rotation)

    @property
    def scale_spread(self) -> float:
        """Robust standard deviation of ln scale from pair to pair (1.4826 MAD), so relative; NaN without any."""
        if len(self.log_scale) == 0:
            return float("nan")
        return float(1.4826 * np.median(np.abs(self.log_scale - np.median(self.log_scale))))


def matched(estimate: Trajectory, truth: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Indices into both, of the poses of the same time."""
    nearest = truth.at(estimate.stamps_ns)
    kept = np.flatnonzero(nearest >= 0)
    return kept, nearest[kept]


def relative_errors(estimate: Trajectory, truth: Trajectory, step: int = 1) -> RelativeErrors:
    """Errors of the motion over ``step`` matched poses. Both trajectories must be of the same frame (the camera's)."""
    stamps, rotation, moving, direction, log_scale = [], [], [], [], []
    indices = np.stack(matched(estimate, truth), axis=1)
    for (a, true_a), (b, true_b) in zip(indices, indices[step:]):
        E = inverse(estimate.poses[b]) @ estimate.poses[a]
        G = inverse(truth.poses[true_b]) @ truth.poses[true_a]
        stamps.append(estimate.stamps_ns[b])
        rotation.append(np.degrees(rotation_angle(E[:3, :3] @ G[:3, :3].T)))
        length, true_length = np.linalg.norm(E[:3, 3]), np.linalg.norm(G[:3, 3])
        moving.append(true_length > MOVED and length > 1e-9)
        if moving[-1]:
            u, v = E[:3, 3] / length, G[:3, 3] / true_length
            direction.append(np.degrees(2 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))))
            log_scale.append(np.log(length / true_length))
    return RelativeErrors(
        np.array(stamps, np.int64),
        np.array(rotation),
        np.array(moving, bool),
        np.array(direction),
        np.array(log_scale),
    )


def aligned_at_start(estimate: Trajectory, truth: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Matched positions of both, (N, 3), in the axes of the first true pose; the estimate with its best single scale.

    Harder than a similarity over the whole path, which hides a wrong direction at the start, and needs no straight or
    bent path to be defined.
    """
    x, y = _from_start(estimate, truth)
    return x * scale_at_start(estimate, truth), y


def scale_at_start(estimate: Trajectory, truth: Trajectory) -> float:
    """What the estimate is to be multiplied by to fit the truth best (least squares), with the first poses equal."""
    x, y = _from_start(estimate, truth)
    return float((x * y).sum() / max((x * x).sum(), 1e-12))


def _from_start(estimate: Trajectory, truth: Trajectory) -> tuple[np.ndarray, np.ndarray]:
    """Matched positions of both, (N, 3), each in the axes of its own first pose."""
    ours, theirs = matched(estimate, truth)
    x, y = estimate.poses[ours], truth.poses[theirs]
    return (inverse(x[0]) @ x)[:, :3, 3], (inverse(y[0]) @ y)[:, :3, 3]


@dataclass(frozen=True)
class Comparison:
    """An estimated path against the true one, in few numbers; NaN where nothing could be compared.

    pairs:        motions from frame to frame that were compared; medians and means are over them.
    rotation:     deg, median; rotation_mean.
    direction:    deg, median over the motions where the truth moves; direction_mean.
    scale_spread: robust relative standard deviation of the scale from motion to motion.
    true_length:  of the true path over the matched frames, in m; length: of the estimated one, in its own unit.
    position_error: root mean square distance with the first pose and the scale made equal, m.
    """

    pairs: int
    rotation: float
    rotation_mean: float
    direction: float
    direction_mean: float
    scale_spread: float
    true_length: float
    length: float
    position_error: float


def compare(estimate: Trajectory, truth: Trajectory) -> Comparison | None:
    """All the numbers at once; None when fewer than two poses are of the same time."""
    ours, theirs = matched(estimate, truth)
    if len(ours) < 2:
        return None
    errors = relative_errors(estimate, truth)
    moved = len(errors.direction) > 0
    x, y = aligned_at_start(estimate, truth)
    return Comparison(
        pairs=errors.pairs,
        rotation=float(np.median(errors.rotation)),
        rotation_mean=float(np.mean(errors.rotation)),
        direction=float(np.median(errors.direction)) if moved else float("nan"),
        direction_mean=float(np.mean(errors.direction)) if moved else float("nan"),
        scale_spread=errors.scale_spread,
        true_length=Trajectory(truth.stamps_ns[theirs], truth.poses[theirs]).length,
        length=Trajectory(estimate.stamps_ns[ours], estimate.poses[ours]).length,
        position_error=float(np.sqrt(((x - y) ** 2).sum(axis=1).mean())),
    )
