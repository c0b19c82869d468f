"""Odometry from the matches of flow_node and the depth of depth_node.

Topics in: `flow/matches` with `flow/camera_info`, and `network_depth/image`, all of one camera and joined by their
stamps. Out: what vo_node gives but `flow/image`, and on `matches/image` the matches alone. Services: `~/reset`,
`~/save_trajectory`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig, OutputConfig, Tunables
from depth_pose_ros.errors import CameraError, ImageError
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.nodes import messages, topics
from depth_pose_ros.nodes.health import SILENCE
from depth_pose_ros.nodes.managed_node import ManagedNode
from depth_pose_ros.nodes.motion import Motion
from depth_pose_ros.nodes.publishers import MatchesPicturePublisher
from depth_pose_ros.nodes.running import run

PATIENCE = 0.5
"""Seconds that matches wait for the depth of their frame: depth_node skips frames when it is the slower one."""

SENDERS = {"flow/matches": "flow_node", "flow/camera_info": "flow_node", "network_depth/image": "depth_node"}

LIMIT = 30
"""Messages of each topic that may wait for the others."""


class PoseNode(ManagedNode):
    """Matches and depth -> VisualOdometry -> topics. Its work is short, so it needs no thread of its own."""

    def __init__(self) -> None:
        super().__init__("pose_node", OdometryConfig, OutputConfig)

    def setup(self) -> None:
        """See ManagedNode."""
        self._is_active = False
        self.motion = Motion(self, self.configs, threading.RLock())
        self._matches_picture = MatchesPicturePublisher(self)
        self.received = self.depth_received = self.without_depth = self.refused = 0
        self.refusal = ""
        self._waiting: deque[tuple[messages.StampedMatches, float]] = deque()  # with the time of arrival
        self._cameras: dict[int, PinholeCamera] = {}  # by stamp, in the order of arrival
        self._depths: dict[int, np.ndarray] = {}
        self._depth_began_at = -math.inf  # with the first message
        self._last_ns: int | None = None
        inputs = {
            "flow/matches": (PointCloud2, self._take_matches),
            "flow/camera_info": (CameraInfo, self._take_camera),
            "network_depth/image": (Image, self._take_depth),
        }
        self._inputs = {  # reliable: a match message that is lost is a motion that is lost
            topic: topics.subscribe(self, message_type, topic, self._arrives(topic, take), QoSProfile(depth=LIMIT))
            for topic, (message_type, take) in inputs.items()
        }
        self._arrived_at = dict.fromkeys(inputs, -math.inf)
        self.create_timer(0.1, self._work, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def set_active(self, active: bool) -> None:
        """See ManagedNode."""
        self._is_active = active
        self._waiting.clear()

    def apply(self, config: Tunables) -> None:
        """See ManagedNode."""
        self.motion.apply(config)

    def missing(self) -> list[str]:
        """See ManagedNode."""
        found = [self._why_silent(topic) for topic in self._inputs if self._is_silent(topic)]
        if not found and self.refusal:
            found.append(f"what arrives is refused: {self.refusal}")
        return found + self.motion.problems()

    def _is_silent(self, topic: str) -> bool:
        return time.monotonic() - self._arrived_at[topic] > SILENCE

    def _why_silent(self, topic: str) -> str:
        advice = "see what {} says" if self.count_publishers(topic) else "start {}"
        return f"{topics.why_silent(self, self._inputs[topic])}; {advice.format(SENDERS[topic])}"

    # ------------------------------------------------------------------------------------------------ parts arrive
    def _arrives(self, topic: str, take: Callable) -> Callable:
        """The callback of a topic: ``take`` keeps the message, or refuses it."""

        def callback(message: PointCloud2 | CameraInfo | Image) -> None:
            self._arrived_at[topic] = time.monotonic()
            if not self._is_active:
                return
            try:
                take(message)
            except (ImageError, CameraError) as error:
                self._refuse(f"{topic}: {error}")
            self._work()

        return callback

    def _take_matches(self, message: PointCloud2) -> None:
        self.received += 1
        self._waiting.append((messages.matches_from_message(message), time.monotonic()))

    def _take_camera(self, message: CameraInfo) -> None:
        _keep(self._cameras, messages.stamp_ns(message.header.stamp), messages.camera_from_message(message))

    def _take_depth(self, message: Image) -> None:
        if not self.depth_received:
            self._depth_began_at = time.monotonic()
        self.depth_received += 1
        _keep(self._depths, messages.stamp_ns(message.header.stamp), messages.depth_from_message(message))

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        self.refusal = reason
        self.get_logger().warning(f"refused: {reason}", throttle_duration_sec=SILENCE)

    # ----------------------------------------------------------------------------------------------- frames leave
    def _work(self) -> None:
        """Answer the matches, in the order in which they came, that are complete or have waited long enough."""
        while self._waiting:
            stamped, arrived_at = self._waiting[0]
            waited = time.monotonic() - arrived_at > PATIENCE or len(self._waiting) > LIMIT
            camera, depth = self._cameras.get(stamped.stamp_ns), self._depths.get(stamped.stamp_ns)
            depth_is_late = depth is None and self.count_publishers("network_depth/image") > 0
            depth_was_skipped = any(stamp > stamped.stamp_ns for stamp in self._depths)  # it comes in order
            if not waited and (camera is None or (depth_is_late and not depth_was_skipped)):
                return
            self._waiting.popleft()
            if camera is None:
                self._refuse(
                    f"matches without a CameraInfo of their stamp on {self.resolve_topic_name('flow/camera_info')}"
                )
            else:
                self._answer(stamped, camera, depth, arrived_at)

    def _waits_for_depth(self) -> bool:
        """Whether the unit is that of a depth that is yet to come: without it the first motion would be one unit long.

        A depth_node that has sent nothing may be building its engine, and one that is not heard of may run all the
        same: nodes get to know each other in any order.
        """
        if self.motion.has_depth or self.configs[OdometryConfig].scale_source not in ("network", "median_depth"):
            return False
        if not self.depth_received and self.count_publishers("network_depth/image"):
            return True
        return time.monotonic() - max(self.motion.began_at, self._depth_began_at) < SILENCE

    def _answer(
        self,
        stamped: messages.StampedMatches,
        camera: PinholeCamera,
        depth: np.ndarray | None,
        arrived_at: float,
    ) -> None:
        if self._last_ns is not None and stamped.stamp_ns <= self._last_ns:
            self.motion.outputs.forget()  # flow_node has told why stamps went back
        self._last_ns = stamped.stamp_ns
        self.without_depth += depth is None
        self.motion.mount(stamped.frame_id)
        matches, reference_ns = stamped.matches, stamped.reference_stamp_ns
        waits = depth is None and self._waits_for_depth()
        if waits:  # as a first frame, which nothing has moved since
            matches, reference_ns = Matches.empty(), None
        estimate = self.motion.odometry.process_matches(
            stamped.stamp_ns,
            camera,
            reference_ns,
            matches.points_1,
            matches.points_2,
            matches.scores,
            depth,
        )
        if waits:
            topic = self.resolve_topic_name("network_depth/image")
            reason = f"waiting for a frame with depth from {topic}: without it the first motion would have no scale"
            estimate = replace(estimate, reason=reason)
        self._matches_picture.publish(estimate, stamped.frame_id, camera, None)
        latency_ms = 1e3 * (time.monotonic() - arrived_at)
        details = {"received": self.received, "refused": self.refused, "latency_ms": round(latency_ms, 3)}
        if self.motion.publish(estimate, stamped.frame_id, camera, None, details):
            self.health.output(latency_ms)

    def details(self) -> list[DiagnosticStatus]:
        """See ManagedNode."""
        rate, depth_rate = (
            self.health.rate(name, count)
            for name, count in (("matches", self.received), ("depth", self.depth_received))
        )
        matches = messages.diagnostic_status(
            DiagnosticStatus.OK if rate > 0 else DiagnosticStatus.WARN,
            f"{self.get_name()}: matches",
            "arriving" if rate > 0 else "none in the last second",
            {"rate_hz": rate, "received": self.received, "refused": self.refused, "last_refusal": self.refusal},
        )
        why = ""
        if self._is_silent("network_depth/image"):
            why = f": {self._why_silent('network_depth/image')}"
            if rate > 0 and self.motion.has_depth:
                self.get_logger().warning(f"the scale is carried on without depth{why}", throttle_duration_sec=SILENCE)
            elif rate > 0 and self._waits_for_depth():
                self.get_logger().warning(f"no motion before the first depth{why}", throttle_duration_sec=SILENCE)
        depth = messages.diagnostic_status(
            DiagnosticStatus.OK if depth_rate > 0 else DiagnosticStatus.WARN,
            f"{self.get_name()}: depth",
            "arriving" if depth_rate > 0 else f"none in the last second{why}",
            {"rate_hz": depth_rate, "received": self.depth_received, "frames_without": self.without_depth},
        )
        return [matches, depth, *self.motion.details()]


def _keep(parts: dict, stamp_ns: int, part: object) -> None:
    if parts and stamp_ns < next(reversed(parts)):  # they come in order: the camera's stamps have started again
        parts.clear()
    parts.pop(stamp_ns, None)
    parts[stamp_ns] = part
    while len(parts) > LIMIT:
        del parts[next(iter(parts))]


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``pose_node``."""
    return run(PoseNode, arguments)
