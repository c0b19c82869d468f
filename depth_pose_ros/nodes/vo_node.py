"""Visual odometry in one process: images in; odometry, TF, depth and cloud out.

Topics in: `image` (or `image/compressed`) and its sibling `camera_info`. Out: `odom`, `/tf`, `depth/image`,
`depth/camera_info`, `points`, `path`, `flow/image`, `matches/image`, `status`, `/diagnostics`. Services: `~/reset`,
`~/save_trajectory`, `~/pause`.
"""

from __future__ import annotations

import time

from diagnostic_msgs.msg import DiagnosticStatus

from depth_pose_ros.config import EngineConfig, NetworkConfig, OdometryConfig, OutputConfig, Tunables
from depth_pose_ros.engines import Manifest, find_model, load_depth, load_flow
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.nodes.camera_node import CameraNode, SeenImage
from depth_pose_ros.nodes.motion import Motion
from depth_pose_ros.nodes.publishers import FlowPicturePublisher, MatchesPicturePublisher
from depth_pose_ros.nodes.running import run
from depth_pose_ros.odometry import Frame, View


class VisualOdometryNode(CameraNode):
    """Image -> Frame -> VisualOdometry -> Estimate -> topics."""

    def __init__(self) -> None:
        super().__init__("vo_node", OdometryConfig, OutputConfig)

    def setup(self) -> None:
        """See ManagedNode."""
        super().setup()
        self._check_scale(self.configs[OdometryConfig])
        self.motion = Motion(self, self.configs, self.lock)
        self._flow_picture = FlowPicturePublisher(self)
        self._matches_picture = MatchesPicturePublisher(self)
        self.start_worker()

    def models(self) -> list[Manifest]:
        """See CameraNode."""
        config = self.configs[NetworkConfig]
        depth = [] if config.depth_model == "none" else [find_model(config.depth_model, "depth")]
        return [find_model(config.flow_model, "flow"), *depth]

    def load(self, width: int, height: int) -> None:
        """See CameraNode."""
        config, engine = self.configs[NetworkConfig], self.configs[EngineConfig]
        options = (config.backend, config.threads, engine, self.opening)
        networks = [load_flow(config.flow_model, width, height, *options)]
        if config.depth_model != "none":
            networks.append(load_depth(config.depth_model, width, height, *options))
        for network in networks:
            self.network_loaded(network)
        self.motion.odometry.flow, self.motion.odometry.depth = (*networks, None)[:2]

    def see(self, frame: Frame) -> View:
        """See CameraNode."""
        return self.motion.odometry.see(frame)

    def process(self, seen: SeenImage) -> bool:
        """See CameraNode."""
        image, frame = seen.image, seen.frame
        if image.jumped_back:
            self.motion.outputs.forget()
        self.motion.mount(image.frame_id)
        estimate = self.motion.odometry.solve(seen.seen)
        if estimate.flow is not None:
            height, width = frame.image.shape[:2]
            self._flow_picture.publish(estimate.stamp_ns, image.frame_id, estimate.flow, width, height)
        self._matches_picture.publish(estimate, image.frame_id, frame.camera, frame.image)
        details = {
            "received": self.camera.received,
            "dropped": self.camera.dropped,
            "refused": self.camera.refused,
            "backend": ", ".join(f"{name}: {backend}" for name, backend in self.network_backends.items()),
            "not_on": "; ".join(self.backend_reasons),
            "latency_ms": round(1e3 * (time.monotonic() - image.received_at), 3),
            **{f"{name}_ms": round(ms, 3) for name, ms in seen.prepare_ms.items()},
        }
        full = frame.camera.resized(image.model.image_width, image.model.image_height)
        return self.motion.publish(estimate, image.frame_id, full, frame.image, details)

    def apply(self, config: Tunables) -> None:
        """See ManagedNode."""
        if isinstance(config, OdometryConfig):
            self._check_scale(config)
        self.motion.apply(config)

    def _check_scale(self, config: OdometryConfig) -> None:
        if self.configs[NetworkConfig].depth_model == "none" and config.scale_source in ("network", "median_depth"):
            raise ConfigError(
                f"scale_source = {config.scale_source!r} needs a depth network, but depth_model is none; "
                "set scale_source to camera_height or none"
            )

    def missing(self) -> list[str]:
        """See ManagedNode."""
        return super().missing() + self.motion.problems()

    def details(self) -> list[DiagnosticStatus]:
        """See ManagedNode."""
        return super().details() + self.motion.details()


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``vo_node``."""
    return run(VisualOdometryNode, arguments)
