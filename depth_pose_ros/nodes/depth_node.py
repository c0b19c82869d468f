"""Depth of each image by the depth network alone: images in; depth image and cloud out.

Topics in: `image` (or `image/compressed`) and its sibling `camera_info`. Out: `depth/image`, `depth/camera_info`,
`points`, `/diagnostics`. Service: `~/pause`. Depth is in the network's own unit; pose_node brings it to the scale of
the odometry.
"""

from __future__ import annotations

import numpy as np

from depth_pose_ros.config import EngineConfig, NetworkConfig, OutputConfig, Tunables
from depth_pose_ros.engines import Manifest, find_model, load_depth
from depth_pose_ros.engines.engine import DepthEstimator
from depth_pose_ros.geometry import depth_map
from depth_pose_ros.nodes.camera_node import CameraNode, SeenImage
from depth_pose_ros.nodes.publishers import DepthPublisher
from depth_pose_ros.nodes.running import run
from depth_pose_ros.odometry import Frame


class DepthNode(CameraNode):
    """Image -> DepthNet -> depth image and cloud."""

    def __init__(self) -> None:
        super().__init__("depth_node", OutputConfig)

    def setup(self) -> None:
        """See ManagedNode."""
        super().setup()
        self._network: DepthEstimator | None = None
        self._depth = DepthPublisher(self, self.configs[OutputConfig])
        self.get_logger().info("depth is in the depth network's own unit: the same from frame to frame but NOT metric")
        self.start_worker()

    def models(self) -> list[Manifest]:
        """See CameraNode."""
        return [find_model(self.configs[NetworkConfig].depth_model, "depth")]

    def load(self, width: int, height: int) -> None:
        """See CameraNode."""
        config, engine = self.configs[NetworkConfig], self.configs[EngineConfig]
        self._network = load_depth(
            config.depth_model, width, height, config.backend, config.threads, engine, self.opening
        )
        self.network_loaded(self._network)

    def see(self, frame: Frame) -> np.ndarray | None:
        """See CameraNode."""
        if not self._depth.is_wanted:
            return None
        return depth_map.masked(self._network.depth(frame.image, frame.image_camera.fx), frame.mask)

    def process(self, seen: SeenImage) -> bool:
        """See CameraNode."""
        image, frame, depth = seen.image, seen.frame, seen.seen
        if depth is not None:
            camera = frame.camera.resized(depth.shape[1], depth.shape[0])
            full = frame.camera.resized(image.model.image_width, image.model.image_height)
            self._depth.publish(image.stamp_ns, image.frame_id, depth, camera, full, frame.image)
        return True

    def apply(self, config: Tunables) -> None:
        """See ManagedNode."""
        with self.lock:
            if isinstance(config, OutputConfig):
                self._depth.config = config


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``depth_node``."""
    return run(DepthNode, arguments)
