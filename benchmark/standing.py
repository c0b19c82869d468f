"""A camera that stands still for minutes: how far the pose drifts.

With --input the frames of a camera at rest, again and again; without, one image of the drive shipped under ever new
noise. What the networks say of a pair of images is computed once, for it would be the same again.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from benchmark.drive import Drive, frames_at, load_drive, load_odometry
from benchmark.result import Guarded, Result, Table, note
from benchmark.timing import Reference
from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator, FlowField
from depth_pose_ros.geometry import se3

NOISE = 4.0  # grey levels
NOISES = 200  # different ones


class Remembered:
    """Two networks whose answers are kept: by the identity of the images, which must stay alive."""

    def __init__(self, flow: FlowEstimator, depth: DepthEstimator) -> None:
        self._flow, self._depth = flow, depth
        self.width, self.height, self.backend = flow.width, flow.height, flow.backend
        self._features: dict[int, Any] = {}
        self._flows: dict[tuple[int, int], FlowField] = {}
        self._depths: dict[int, np.ndarray] = {}

    def features(self, image: np.ndarray) -> int:
        """See FlowEstimator."""
        if id(image) not in self._features:
            self._features[id(image)] = self._flow.features(image)
        return id(image)

    def flow(self, features_1: int, features_2: int) -> FlowField:
        """See FlowEstimator."""
        pair = features_1, features_2
        if pair not in self._flows:
            self._flows[pair] = self._flow.flow(*(self._features[one] for one in pair))
        return self._flows[pair]

    def depth(self, image: np.ndarray, fx: float | None = None) -> np.ndarray:
        """See DepthEstimator."""
        if id(image) not in self._depths:
            self._depths[id(image)] = self._depth.depth(image, fx)
        return self._depths[id(image)]


def noisy(drive: Drive, seed: int = 0) -> Drive:
    """The first image of a drive under noise that is new each time."""
    rng = np.random.default_rng(seed)
    image = drive.images[0].astype(np.float32)
    images = [np.clip(image + rng.normal(0, NOISE, image.shape) + 0.5, 0, 255).astype(np.uint8) for _ in range(NOISES)]
    return replace(drive, name=f"{drive.name}, noise", images=images, stamps_ns=list(range(NOISES)), truth=None)


def run(options: argparse.Namespace, reference: Reference) -> Result:
    """``--minutes`` at ``--rate``, at the first size."""
    drive, size = load_drive(options), options.sizes[0]
    if options.input is None:
        drive = noisy(drive)
    frames, odometry = frames_at(drive, size), load_odometry(size, options)
    odometry.flow = odometry.depth = Remembered(odometry.flow, odometry.depth)
    count = max(2, round(60.0 * options.minutes * options.rate))
    states: Counter[str] = Counter()
    farthest = turned = 0.0
    for index in range(count):
        frame = replace(frames[index % len(frames)], stamp_ns=round((index + 1) * 1e9 / options.rate))
        estimate = odometry.process(frame)
        states[estimate.state.value] += 1
        farthest = max(farthest, float(np.linalg.norm(estimate.T_odom_camera[:3, 3])))
        turned = max(turned, np.degrees(se3.rotation_angle(estimate.T_odom_camera[:3, :3])))
        if index % 3000 == 2999:
            note(f"standing: {index + 1} frames, {dict(states)}, {farthest:g} units, {turned:g} degrees")
        if index % 500 == 0:
            reference.measure()
    name = f"{drive.name} at {size[0]}x{size[1]}"
    result = Result("standing", {**drive.settings(), "run": name, "minutes": options.minutes, "rate": options.rate})
    result.details = {"states": states, "farthest": farthest, "turned_deg": turned}
    result.guarded = [Guarded("farthest from the start", "error", farthest), Guarded("turned", "error", turned)]
    rows = [["frames", count], *([f"of them {state}", number] for state, number in states.items())]
    rows += [["farthest from the start", f"{farthest:g}"], ["turned at most", f"{turned:g} deg"]]
    title = f"Standing still for {options.minutes:g} minutes at {options.rate:g} Hz: {name}"
    result.tables = [Table(title, ["", ""], rows)]
    return result
