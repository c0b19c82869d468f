"""Shows the topics of vo_node in rerun, or records them to a file where there is no screen.

Topics in: `image` (or `image/compressed`) with the `camera_info` beside it, `matches/image`, `flow/image`,
`depth/image`, `depth/camera_info`, `points`, `odom`, `status`, `/tf`, `/tf_static`.
Parameters: `file` (of the recording, default view.rrd) and `image_transport` (raw or compressed).
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from depth_pose_ros.camera import CameraModel, PinholeCamera, Rectifier
from depth_pose_ros.errors import CameraError, ConfigError, ImageError
from depth_pose_ros.geometry.se3 import make_pose, matrix_from_quaternion
from depth_pose_ros.nodes import messages, topics
from depth_pose_ros.nodes.health import SILENCE
from depth_pose_ros.nodes.running import run
from depth_pose_ros.nodes.transforms import TransformListener
from depth_pose_ros.view import Viewer

LATEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
STATUS = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class ViewNode(Node):
    """One subscription per picture; each goes to the viewer under the stamp that it carries."""

    def __init__(self) -> None:
        super().__init__("view_node")
        file = Path(str(self.declare_parameter("file", "view.rrd").value)).expanduser()
        transport = self.declare_parameter("image_transport", "raw").value
        if transport not in ("raw", "compressed"):
            raise ConfigError(f"image_transport = {transport!r}; expected raw or compressed")
        self._silent: list[Subscription] = []  # until the first message of any
        self._transforms = TransformListener(self)
        self._camera: PinholeCamera | None = None
        self._camera_frame = ""
        self._raw_camera: CameraModel | None = None
        self._rectifier: Rectifier | None = None
        self.viewer = Viewer(self.get_name(), file, self.get_logger().info, of_topics=True)
        if transport == "compressed":
            self._listen(CompressedImage, "image/compressed", self._image)
        else:
            self._listen(Image, "image", self._image)
        topic = self.resolve_topic_name("image").removesuffix("/compressed")
        if not topics.is_rectified(topic):
            self._listen(CameraInfo, topics.camera_info_topic(self, topic), self._raw_camera_info)
        self._listen(CameraInfo, "depth/camera_info", self._camera_info)
        self._listen(Image, "matches/image", partial(self._picture, "matches"))
        self._listen(Image, "flow/image", partial(self._picture, "flow"))
        self._listen(Image, "depth/image", self._depth)
        self._listen(PointCloud2, "points", self._points)
        self._listen(Odometry, "odom", self._odometry, QoSProfile(depth=10))
        self._listen(DiagnosticArray, "status", self._status, STATUS)
        self._watch = self.create_timer(SILENCE, self._tell_silence, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _listen(self, kind: type, topic: str, show, qos: QoSProfile = LATEST) -> None:
        def take(message) -> None:
            self._silent.clear()
            self.viewer.at(messages.stamp_ns(message.header.stamp))
            try:
                show(message)
            except (CameraError, ImageError, ValueError) as error:
                self.get_logger().warning(f"{topic} is not shown: {error}", throttle_duration_sec=5.0)

        self._silent.append(self.create_subscription(kind, topic, take, qos))

    def _tell_silence(self) -> None:
        """What is missing, for as long as nothing has arrived at all; most of the topics may be silent by intent."""
        if not self._silent:
            self._watch.cancel()
            return
        why = "; ".join(topics.why_silent(self, subscription) for subscription in self._silent)
        self.get_logger().warning(f"nothing to show yet: {why}; start vo_node, or remap these topics")

    def _image(self, message: Image | CompressedImage) -> None:
        raw = isinstance(message, Image)
        image = messages.image_from_message(message) if raw else messages.image_from_compressed(message)
        camera = self._camera
        if camera is not None:
            camera = camera.resized(image.shape[1], image.shape[0])
        if self._raw_camera is not None and not self._raw_camera.is_rectified:
            if self._rectifier is None or self._rectifier.model != self._raw_camera:
                self._rectifier = Rectifier(self._raw_camera)
            image, camera = self._rectifier(image), self._rectifier.camera
        self.viewer.image(image, camera)

    def _raw_camera_info(self, message: CameraInfo) -> None:
        self._raw_camera = CameraModel.from_camera_info(message)

    def _camera_info(self, message: CameraInfo) -> None:
        self._camera, self._camera_frame = messages.camera_from_message(message), message.header.frame_id

    def _picture(self, entity: str, message: Image) -> None:
        self.viewer.picture(entity, messages.image_from_message(message))

    def _depth(self, message: Image) -> None:
        if self._camera is not None:
            self.viewer.depth(messages.depth_from_message(message), self._camera)

    def _points(self, message: PointCloud2) -> None:
        cloud = messages.read_cloud(message, ("x", "y", "z", "rgb"))
        rgb = cloud["rgb"].view("<u4")
        colours = np.stack([rgb >> shift & 255 for shift in (0, 8, 16)], axis=1).astype(np.uint8)
        self.viewer.points(np.stack([cloud[axis] for axis in "xyz"], axis=1), colours)

    def _odometry(self, message: Odometry) -> None:
        p, q = message.pose.pose.position, message.pose.pose.orientation
        T = make_pose(matrix_from_quaternion(np.array([q.x, q.y, q.z, q.w])), np.array([p.x, p.y, p.z]))
        covariance = np.array(message.pose.covariance).reshape(6, 6)
        if self._camera_frame and self._camera_frame != message.child_frame_id:
            T_child_camera = self._transforms.lookup(message.child_frame_id, self._camera_frame)
            if T_child_camera is None:
                return
            T = T @ T_child_camera
        self.viewer.pose(T, covariance)

    def _status(self, message: DiagnosticArray) -> None:
        values = {pair.key: pair.value for status in message.status for pair in status.values}
        self.viewer.state(values.get("state", "unknown"), values.get("reason", ""))
        number = lambda key: float(values.get(key, "nan"))  # noqa: E731
        self.viewer.numbers("scale", {"scale": number("scale"), "spread": number("scale_spread")})
        self.viewer.numbers("matches", {name: number(name) for name in ("matches", "inliers")})
        self.viewer.numbers("ms", {k.removesuffix("_ms"): float(v) for k, v in values.items() if k.endswith("_ms")})

    def close(self) -> None:
        """Write what is still on its way."""
        self.viewer.close()


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``view_node``."""
    return run(ViewNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
