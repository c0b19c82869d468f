"""Matches between images by the flow network: images in; matches, and flow as a picture, out.

Topics in: `image` (or `image/compressed`) and its sibling `camera_info`. Out: `flow/matches` (PointCloud2 with the
fields u, v in the reference image, u', v' in this one, and score; see messages.matches_message), `flow/camera_info` (of
the camera of these pixels), `flow/image`, `/diagnostics`. Service: `~/pause`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, PointCloud2

from depth_pose_ros.config import EngineConfig, NetworkConfig, OdometryConfig, tunables
from depth_pose_ros.engines import Manifest, find_model, load_flow
from depth_pose_ros.engines.engine import FlowEstimator
from depth_pose_ros.geometry.correspondences import Matches, select
from depth_pose_ros.geometry.refine import refine
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.camera_node import CameraNode, SeenImage
from depth_pose_ros.nodes.publishers import FlowPicturePublisher
from depth_pose_ros.nodes.running import run
from depth_pose_ros.nodes.topics import publish
from depth_pose_ros.odometry import Frame, keeps_reference

USED = ("max_matches", "min_matches", "refine", "stationary_px")
LEFT_OUT = [item.name for item in tunables(OdometryConfig) if item.name not in USED] + ["depth_model"]


ACQUAINTANCE = 2.0
"""Seconds after a listener has come in which every frame is a reference: the two may know each other one-sidedly."""


@dataclass(frozen=True)
class _View:
    """What is kept of a frame that later ones are compared with."""

    stamp_ns: int
    gray: np.ndarray
    network: FlowEstimator
    features: Any


class FlowNode(CameraNode):
    """Image pairs -> FlowNet -> the best matches, refined."""

    def __init__(self) -> None:
        super().__init__("flow_node", OdometryConfig, leave_out=LEFT_OUT)

    def setup(self) -> None:
        """See ManagedNode."""
        super().setup()
        self._network: FlowEstimator | None = None
        self._reference: _View | None = None
        self._listeners, self._joined_at = 0, -math.inf
        # pose_node needs each of them: a match message that is lost is a motion that is lost.
        self._matches = publish(self, PointCloud2, "flow/matches", QoSProfile(depth=30))
        self._camera_info = publish(self, CameraInfo, "flow/camera_info", QoSProfile(depth=30))
        self._picture = FlowPicturePublisher(self)
        self.start_worker()

    def models(self) -> list[Manifest]:
        """See CameraNode."""
        return [find_model(self.configs[NetworkConfig].flow_model, "flow")]

    def load(self, width: int, height: int) -> None:
        """See CameraNode."""
        config, engine = self.configs[NetworkConfig], self.configs[EngineConfig]
        self._network = load_flow(
            config.flow_model, width, height, config.backend, config.threads, engine, self.opening
        )
        self.network_loaded(self._network)

    def see(self, frame: Frame) -> _View:
        """See CameraNode."""
        return _View(frame.stamp_ns, frame.gray, self._network, self._network.features(frame.image))

    def process(self, seen: SeenImage) -> bool:
        """See CameraNode."""
        config = self.configs[OdometryConfig]
        image, frame, current = seen.image, seen.frame, seen.seen
        reference = None if seen.is_new else self._reference
        matches = Matches.empty()
        if reference is not None:
            flow = current.network.flow(reference.features, current.features)
            height, width = frame.image.shape[:2]
            self._picture.publish(frame.stamp_ns, image.frame_id, flow, width, height)
            matches = select(flow, config.max_matches, frame.mask)
            matches = matches.resized(frame.camera.width / width, frame.camera.height / height)
            if config.refine:
                matches = refine(reference.gray, current.gray, matches)
        head = messages.header(frame.stamp_ns, image.frame_id)
        self._camera_info.publish(messages.camera_info_message(frame.camera, head))
        stamped = messages.StampedMatches(
            frame.stamp_ns, image.frame_id, reference.stamp_ns if reference else None, matches
        )
        self._matches.publish(messages.matches_message(stamped))
        if reference is None or self._has_new_listener() or not keeps_reference(matches, frame.camera, config):
            self._reference = current
        return True

    def _has_new_listener(self) -> bool:
        """Whether a pose_node may have come that was not there when an older reference frame was told."""
        count, now = self._matches.get_subscription_count(), time.monotonic()
        if count > self._listeners:
            self._joined_at = now
        self._listeners = count
        return now - self._joined_at < ACQUAINTANCE


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``flow_node``."""
    return run(FlowNode, arguments)
