"""ROS bags without ROS: MCAP and sqlite3 of ROS 2, and bags of ROS 1, through ``rosbags``."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import CameraError, SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory
from depth_pose_ros.geometry.se3 import make_pose, matrix_from_quaternion
from depth_pose_ros.images import decode_compressed, decode_image
from depth_pose_ros.sequences.sequence import Options, Sequence

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
TRUTH_TOPIC = "/ground_truth/pose"
"""geometry_msgs/PoseStamped of the camera's optical frame: a convention of this package, not of ROS."""


def matches(path: Path) -> bool:
    """A folder with metadata.yaml of rosbag2, or a .mcap, .db3 or .bag file."""
    if path.is_dir():
        return (path / "metadata.yaml").is_file()
    return path.suffix.lower() in (".mcap", ".db3", ".bag")


def load(path: Path, options: Options) -> Bag:
    """Images of one topic with their headers' stamps, the camera of the CameraInfo beside it."""
    return Bag(path, options)


class Bag(Sequence):
    """One image topic of a bag; messages are read and decoded while it is iterated."""

    def __init__(self, path: Path, options: Options) -> None:
        try:
            from rosbags.highlevel import AnyReader, AnyReaderError
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise SequenceError(f"{path} is a ROS bag; reading it needs: pip install 'depth_pose_ros[run]'") from error
        self.name = path.resolve().stem
        self._path = path
        self._keep_gray = options.keep_gray
        try:
            self._reader = AnyReader([path], default_typestore=get_typestore(Stores.LATEST))
            self._reader.open()
        except (AnyReaderError, OSError) as error:
            raise SequenceError(
                f"{path} cannot be read as a bag: {error} If its recording was cut off: mcap recover, ros2 bag reindex "
                "or rosbag reindex may save it"
            ) from error
        except Exception as error:  # rosbags lets errors of YAML, sqlite and struct through on damaged files
            raise SequenceError(f"{path} cannot be read as a bag; it may be damaged: {error!r}") from error
        self.format = "ROS 2 bag" if self._reader.is2 else "ROS 1 bag"
        self.topic = self._choose(options.topic)
        self._connections = [c for c in self._reader.connections if c.topic == self.topic]
        self._is_compressed = self._connections[0].msgtype == IMAGE_TYPES[1]
        if not len(self):
            raise SequenceError(f"{path}: topic {self.topic} has no messages")
        self._find_camera()
        self.ground_truth = self._read_truth()

    def _choose(self, wanted: str | None) -> str:
        """The image topic: the wanted one, or the only one; raw before compressed, and none of depth."""
        known = {c.topic: c.msgtype for c in self._reader.connections if c.msgtype in IMAGE_TYPES}
        if wanted is not None:
            wanted = "/" + wanted.lstrip("/")
            if wanted in known:
                return wanted
            raise SequenceError(f"{self._path} has no image topic {wanted}; it has {', '.join(known) or 'none at all'}")
        topics = [topic for topic in known if "depth" not in topic.lower()]
        topics = [topic for topic in topics if topic.removesuffix("/compressed") == topic or topic[:-11] not in topics]
        if len(topics) == 1:
            return topics[0]
        if not topics:
            others = ", ".join(sorted({c.topic for c in self._reader.connections})) or "no topics"
            raise SequenceError(f"{self._path} has no topic with camera images; it has {others}")
        raise SequenceError(
            f"{self._path} has {len(topics)} image topics; choose one with --topic: {', '.join(topics)}"
        )

    def _find_camera(self) -> None:
        """The first CameraInfo beside the image topic; P of it where the topic says that images are rectified."""
        base = self.topic.removesuffix("/compressed")
        namespace, _, name = base.rpartition("/")
        topic = f"{namespace}/camera_info"
        try:
            for _, _, message in self._messages(topic, "sensor_msgs/msg/CameraInfo"):
                model = CameraModel.from_camera_info(message)
                self.camera = model.rectified() if name.startswith("image_rect") else model
                return
            self.camera_problem = f"the bag has no messages on {topic}"
        except CameraError as error:
            self.camera_problem = f"{topic}: {error}"

    def _read_truth(self) -> Trajectory | None:
        stamps, poses = [], []
        for _, _, message in self._messages(TRUTH_TOPIC, "geometry_msgs/msg/PoseStamped"):
            p, q = message.pose.position, message.pose.orientation
            stamps.append(_stamp_ns(message))
            poses.append(make_pose(matrix_from_quaternion(np.array([q.x, q.y, q.z, q.w])), np.array([p.x, p.y, p.z])))
        return Trajectory(stamps, poses) if stamps else None

    def _messages(self, topic: str, msgtype: str) -> Iterator[tuple[Any, int, Any]]:
        connections = [c for c in self._reader.connections if c.topic == topic and c.msgtype == msgtype]
        for connection, time, data in self._raw(connections):
            yield connection, time, self._reader.deserialize(data, connection.msgtype)

    def _raw(self, connections: list[Any], **limits: int) -> Iterator[tuple[Any, int, bytes]]:
        """Messages as they were recorded. SequenceError when the bag breaks off."""
        if not connections:
            return
        try:
            yield from self._reader.messages(connections=connections, **limits)
        except Exception as error:  # rosbags lets errors of sqlite, struct and decompression through
            raise SequenceError(f"{self._path} breaks off: {error!r}") from error

    def __len__(self) -> int:
        return sum(c.msgcount for c in self._connections)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return _Images(self, self._raw(self._connections))

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        time, skip = self._recorded[self._checked(index)]
        for i, (connection, _, data) in enumerate(self._raw(self._connections, start=time, stop=time + 1)):
            if i == skip:
                return self.decode(connection, data)
        raise IndexError(f"frame {index} of {self._path} is gone")

    @cached_property
    def _recorded(self) -> list[tuple[int, int]]:
        """For each frame, when it was recorded (ns), and which of those recorded in that nanosecond it is."""
        recorded: list[tuple[int, int]] = []
        for _, time, _ in self._raw(self._connections):
            same = bool(recorded) and recorded[-1][0] == time
            recorded.append((time, recorded[-1][1] + 1 if same else 0))
        return recorded

    def decode(self, connection: Any, data: bytes) -> tuple[int, np.ndarray]:
        """One recorded message -> stamp and image. ImageError when it cannot be decoded."""
        message = self._reader.deserialize(data, connection.msgtype)
        if self._is_compressed:
            return _stamp_ns(message), decode_compressed(message.format, message.data, self._keep_gray)
        image = decode_image(
            message.height,
            message.width,
            message.encoding,
            message.step,
            bool(message.is_bigendian),
            message.data,
            self._keep_gray,
        )
        return _stamp_ns(message), image


class _Images:
    """Iteration that can go on after an image that could not be decoded."""

    def __init__(self, bag: Bag, raw: Iterator[tuple[Any, int, bytes]]) -> None:
        self._bag = bag
        self._raw = raw

    def __iter__(self) -> _Images:
        return self

    def __next__(self) -> tuple[int, np.ndarray]:
        connection, _, data = next(self._raw)
        return self._bag.decode(connection, data)


def _stamp_ns(message: Any) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
