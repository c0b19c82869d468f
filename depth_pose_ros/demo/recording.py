"""What a demo recorded: the bag, read once, as arrays by stamp."""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory
from depth_pose_ros.geometry.se3 import make_pose, matrix_from_quaternion
from depth_pose_ros.images import decode_image

TOPICS = (
    "odom",
    "status",
    "depth/image",
    "depth/camera_info",
    "points",
    "flow/image",
    "matches/image",
    "path",
    "/tf",
    "/diagnostics",
)
INPUTS = ("image", "camera_info")
"""Recorded too, so that the bag can be looked at (Foxglove) and played again; they come last."""


@dataclass
class Recording:
    """The bag of one demo. Pictures and clouds are kept for the chosen stamps only.

    odom:        T_odom_child of every odometry message.
    frames:      (odom_frame, child_frame) of the odometry.
    received_ns: time at which the recorder got the odometry of a stamp.
    stamps:      of every message by topic, for messages with a header.
    counts, sizes: messages and bytes by topic.
    status:      the key-value pairs of every status by stamp, with ``level`` and ``message``.
    depth:       (h, w) float32 with NaN; flow: (h, w, 3) uint8 BGR; points: (N, 3) float32 and (N, 3) uint8 BGR.
    """

    odom: Trajectory
    frames: tuple[str, str]
    received_ns: dict[int, int] = field(default_factory=dict)
    stamps: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    status: dict[int, dict[str, str]] = field(default_factory=dict)
    depth: dict[int, np.ndarray] = field(default_factory=dict)
    flow: dict[int, np.ndarray] = field(default_factory=dict)
    points: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def read_recording(bag: Path, chosen: Collection[int]) -> Recording:
    """Read the bag that ``bag_recorder`` wrote; pictures and clouds for the stamps in ``chosen`` (ns).

    SequenceError when it cannot be read.
    """
    from rosbags.rosbag2 import Reader, ReaderError
    from rosbags.typesys import Stores, get_typestore

    typestore = get_typestore(Stores.LATEST)
    poses: dict[int, np.ndarray] = {}
    recording = Recording(Trajectory(np.empty(0), np.empty((0, 4, 4))), ("", ""))
    try:
        with Reader(bag) as reader:
            for connection, time, data in reader.messages():
                topic = connection.topic.lstrip("/")
                recording.counts[topic] = recording.counts.get(topic, 0) + 1
                recording.sizes[topic] = recording.sizes.get(topic, 0) + len(data)
                if topic in ("tf", "tf_static"):
                    continue
                # Every other message begins with its header: after four bytes of CDR, the stamp.
                sec, nanosec = struct.unpack_from("<iI", data, 4)
                stamp = sec * 1_000_000_000 + nanosec
                recording.stamps.setdefault(topic, []).append(stamp)
                wanted = topic in ("odom", "status") or (
                    topic in ("depth/image", "flow/image", "points") and stamp in chosen
                )
                if not wanted:
                    continue
                message = typestore.deserialize_cdr(data, connection.msgtype)
                if topic == "odom":
                    poses[stamp] = _pose(message.pose.pose)
                    recording.received_ns[stamp] = time
                    recording.frames = (message.header.frame_id, message.child_frame_id)
                elif topic == "status":
                    recording.status[stamp] = _status(message)
                elif topic == "depth/image":
                    recording.depth[stamp] = _depth(message)
                elif topic == "flow/image":
                    recording.flow[stamp] = decode_image(
                        message.height, message.width, message.encoding, message.step, False, message.data
                    )
                else:
                    recording.points[stamp] = _cloud(message)
    except (ReaderError, OSError) as error:
        raise SequenceError(f"the recording {bag} cannot be read: {error}") from error
    stamps = sorted(poses)
    recording.odom = Trajectory(np.array(stamps), np.array([poses[stamp] for stamp in stamps]))
    return recording


def _pose(message: Any) -> np.ndarray:
    p, q = message.position, message.orientation
    return make_pose(matrix_from_quaternion(np.array([q.x, q.y, q.z, q.w])), np.array([p.x, p.y, p.z]))


def _status(message: Any) -> dict[str, str]:
    values: dict[str, str] = {}
    for status in message.status:
        values |= {"level": str(status.level), "message": status.message}
        values |= {pair.key: pair.value for pair in status.values}
    return values


def _depth(message: Any) -> np.ndarray:
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return np.ascontiguousarray(rows[:, : message.width * 4]).view(np.float32)


def _cloud(message: Any) -> tuple[np.ndarray, np.ndarray]:
    offsets = {f.name: f.offset for f in message.fields}
    layout = np.dtype(
        {
            "names": ["x", "y", "z", "rgb"],
            "formats": ["<f4", "<f4", "<f4", "<u4"],
            "offsets": [offsets[name] for name in ("x", "y", "z", "rgb")],
            "itemsize": message.point_step,
        }
    )
    cloud = np.frombuffer(message.data, layout)
    cloud = cloud[np.isfinite(cloud["z"])]
    points = np.stack([cloud["x"], cloud["y"], cloud["z"]], axis=1)
    colours = np.stack([cloud["rgb"] >> shift & 255 for shift in (0, 8, 16)], axis=1).astype(np.uint8)
    return points, colours
