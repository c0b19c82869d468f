"""What the odometry says of itself when something goes wrong: errors of the pose in units of its own covariance.

    python -m benchmark.failures [--seed S] [--count N] [--failure NAME ...] [--cache DIR] [--out FILE.json]

Rendered drives with exact truth (failure_sequences.py). A pose is beyond 3 sigma when the error of its position or of
its rotation is larger than what 99.7 % of errors of three dimensions are. The unit of the odometry is not the metre:
each sequence is brought to the true length by one factor, from the steps that it tracked.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmark.failure_sequences import EVENT, FAILURES, START, failure_sequences
from benchmark.result import Result, Table, markdown, note
from benchmark.timing import Reference
from benchmark.world_sequences import RATE_HZ, WorldSequence
from depth_pose_ros.camera import PinholeCamera, network_size
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.engines import load_depth, load_flow
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.geometry import se3
from depth_pose_ros.odometry import Estimate, Frame, State, VisualOdometry

THREE_SIGMA = 14.156
"""Squared error of three dimensions, in units of its covariance, below which 99.73 % lie."""

FLOOR = 1e-18


@dataclass(frozen=True)
class Walk:
    """One sequence through the odometry: by frame, the squared errors of the pose in units of its covariance.

    lost: (F,) bool. recovered: frames after the end of the event until the first that is tracked; None if none is.
    jump: longest step of the pose from one frame to the next, over the longest true one before and after the event.
    """

    position: np.ndarray
    rotation: np.ndarray
    lost: np.ndarray
    recovered: int | None
    reasons: dict[str, int]

    @property
    def beyond(self) -> np.ndarray:
        """(F,) bool, beyond 3 sigma."""
        return np.maximum(self.position, self.rotation) > THREE_SIGMA


def walk(sequence: WorldSequence, config: OdometryConfig) -> tuple[Walk, list[Estimate]]:
    """The real networks and the odometry over a sequence."""
    odometry = VisualOdometry(*_networks(sequence), config)
    estimates = [odometry.process(frame) for frame in _frames(sequence)]
    return judge(estimates, sequence.T_world_camera), estimates


_loaded: dict[tuple[int, int], tuple] = {}


def _networks(sequence: WorldSequence) -> tuple:
    size = _size(sequence)
    if size not in _loaded:
        _loaded[size] = tuple(load("default", *size, "cpu", 1) for load in (load_flow, load_depth))
    return _loaded[size]


def _size(sequence: WorldSequence) -> tuple[int, int]:
    height, width = sequence.images.shape[1:3]
    return network_size((width, height), (640, 192), 64)


def _frames(sequence: WorldSequence) -> list[Frame]:
    height, width = sequence.images.shape[1:3]
    K = sequence.K
    camera = PinholeCamera(width, height, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
    return [
        Frame(
            round((index + 1) * 1e9 / RATE_HZ),
            cv2.resize(image, _size(sequence), interpolation=cv2.INTER_AREA),
            cv2.cvtColor(image, cv2.COLOR_BGR2GRAY),
            camera,
        )
        for index, image in enumerate(sequence.images)
    ]


def judge(estimates: list[Estimate], poses: np.ndarray) -> Walk:
    """Compare with true poses (F, 4, 4) of the camera."""
    truth = se3.inverse(poses[0]) @ poses
    factor = _units_per_metre(estimates, truth)
    position, rotation = [], []
    for estimate, T in zip(estimates, truth, strict=True):
        C = estimate.pose_covariance + FLOOR * np.eye(6)
        found = estimate.T_odom_camera
        moved, turned = factor * T[:3, 3] - found[:3, 3], se3.so3_log(T[:3, :3] @ found[:3, :3].T)
        position.append(float(moved @ np.linalg.solve(C[:3, :3], moved)))
        rotation.append(float(turned @ np.linalg.solve(C[3:, 3:], turned)))
    states = [estimate.state for estimate in estimates]
    after = [k - EVENT[-1] for k in range(EVENT[-1] + 1, len(states)) if states[k] in _FOUND]
    reasons: dict[str, int] = {}
    for estimate in estimates:
        if estimate.state is State.LOST:
            reasons[estimate.reason] = reasons.get(estimate.reason, 0) + 1
    lost = np.array([state is State.LOST for state in states])
    return Walk(np.array(position), np.array(rotation), lost, after[0] if after else None, reasons)


_FOUND = (State.TRACKING, State.STATIONARY)


def _units_per_metre(estimates: list[Estimate], truth: np.ndarray) -> float:
    logs = []
    for k, estimate in enumerate(estimates):
        if k == 0 or k in EVENT or estimate.state is not State.TRACKING or estimate.dt > 1.5 / RATE_HZ:
            continue
        lengths = [
            np.linalg.norm(T[:3, 3]) for T in (estimate.T_previous_current, se3.inverse(truth[k - 1]) @ truth[k])
        ]
        if lengths[0] > 1e-9 and lengths[1] > 1e-4:
            logs.append(np.log(lengths[0] / lengths[1]))
    return float(np.exp(np.median(logs))) if logs else 1.0


def summary(walks: dict[str, list[Walk]]) -> Table:
    """A row for each failure, of all its sequences."""
    rows = []
    for failure, of in walks.items():
        beyond = np.concatenate([one.beyond for one in of])
        recovered = [one.recovered for one in of if one.recovered is not None]
        rows.append(
            [
                failure,
                len(of),
                len(beyond),
                f"{100 * np.mean(np.concatenate([one.lost for one in of])):.0f}",
                f"{100 * beyond.mean():.2f}",
                f"{100 * np.mean(np.concatenate([one.beyond[START:] for one in of])):.2f}",
                *(
                    f"{100 * np.mean(np.concatenate([getattr(one, part) for one in of]) > THREE_SIGMA):.2f}"
                    for part in ("position", "rotation")
                ),
                f"{np.median(recovered):.0f}, {max(recovered)}" if recovered else "never",
            ]
        )
    columns = ["", "sequences", "frames", "lost, %", "beyond 3 sigma, %", "from the event on", "position", "rotation"]
    return Table("Poses beyond their 3 sigma", [*columns, "frames to recover: median, most"], rows)


def cached(seed: int, failures: tuple[str, ...], folder: Path | None) -> dict[str, WorldSequence]:
    """:func:`failure_sequences`, kept in ``folder`` for the next time."""
    if folder is None:
        return dict(failure_sequences(seed, failures))
    paths = {failure: folder / f"{failure.replace(' ', '_')}_{seed}.npz" for failure in failures}
    missing = tuple(failure for failure in failures if not paths[failure].exists())
    for failure, made in failure_sequences(seed, missing) if missing else ():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = paths[failure].with_suffix(f".{os.getpid()}")
        with open(temporary, "wb") as file:
            np.savez(file, images=made.images, poses=made.T_world_camera, K=made.K, scene=np.array(made.scene))
        os.replace(temporary, paths[failure])
    found = {}
    for failure, path in paths.items():
        with np.load(path) as file:
            found[failure] = WorldSequence(failure, str(file["scene"]), seed, file["images"], file["poses"], file["K"])
    return found


def run(
    seed: int = 100, count: int = 8, failures: tuple[str, ...] = tuple(FAILURES), cache: Path | None = None
) -> Result:
    """``count`` drives, each with every failure."""
    cv2.setNumThreads(1)
    result = Result("failures", {"seed": seed, "count": count})
    walks: dict[str, list[Walk]] = {failure: [] for failure in failures}
    for index in range(count):
        for failure, sequence in cached(seed + index, failures, cache).items():
            one, _ = walk(sequence, OdometryConfig())
            walks[failure].append(one)
            note(
                f"{failure}, seed {seed + index}, {sequence.scene}: {one.beyond.sum()} beyond, {one.lost.sum()} lost, "
                f"recovered after {one.recovered}"
            )
    result.tables = [summary(walks)]
    result.details = {
        failure: [{"beyond": np.flatnonzero(one.beyond).tolist(), "lost": int(one.lost.sum())} for one in of]
        for failure, of in walks.items()
    }
    return result


def main() -> None:
    """The command line."""
    epilog = "failures:\n" + "\n".join(f"  {name:14} {text}" for name, text in FAILURES.items())
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, epilog=epilog
    )
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--count", type=int, default=8, help="drives, by turns forward, by hand, sideways, standing")
    parser.add_argument("--failure", nargs="+", choices=FAILURES, default=tuple(FAILURES), metavar="NAME")
    parser.add_argument("--cache", type=Path, help="folder in which rendered sequences are kept")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    options = parser.parse_args()
    reference = Reference()
    measured = run(options.seed, options.count, tuple(options.failure), options.cache)
    document = measured.document(reference)
    print(markdown(document))
    if options.out:
        write_text(options.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
