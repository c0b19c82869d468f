"""What each step of one frame costs, from the image message to the published topics: median, 95th percentile, memory.

One thread walks through the steps of one frame after the other, so that each has the machine to itself; the networks
still use all cores that they are given. vo_node overlaps them (part ``node`` measures that). What is timed are the
functions that the node calls, with the topics going to a subscriber in another process.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmark.drive import Drive, load_drive, load_odometry
from benchmark.result import Guarded, Result, Table, note, rss_mib
from benchmark.timing import Reference, Spread, Stopwatch, spreads_by_stage
from depth_pose_ros.camera import FrameRectifier
from depth_pose_ros.odometry import Frame, View, VisualOdometry

GROUPS = {
    "ROS": ("decode", "message filling", "publish"),
    "image": ("rectify + resize",),
    "networks": ("flow: features", "flow: matching", "depth"),
    "geometry": (
        "correspondences",
        "refinement",
        "pose",
        "triangulation",
        "scale",
        "depth correction",
        "other geometry",
    ),
    "outputs": ("depth to image size", "cloud"),
}
"""Every stage, in the order of a frame within each group."""

OF_ODOMETRY = {"refine": "refinement", "unit": "scale", "correction": "depth correction"}
"""Names of the odometry's own times where they differ from ours."""

WARM_UP = 5
"""Frames that are not counted: buffers are made, caches filled."""

MULTITHREADED = ("flow: features", "flow: matching", "depth")


def run(options: argparse.Namespace, reference: Reference) -> Result:
    """Measure at each size, each in a process of its own, whose memory then belongs to that size."""
    drive = load_drive(options)
    result = Result("stages", {**drive.settings(), "threads": options.threads})
    spreads, shares, memory = {}, {}, {}
    for size in options.sizes:
        name = f"{size[0]}x{size[1]}"
        note(f"stages: {name}")
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            walk = pool.submit(_walk, drive, size, options).result()
        reference.add(walk.reference)
        result.details.setdefault("networks", walk.networks)
        spreads[name] = {**spreads_by_stage(walk.frames), "whole frame": Spread.of(walk.whole_ms)}
        shares[name] = {group: _share(walk.frames, stages) for group, stages in GROUPS.items()}
        memory[name] = walk.memory_mib
        result.guarded += [
            Guarded(f"{stage} at {name}", _kind(stage), spread.low) for stage, spread in spreads[name].items()
        ]
        result.guarded.append(Guarded(f"memory at {name}", "MiB", walk.memory_mib["most"]))
    result.details |= {
        "ms": {size: {stage: s.to_dict() for stage, s in by.items()} for size, by in spreads.items()},
        "shares": shares,
        "memory_mib": memory,
    }
    result.tables = _tables(spreads, shares, memory)
    return result


@dataclass(frozen=True)
class _Walk:
    """What one size gave, without the first frames: ms by stage of each frame, and of each whole frame."""

    frames: list[dict[str, float]]
    whole_ms: list[float]
    memory_mib: dict[str, float]
    networks: dict[str, str]
    reference: Reference


def _kind(stage: str) -> str:
    return "ms, all cores" if stage in (*MULTITHREADED, "whole frame") else "ms, one core"


def _share(frames: list[dict[str, float]], stages: tuple[str, ...]) -> float:
    """Of the time of all frames."""
    whole = sum(sum(frame.values()) for frame in frames)
    return sum(frame.get(stage, 0.0) for frame in frames for stage in stages) / whole if whole else float("nan")


def _walk(drive: Drive, size: tuple[int, int], options: argparse.Namespace) -> _Walk:
    """All frames through all steps."""
    memory, reference = {"before": rss_mib()}, Reference()
    odometry = load_odometry(size, options)
    rectifier = FrameRectifier(drive.camera, size)
    # Stamps rise on the way back too, at the pace of the drive.
    step_ns = (drive.stamps_ns[-1] - drive.stamps_ns[0]) // (len(drive) - 1)
    memory["networks loaded"] = rss_mib()
    whole = []
    with Stopwatch() as watch, _Outputs(drive, watch) as outputs:
        watch.watch(odometry.flow, "flow", "flow: matching")
        for count, index in enumerate(drive.to_and_fro(options.frames + WARM_UP)):
            message = outputs.image_message(drive.images[index])
            watch.next_frame()
            with watch.stage("other geometry"):
                with watch.stage("decode"):
                    image = outputs.decode(message)
                with watch.stage("rectify + resize"):
                    small, gray = rectifier(image)
                frame = Frame(count * step_ns + 1, small, gray, rectifier.camera)
                estimate = odometry.solve(_see(odometry, frame, watch))
                outputs.publish(estimate, small)
            whole.append(sum(watch.frames[-1].values()))
            _split(watch.frames[-1], estimate.timings_ms)
            if count % 8 == 0:
                reference.measure()
    memory["working"], memory["most"] = rss_mib(), rss_mib(key="VmHWM")
    networks = {"flow": odometry.flow.backend, "depth": odometry.depth.backend}
    return _Walk(watch.frames[WARM_UP:], whole[WARM_UP:], memory, networks, reference)


def _see(odometry: VisualOdometry, frame: Frame, watch: Stopwatch) -> View:
    """As VisualOdometry.see, but one network after the other."""
    with watch.stage("flow: features"):
        features = odometry.flow.features(frame.image)
    with watch.stage("depth"):
        depth = odometry.depth.depth(frame.image, frame.image_camera.fx)
    return View(
        frame.stamp_ns,
        frame.camera,
        network=odometry.flow,
        features=features,
        gray=frame.gray,
        network_depth=depth,
    )


def _split(frame: dict[str, float], timings_ms: dict[str, float]) -> None:
    """Take the stages that the odometry timed itself out of ``other geometry``."""
    for stage, ms in timings_ms.items():
        if stage not in ("flow", "depth"):
            stage = OF_ODOMETRY.get(stage, stage)
            frame[stage] = frame.get(stage, 0.0) + ms
            frame["other geometry"] -= ms


class _Outputs:
    """The node's own publishers, and a subscriber in another process. Without ROS 2 nothing is published."""

    def __init__(self, drive: Drive, watch: Stopwatch) -> None:
        try:
            from benchmark.ros_outputs import RosOutputs
        except ImportError as error:
            note(f"stages: without decoding and publishing, because ROS 2 cannot be imported: {error}")
            self._ros = None
        else:
            self._ros = RosOutputs(drive.camera, watch)

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ros:
            self._ros.close()

    def image_message(self, image: np.ndarray) -> Any:
        return self._ros.image_message(image) if self._ros else image

    def decode(self, message: Any) -> np.ndarray:
        return self._ros.decode(message) if self._ros else message

    def publish(self, estimate: Any, image: np.ndarray) -> None:
        if self._ros:
            self._ros.publish(estimate, image)


def _tables(spreads: dict, shares: dict, memory: dict) -> list[Table]:
    sizes = list(spreads)
    rows = []
    for stage in [stage for group in GROUPS.values() for stage in group] + ["whole frame"]:
        if any(stage in by for by in spreads.values()):
            cells = [spreads[size].get(stage) for size in sizes]
            rows.append([stage, *(None if s is None else f"{s.median:.2f} ({s.p95:.2f})" for s in cells)])
    share_rows = [[group, *(f"{100 * shares[size][group]:.1f} %" for size in sizes)] for group in GROUPS]
    memory_rows = [[what, *(f"{memory[size][what]:.0f}" for size in sizes)] for what in next(iter(memory.values()))]
    return [
        Table("One frame, step by step: ms, median (95th percentile)", ["", *sizes], rows),
        Table("Share of the frame's time", ["", *sizes], share_rows, "ROS is: decode, message filling, publish."),
        Table("Resident memory of this process, MiB", ["", *sizes], memory_rows),
    ]
