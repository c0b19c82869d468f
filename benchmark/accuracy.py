"""What accuracy costs: the odometry on one sequence at each size of the networks, precision, number of matches, solver.

One thing is changed at a time; everything else stays as vo_node has it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmark.drive import Drive, frames_at, load_drive, load_odometry
from benchmark.result import Guarded, Result, Table, note
from benchmark.timing import Reference, Spread
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.errors import EngineError, ModelError, SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory, compare
from depth_pose_ros.odometry import Frame, VisualOdometry

MATCHES = (500, 1000, 4000)
"""Beside the default."""


def run(options: argparse.Namespace, reference: Reference) -> Result:
    """Every size; at the first one every number of matches and every choice of the solver."""
    drive = load_drive(options)
    if drive.truth is None:
        raise SequenceError(f"{drive.name} has no true path to compare with")
    result = Result("accuracy", {**drive.settings(), "threads": options.threads, "backend": options.backend})
    by_size: dict[str, dict] = {}
    for size in options.sizes:
        for backend in options.backends:
            name = f"{size[0]}x{size[1]}, {backend}"
            note(f"accuracy: {name}")
            try:
                odometry = load_odometry(size, argparse.Namespace(**{**vars(options), "backend": backend}))
            except (EngineError, ModelError) as error:
                note(f"accuracy: {name} is left out: {error}")
                continue
            by_size[name] = _walk(drive, frames_at(drive, size), odometry, reference)
    size = options.sizes[0]
    frames, odometry = frames_at(drive, size), load_odometry(size, options)
    by_choice = {}
    for name, config in choices().items():
        note(f"accuracy: {name}")
        odometry.config = config
        by_choice[name] = _walk(drive, frames, odometry, reference)
    result.details = {"sizes": by_size, f"choices at {size[0]}x{size[1]}": by_choice}
    result.guarded = [
        Guarded(f"{what} at {name}", "error", numbers[what])
        for name, numbers in by_size.items()
        for what in ("rotation, deg", "direction, deg")
    ]
    result.tables = [
        Table(
            f"Accuracy against cost on {drive.name}: medians from frame to frame",
            ["", *next(iter(rows.values()))],
            [[name, *numbers.values()] for name, numbers in rows.items()],
            note,
        )
        for rows, note in (
            (
                by_size,
                "Position error: root mean square distance with first pose and scale made equal, in % of the path.",
            ),
            (by_choice, f"At {size[0]}x{size[1]}; networks included in ms."),
        )
    ]
    return result


def choices() -> dict[str, OdometryConfig]:
    """What a user can choose of the solver, by name."""
    return {
        "as shipped": OdometryConfig(),
        **{f"{count} matches": OdometryConfig(max_matches=count) for count in MATCHES},
        "no refinement": OdometryConfig(refine=False),
        "scale_source none": OdometryConfig(scale_source="none"),
        "scale_source median_depth": OdometryConfig(scale_source="median_depth"),
        "scale_source camera_height": OdometryConfig(scale_source="camera_height"),
    }


def _walk(drive: Drive, frames: list[Frame], odometry: VisualOdometry, reference: Reference) -> dict[str, Any]:
    """All frames once: errors and cost."""
    odometry.reset()
    poses, ms, lost = [], [], 0
    for count, frame in enumerate(frames):
        start = time.perf_counter()
        estimate = odometry.process(frame)
        ms.append(1e3 * (time.perf_counter() - start))
        poses.append(estimate.T_odom_camera)
        lost += estimate.state.value == "lost"
        if count % 16 == 0:
            reference.measure()
    errors = compare(Trajectory(np.array(drive.stamps_ns), np.array(poses)), drive.truth)
    return {
        "rotation, deg": round(errors.rotation, 4),
        "direction, deg": round(errors.direction, 3),
        "scale spread, %": round(100 * errors.scale_spread, 2),
        "position error, %": round(100 * errors.position_error / errors.true_length, 3),
        "lost": lost,
        "ms": round(Spread.of(ms[1:]).median, 1),
    }
