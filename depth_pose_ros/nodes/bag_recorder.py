"""Records topics to an MCAP bag without rosbag2: raw subscriptions and the writer of ``rosbags``.

``bag_recorder OUT topic [topic ...]`` waits for a publisher of each topic, takes its type and QoS, prints ``ready`` on
standard output once it has all of them but those named with ``--later``, and records until it is interrupted. Names
follow ``--ros-args -r``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.nodes.running import run

QUEUE = 200  # messages that may wait while the disk is busy


def message_class(name: str) -> type:
    """``sensor_msgs/msg/Image`` -> the class. SequenceError when its package is not installed."""
    package, _, message = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), message)
    except (ImportError, AttributeError) as error:
        raise SequenceError(f"messages of type {name} cannot be recorded: {error}; install its package") from error


class BagRecorder(Node):
    """Writes every message of the given topics, as it came, with the time at which it came."""

    def __init__(self, path: Path, topics: list[str], later: list[str] = ()) -> None:
        """``path``: the folder of the bag, which must not exist yet. SequenceError when it cannot be written.

        later: topics that may appear after all others.
        """
        try:
            from rosbags.rosbag2 import StoragePlugin, Writer
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise SequenceError("recording needs rosbags: pip install rosbags") from error
        super().__init__("bag_recorder")
        if path.exists():
            raise SequenceError(f"{path} exists already; remove it or record to another folder")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            raise SequenceError(f"cannot write a bag at {path}: {error}") from error
        self._typestore = get_typestore(Stores.LATEST)
        self._waiting = [self.resolve_topic_name(topic) for topic in topics]
        self._later = [self.resolve_topic_name(topic) for topic in later]
        self._ready = False
        self._polls = 0
        self.counts = dict.fromkeys([*self._waiting, *self._later], 0)
        self._poll = self.create_timer(0.1, self._find_publishers)

    def _find_publishers(self) -> None:
        for topics in (self._waiting, self._later):
            for topic in list(topics):
                publishers = self.get_publishers_info_by_topic(topic)
                if publishers:
                    self._record(topic, publishers)
                    topics.remove(topic)
        self._polls += 1
        if not self._waiting:
            if not self._ready:
                self._ready = True
                print("ready", flush=True)
            if not self._later:
                self._poll.cancel()
        elif self._polls % 50 == 0:
            self.get_logger().warning(f"nobody publishes {', '.join(self._waiting)} yet")

    def _record(self, topic: str, publishers: list[Any]) -> None:
        type_name = publishers[0].topic_type
        profiles = [publisher.qos_profile for publisher in publishers]
        # A subscription may ask for no more than each publisher offers.
        reliable = all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in profiles)
        latched = all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
        qos = QoSProfile(
            depth=QUEUE,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )
        connection = self._writer.add_connection(topic, type_name, typestore=self._typestore)

        def write(data: bytes) -> None:
            self._writer.write(connection, self.get_clock().now().nanoseconds, data)
            self.counts[topic] += 1

        self.create_subscription(message_class(type_name), topic, write, qos, raw=True)

    def close(self) -> None:
        """Finish the bag: without this its index is missing."""
        self._writer.close()
        for topic, count in self.counts.items():
            print(f"{count:6d} {topic}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``bag_recorder``."""
    arguments = sys.argv if arguments is None else ["bag_recorder", *arguments]
    parser = argparse.ArgumentParser(description="Record topics to an MCAP bag until interrupted.")
    parser.add_argument("out", type=Path, help="folder of the bag; must not exist yet")
    parser.add_argument("topics", nargs="+", metavar="topic")
    parser.add_argument("--later", nargs="+", default=[], metavar="topic", help="topics that are not waited for")
    options = parser.parse_args(remove_ros_args(arguments)[1:])
    return run(lambda: BagRecorder(options.out, options.topics, options.later), arguments)
