"""The nodes as a camera sees them: images go out over DDS from this process, and the odometry comes back.

Images are serialised once and sent as bytes in which only the stamp is new, so that this side costs little of the
machine that it measures.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from benchmark.drive import Drive
from benchmark.result import rss_mib
from benchmark.timing import Spread
from depth_pose_ros.demo.processes import Process
from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.nodes.camera_player import calibration_message
from depth_pose_ros.nodes.messages import header, image_message, stamp_ns
from depth_pose_ros.nodes.running import keep_freed_memory, use_large_shared_memory

FRAME_ID = "camera_optical_frame"
START_TIMEOUT = 90.0
"""Seconds for the nodes to load their networks, build engines apart."""
SETTLE = 1.5
"""Seconds at the beginning of each run that are not counted."""
LAST_ANSWER = 1.0
"""Seconds in which the answers of the last images may still come."""

COMPOSED = (("vo_node", ()),)
UNSCALED = ("depth/image:=network_depth/image", "depth/camera_info:=network_depth/camera_info")
SPLIT = (
    ("flow_node", ()),
    ("depth_node", ("-p", "depth_at_image_size:=false", *(word for r in UNSCALED for word in ("-r", r)))),
    ("pose_node", ()),
)
"""Nodes with the arguments that vo.launch.py gives them; the topics of each end where the next one listens."""


@dataclass(frozen=True)
class Run:
    """Images at one rate; times in ms.

    latency: of each image, in order, from its stamp, which is when it was published, to the arrival of its odometry;
        NaN where none came.
    cpu_ms:  of the nodes' threads per image, by process.
    """

    rate: float
    latency: np.ndarray = field(repr=False)
    cpu_ms: dict[str, float]

    @property
    def sent(self) -> int:
        """Images."""
        return len(self.latency)

    @property
    def lost(self) -> float:
        """Share of the images without odometry."""
        return float(np.isnan(self.latency).mean()) if self.sent else 1.0

    @property
    def spread(self) -> Spread:
        """Of the latency of those with."""
        return Spread.of(self.latency[~np.isnan(self.latency)])


class Camera:
    """This process: publishes images at a rate and receives what the nodes make of them.

    everything: subscribe to depth image and cloud as well, as bytes.
    """

    def __init__(self, drive: Drive, everything: bool) -> None:
        keep_freed_memory()
        use_large_shared_memory()
        rclpy.init()
        self.node = rclpy.create_node("benchmark_camera")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._images = self.node.create_publisher(Image, "image", 10)
        self._infos = self.node.create_publisher(CameraInfo, "camera_info", 10)
        self.node.create_subscription(Odometry, "odom", self._take, 50)
        self.counts = {"depth/image": 0, "points": 0}
        if everything:
            for topic, message_type in (("depth/image", Image), ("points", PointCloud2)):
                self.node.create_subscription(message_type, topic, self._counter(topic), 10, raw=True)
        self._answers: dict[int, float] = {}
        self._camera = drive.camera
        self._order = list(drive.to_and_fro(2 * (len(drive) - 1)))
        self._messages = [bytearray(serialize_message(image_message(i, header(0, FRAME_ID)))) for i in drive.images]
        self._next = 0

    def close(self) -> None:
        """Leave ROS."""
        self._executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _counter(self, topic: str) -> Callable[[bytes], None]:
        def count(_: bytes) -> None:
            self.counts[topic] += 1

        return count

    def _take(self, message: Odometry) -> None:
        self._answers[stamp_ns(message.header.stamp)] = (time.time_ns() - stamp_ns(message.header.stamp)) / 1e6

    def _send(self) -> int:
        message = self._messages[self._order[self._next % len(self._order)]]
        self._next += 1
        stamp = time.time_ns()
        # After four bytes of CDR header comes the message's own, which begins with its stamp.
        struct.pack_into("<iI", message, 4, *divmod(stamp, 1_000_000_000))
        self._infos.publish(calibration_message(self._camera, stamp, FRAME_ID))
        self._images.publish(bytes(message))
        return stamp

    def _spin_until(self, end: float) -> None:
        try:
            while (left := end - time.monotonic()) > 0:
                self._executor.spin_once(timeout_sec=left)
        except ExternalShutdownException:  # rclpy's answer to SIGINT and SIGTERM
            raise KeyboardInterrupt from None

    def run(self, nodes: Nodes, rate: float, seconds: float, sample: Callable[[float], None] | None = None) -> Run:
        """So many images a second, for ``SETTLE`` and then ``seconds`` that count.

        sample: called once a second with the seconds since counting began.
        """
        stamps, start = [], time.monotonic()
        first, cpu = max(1, round(SETTLE * rate)), {}
        self._answers.clear()
        for i in range(first + max(1, round(seconds * rate))):
            self._spin_until(start + i / rate)
            if i == first:
                cpu = nodes.cpu_seconds()
            stamps.append(self._send())
            if sample and i >= first and (i - first) % max(1, round(rate)) == 0:
                sample((i - first) / rate)
        self._spin_until(time.monotonic() + 1.0 / rate)
        used = {name: 1e3 * (now - cpu[name]) for name, now in nodes.cpu_seconds().items()}
        self._spin_until(time.monotonic() + LAST_ANSWER)
        nodes.check()
        counted = stamps[first:]
        latency = np.array([self._answers.get(stamp, np.nan) for stamp in counted])
        return Run(rate, latency, {name: ms / len(counted) for name, ms in used.items()})

    def wait_for_answer(self, nodes: Nodes) -> None:
        """Send slowly until odometry comes back. DepthPoseError when it does not."""
        end = time.monotonic() + START_TIMEOUT
        self._answers.clear()
        while not self._answers:
            nodes.check()
            if time.monotonic() > end:
                raise DepthPoseError(f"no odometry within {START_TIMEOUT:.0f} s; the nodes said:\n{nodes.last_words()}")
            self._send()
            self._spin_until(time.monotonic() + 0.3)


class Nodes:
    """The nodes under test, each in a process of its own."""

    def __init__(self, nodes: tuple[tuple[str, tuple[str, ...]], ...], parameters: dict, log: Path) -> None:
        log.mkdir(parents=True, exist_ok=True)
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}:={value}")]
        self._stack = ExitStack()
        self.processes: list[Process] = []
        for name, arguments in nodes:
            process = Process(name, ["--ros-args", *arguments, *words], log / f"{name}.txt")
            self._stack.callback(process.stop)
            self.processes.append(process)

    def __enter__(self) -> Nodes:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(self) -> None:
        """DepthPoseError when one has ended."""
        for process in self.processes:
            if process.exit_code is not None:
                raise DepthPoseError(f"{process.name} ended with {process.exit_code}:\n{process.last_words()}")

    def last_words(self) -> str:
        """The last lines of every log."""
        return "\n".join(process.last_words(4) for process in self.processes)

    def rss_mib(self, key: str = "VmRSS") -> float:
        """Of all of them together."""
        return sum(rss_mib(process.pid, key) for process in self.processes)

    def cpu_seconds(self) -> dict[str, float]:
        """Used so far, by node; ``NAME: ROS`` is the part of the threads that take and dispatch messages.

        These are the executor, which is the process's first thread, and those of DDS, by their names.
        """
        seconds = {}
        for process in self.processes:
            seconds[process.name], seconds[f"{process.name}: ROS"] = _cpu_seconds(process.pid)
        return seconds


def _cpu_seconds(pid: int) -> tuple[float, float]:
    """All threads of a process, and those that do nothing but ROS."""
    whole = ros = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            text = (task / "stat").read_text()
        except OSError:  # a thread that has just ended
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        fields = rest.split()
        seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        whole += seconds
        if task.name == str(pid) or name.startswith("dds."):
            ros += seconds
    return whole, ros


def highest_rate(
    passes: Callable[[float], bool], low: float = 1.0, high: float = 100.0, precision: float = 0.05
) -> float:
    """The highest rate that passes, by bisection to a relative ``precision``; 0 when ``low`` fails, at most ``high``.

    A rate that fails is tried once more before it is believed: one disturbance must not halve the result.
    """

    def twice(rate: float) -> bool:
        return passes(rate) or passes(rate)

    if not twice(low):
        return 0.0
    if twice(high):
        return high
    while high / low > 1.0 + precision:
        middle = float(np.sqrt(low * high))
        if twice(middle):
            low = middle
        else:
            high = middle
    return low
