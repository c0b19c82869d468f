"""The odometry inside a node: its services, its frames, and where its estimates go. Shared by vo_node and pose_node."""

from __future__ import annotations

import math
import threading
import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from std_srvs.srv import Trigger

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig, OutputConfig, Tunables
from depth_pose_ros.nodes.parameters import Configs
from depth_pose_ros.nodes.publishers import DepthPublisher, Mounting, OdometryPublisher
from depth_pose_ros.nodes.transforms import TransformListener
from depth_pose_ros.odometry import UP, Estimate, State, VisualOdometry

SCALE_SENTENCES = {
    "network": "scale_source network: lengths are in the depth network's own unit, the same from frame to frame but "
    "NOT metric; for metres set scale_source to camera_height",
    "median_depth": "scale_source median_depth: every frame's median depth is taken to be {median_depth:g}; lengths "
    "are NOT metric",
    "camera_height": "scale_source camera_height: metres, from the ground {camera_height:g} m below the camera",
    "none": "scale_source none: lengths have NO scale; odometry and path are published in the frame "
    "{odom_frame}_unscaled, and no TF, depth or cloud (allow_unscaled_tf changes that)",
}


class Motion:
    """A VisualOdometry with its publishers, ~/reset and ~/save_trajectory.

    odometry: gets its networks from whoever has them in this process.
    lock:     held by whoever uses ``odometry`` or calls a method here.
    """

    def __init__(self, node: Node, configs: Configs, lock: threading.RLock) -> None:
        self.odometry = VisualOdometry(None, None, configs[OdometryConfig])
        self.lock = lock
        self.outputs = OdometryPublisher(node, configs[OutputConfig])
        self.depth = DepthPublisher(node, configs[OutputConfig])
        self.began_at = math.inf
        """time.monotonic() of the first frame since the start or the last reset."""
        self.has_depth = False
        """Whether any frame since then had depth of the network."""
        self._source = ""  # of the unit of the motions since then, as was told
        self._node = node
        self._camera_frame = ""
        self._is_lost = False
        self._given_up = ""  # why no pose is published, although frames are answered
        self._listener: TransformListener | None = None
        if configs[OutputConfig].base_frame:
            self._listener = TransformListener(node)
        node.create_service(Trigger, "~/reset", self._reset)
        node.create_service(Trigger, "~/save_trajectory", self._save_trajectory)
        node.get_logger().info(SCALE_SENTENCES[configs[OdometryConfig].scale_source].format(**_values(configs)))

    def apply(self, config: Tunables) -> None:
        """Take a changed configuration."""
        with self.lock:
            if isinstance(config, OdometryConfig):
                if config.scale_source != self.odometry.config.scale_source:
                    values = {**self.outputs.config.to_dict(), **config.to_dict()}
                    self._node.get_logger().info(SCALE_SENTENCES[config.scale_source].format(**values))
                self.odometry.config = config
            elif isinstance(config, OutputConfig):
                self.outputs.config = self.depth.config = config

    def publish(
        self,
        estimate: Estimate,
        camera_frame: str,
        image_camera: PinholeCamera,
        image: np.ndarray | None,
        details: dict[str, object],
    ) -> bool:
        """Everything that follows from one estimate; `status` last, so that it says that the frame is answered.

        False when no odometry could be published; :meth:`problems` says why.

        image_camera: of the rectified input image at its own size.
        image:        (H, W, 3) BGR of the same view, for the cloud's colours, or None.
        details:      further entries of `status`.
        """
        start = time.perf_counter()
        self.began_at = min(self.began_at, time.monotonic())
        self.has_depth |= estimate.depth is not None
        self._given_up = "" if estimate.has_pose else estimate.reason
        self.outputs.publish(estimate, camera_frame)
        if estimate.depth is not None and self.outputs.is_scaled(estimate):
            self.depth.publish(estimate.stamp_ns, camera_frame, estimate.depth, estimate.camera, image_camera, image)
        details["publish_ms"] = round(1e3 * (time.perf_counter() - start), 3)
        self.outputs.publish_status(estimate, camera_frame, details)
        self._tell_state(estimate)
        self._tell_unit(estimate)
        return self.outputs.mounting is not None and estimate.has_pose

    def details(self) -> list[DiagnosticStatus]:
        """The last `status`, for `/diagnostics`."""
        return [self.outputs.status] if self.outputs.status else []

    def problems(self) -> list[str]:
        """What keeps odometry from being published, a sentence each."""
        if self.outputs.mounting is None and self._listener is not None and self._camera_frame:
            return [self._listener.missing(self.outputs.config.base_frame, self._camera_frame)]
        if self._given_up:
            return [f"tracking is lost, and by lost_policy and lost_time no pose is published: {self._given_up}"]
        return []

    def _tell_state(self, estimate: Estimate) -> None:
        if (estimate.state == State.LOST) == self._is_lost:
            return
        self._is_lost = estimate.state == State.LOST
        if self._is_lost:
            self._node.get_logger().error(f"tracking is lost: {estimate.reason}", throttle_duration_sec=1.0)
        else:
            self._node.get_logger().info(f"tracking again ({estimate.state.value})", throttle_duration_sec=1.0)

    def _tell_unit(self, estimate: Estimate) -> None:
        source, before = estimate.scale.source, self._source
        if estimate.dt == 0.0 or source == before:
            return
        self._source = source
        wanted = self.odometry.config.scale_source
        if source != wanted:
            unscaled = SCALE_SENTENCES["none"].format(**self.outputs.config.to_dict())
            self._node.get_logger().warning(f"no depth for scale_source {wanted}; until it comes, {unscaled}")
        elif before:
            self._node.get_logger().warning(
                f"the unit has changed from that of scale_source {before} to that of {source}; the way so far is in the"
                " old one: call ~/reset for an origin in the new one"
            )

    def mount(self, camera_frame: str) -> None:
        """Find out how the camera sits on the base, before a frame is solved; never assume it."""
        base = self.outputs.config.base_frame
        if camera_frame != self._camera_frame:
            self._camera_frame = camera_frame
            self.outputs.mounting = None
            self.odometry.up = None if base else UP
            if base and self._listener is None:
                self._listener = TransformListener(self._node)
        if self.outputs.mounting is not None:
            return
        if not base:
            self.outputs.mounting = Mounting()
            return
        T_base_camera = self._listener.lookup(base, camera_frame)
        if T_base_camera is not None:
            self._listener.close()
            self._listener = None
            self.outputs.mounting = Mounting(T_base_camera)
            self.odometry.up = T_base_camera[2, :3]  # the base's z axis, in the camera's
            x, y, z = T_base_camera[:3, 3]
            self._node.get_logger().info(f"{camera_frame} sits at ({x:.3f}, {y:.3f}, {z:.3f}) m in {base}")

    def _reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        with self.lock:
            self.odometry.reset()
            self.outputs.reset()
            self.began_at, self.has_depth, self._source = math.inf, False, ""
        self._node.get_logger().info("reset: the next frame is the origin")
        response.success, response.message = True, "reset: the next frame is the origin"
        return response

    def _save_trajectory(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            with self.lock:
                count, files = self.outputs.save_trajectory()
        except OSError as error:
            response.success, response.message = False, f"cannot write the trajectory: {error}; set trajectory_path"
            self._node.get_logger().error(response.message)
            return response
        response.success = count > 0
        response.message = f"{count} poses in {files[0].resolve()} and {files[1].resolve()}"
        self._node.get_logger().info(response.message)
        return response


def _values(configs: Configs) -> dict:
    return {name: value for config in configs.values() for name, value in config.to_dict().items()}
