"""What is evaluated: a trajectory, its truth, and the table per frame where a run left one."""

from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory, read_kitti, read_tum

Row = dict[str, str]


@dataclass(frozen=True, eq=False)
class Record:
    """One run of an odometry, ours or another.

    estimate: T_world_camera; truth: likewise, or None.
    rows:     frames.csv of ``depth_pose run`` by column name, empty for a bare trajectory.
    """

    name: str
    estimate: Trajectory
    truth: Trajectory | None = None
    rows: list[Row] = field(default_factory=list)

    @property
    def metric(self) -> bool:
        """Whether its unit is said to be the metre; a bare trajectory says nothing."""
        return bool(self.rows) and self.rows[-1].get("metric") == "true"

    @property
    def unit(self) -> str:
        """Of its lengths."""
        return "m" if self.metric else "its own unit"

    @property
    def states(self) -> dict[str, int]:
        """Frames by state."""
        return dict(Counter(row["state"] for row in self.rows))

    @property
    def stages(self) -> dict[str, np.ndarray]:
        """(frames that have it,) ms by stage, ``total`` last."""
        names = [name for row in self.rows[-1:] for name in row if name.endswith("_ms")]
        found = {name.removesuffix("_ms"): self.column(name) for name in names}
        found = {name: values[np.isfinite(values)] for name, values in found.items()}
        total = {"total": found.pop("total")} if "total" in found else {}
        return {name: values for name, values in found.items() if len(values)} | total

    def column(self, name: str) -> np.ndarray:
        """(N,) float64 of frames.csv, NaN where empty."""
        return np.array([float(row.get(name) or math.nan) for row in self.rows])

    @property
    def seconds(self) -> np.ndarray:
        """(N,) of the poses since the first."""
        return (self.estimate.stamps_ns - self.estimate.stamps_ns[0]) / 1e9


def read_trajectory(path: Path, stamps_ns: np.ndarray | None = None) -> Trajectory:
    """A TUM file, or one of KITTI's, which has no stamps: those given, or the number of the line in tenths of a second.

    SequenceError when it is neither.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"cannot read {path}: {error}") from error
    if not lines:
        raise SequenceError(f"{path} has no poses; expected lines of t x y z qx qy qz qw, or KITTI's 12 values")
    if len(lines[0].replace(",", " ").split()) != 12:
        return read_tum(path)
    if stamps_ns is None or len(stamps_ns) != len(lines):
        stamps_ns = np.arange(len(lines)) * 100_000_000
    return read_kitti(path, stamps_ns)


def read_truth(path: Path, stamps_ns: np.ndarray | None = None) -> Trajectory:
    """A trajectory file, or a sequence that knows its truth. SequenceError when it is neither.

    stamps_ns: of the frames; a KITTI file gets them that has a pose for each.
    """
    if path.is_file():
        return read_trajectory(path, stamps_ns)
    from depth_pose_ros.sequences import open_sequence

    truth = open_sequence(path).ground_truth
    if truth is None:
        raise SequenceError(f"{path} tells no true trajectory; name a TUM or KITTI file")
    return truth


def is_run(path: Path) -> bool:
    """Whether a folder is what ``depth_pose run`` (or evaluate, or the demo) left."""
    return (path / "trajectory.tum").is_file()


def read_record(path: Path, truth: Path | None = None) -> Record:
    """A trajectory file, or the folder that ``depth_pose run`` wrote, with the truth it noted unless one is given.

    Files of KITTI, which have no stamps, get those of the other side where it has as many poses.
    """
    if not path.exists():
        raise SequenceError(f"{path} does not exist")
    if path.is_file():
        estimate = read_trajectory(path)
        true_path = None if truth is None else read_truth(truth, estimate.stamps_ns)
        return Record(path.stem, read_trajectory(path, None if truth is None else true_path.stamps_ns), true_path)
    if not is_run(path):
        raise SequenceError(f"{path} holds no trajectory.tum; name a folder that depth_pose run wrote, or a file")
    estimate, true_path = read_tum(path / "trajectory.tum"), None
    if truth is not None:
        true_path = read_truth(truth, estimate.stamps_ns)
    elif (path / "truth.tum").is_file():
        true_path = read_tum(path / "truth.tum")
    rows: list[Row] = []
    if (path / "frames.csv").is_file():
        with (path / "frames.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    return Record(path.resolve().name, estimate, true_path, rows)
