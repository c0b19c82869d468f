"""The numbers of a demo: frames, rate, latency, states, scale, and errors where the truth is known."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from depth_pose_ros.demo.recording import Recording
from depth_pose_ros.evaluation.trajectory import Comparison, Trajectory, compare
from depth_pose_ros.geometry.se3 import make_pose

R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Axes of a body (forward, left, up), which the odometry frame has, from optical ones (right, down, forward)."""


@dataclass(frozen=True)
class Played:
    """One frame as the player sent it, by its index in the sequence."""

    index: int
    stamp_ns: int
    published_ns: int


@dataclass(frozen=True)
class Summary:
    """What one demo came to; times in ms unless said.

    played, answered: frames published, and of those after the first, frames with an odometry message of their stamp.
    dropped, refused: frames that the node counted as overtaken by a newer one, and as unusable.
    pace:     recorded time over playing time; 1 is real time.
    rate:     odometry messages per second.
    latency:  from publishing an image to receiving its odometry: median and 95th percentile.
    stages:   median of each stage of the node.
    states:   frames by state.
    topics:   by topic: messages, messages that carry the stamp of an image, bytes.
    truth:    the path against the true one, where that is known.
    """

    played: int
    answered: int
    dropped: int
    refused: int
    pace: float
    rate: float
    latency: tuple[float, float]
    stages: dict[str, float]
    states: dict[str, int]
    scale_source: str
    metric: bool
    scale_spread: float
    topics: dict[str, tuple[int, int, int]]
    truth: Comparison | None

    @property
    def unit(self) -> str:
        """Of translations and depth, in words."""
        return "m" if self.metric else "network unit" if self.scale_source == "network" else "unit"

    @property
    def failure(self) -> str:
        """Why this demo did not succeed, in a sentence; empty when it did."""
        if self.answered < self.played - 1:
            return f"{self.played - 1 - self.answered} of {self.played - 1} frames after the first were not answered"
        lost = self.states.get("lost", 0)
        if lost > 0.5 * self.played:
            return f"tracking was lost in {lost} of {self.played} frames"
        return ""


def camera_trajectory(recording: Recording, first_stamp_ns: int) -> Trajectory:
    """T_first_current of the camera: the path in the axes of the first frame, which has no odometry of its own."""
    stamps, poses = recording.odom.stamps_ns, recording.odom.poses
    T_origin_odom = make_pose(R_BODY_OPTICAL.T, np.zeros(3))
    poses = T_origin_odom @ poses
    if len(stamps) and first_stamp_ns < stamps[0]:
        stamps, poses = np.concatenate([[first_stamp_ns], stamps]), np.concatenate([np.eye(4)[None], poses])
    return Trajectory(stamps, poses)


def summarise(recording: Recording, played: list[Played], truth: Trajectory | None) -> Summary:
    """All numbers; ``truth`` of the camera's optical frame, or None."""
    stamps = {frame.stamp_ns for frame in played}
    answers = [frame for frame in played[1:] if frame.stamp_ns in recording.received_ns]
    latency = [(recording.received_ns[frame.stamp_ns] - frame.published_ns) / 1e6 for frame in answers]
    received = sorted(recording.received_ns[frame.stamp_ns] for frame in answers)
    elapsed = (received[-1] - received[0]) / 1e9 if len(received) > 1 else float("nan")
    playing = (played[-1].published_ns - played[0].published_ns) / 1e9
    statuses = list(recording.status.values())
    stages: dict[str, list[float]] = {}
    for status in statuses:
        for key, value in status.items():
            if key.endswith("_ms") and key != "latency_ms":
                stages.setdefault(key.removesuffix("_ms"), []).append(float(value))
    last = statuses[-1] if statuses else {}
    comparison = None if truth is None else compare(camera_trajectory(recording, played[0].stamp_ns), truth)
    spreads = [float(status["scale_spread"]) for status in statuses if status.get("scale_ok") == "true"]
    return Summary(
        played=len(played),
        answered=len(answers),
        dropped=int(last.get("dropped", 0)),
        refused=int(last.get("refused", 0)),
        pace=(played[-1].stamp_ns - played[0].stamp_ns) / 1e9 / playing if playing > 0 else float("nan"),
        rate=(len(received) - 1) / elapsed,
        latency=tuple(np.percentile(latency, [50, 95]).tolist()) if latency else (float("nan"), float("nan")),
        stages={name: float(np.median(values)) for name, values in stages.items()},
        states=dict(Counter(status.get("state", "unknown") for status in statuses)),
        scale_source=last.get("scale_source", "none"),
        metric=last.get("metric") == "true",
        scale_spread=float(np.median(spreads)) if spreads else float("nan"),
        topics={
            topic: (count, sum(stamp in stamps for stamp in recording.stamps.get(topic, [])), recording.sizes[topic])
            for topic, count in sorted(recording.counts.items())
        },
        truth=comparison,
    )
