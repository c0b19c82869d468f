"""The ROS side of the stages: image messages in, the node's publishers out, to a subscriber in another process."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.publisher import Publisher
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from benchmark.result import ROOT
from benchmark.timing import Stopwatch
from depth_pose_ros.camera import CameraModel
from depth_pose_ros.config import OutputConfig
from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.nodes import messages, publishers
from depth_pose_ros.nodes.running import keep_freed_memory, use_large_shared_memory
from depth_pose_ros.odometry import Estimate

OUTPUTS = {"odom": Odometry, "/tf": TFMessage, "depth/image": Image, "depth/camera_info": CameraInfo}
OUTPUTS["points"] = PointCloud2
"""What the subscriber listens to: everything that a user of odometry and depth takes."""

FILLERS = ("image_message", "camera_info_message", "cloud_message", "odometry_message", "transform_message")
START_TIMEOUT = 30.0


class RosOutputs:
    """Publishers as vo_node has them, with the time of each step going to the stopwatch."""

    def __init__(self, camera: CameraModel, watch: Stopwatch) -> None:
        keep_freed_memory()
        use_large_shared_memory()
        rclpy.init()
        self._node = rclpy.create_node("benchmark_stages")
        self._odometry = publishers.OdometryPublisher(self._node, OutputConfig())
        self._odometry.mounting = publishers.Mounting()
        self._depth = publishers.DepthPublisher(self._node, OutputConfig())
        self._camera = camera.pinhole
        self._listener = subprocess.Popen([sys.executable, "-m", "benchmark.ros_outputs"], cwd=ROOT)
        end = time.monotonic() + START_TIMEOUT
        while not all(self._node.count_subscribers(topic) for topic in OUTPUTS):
            rclpy.spin_once(self._node, timeout_sec=0.05)
            if time.monotonic() > end or self._listener.poll() is not None:
                self.close()
                raise DepthPoseError(f"the subscriber did not come up within {START_TIMEOUT:.0f} s")
        for name in FILLERS:
            watch.watch(messages, name, "message filling")
        watch.watch(Publisher, "publish", "publish")
        watch.watch(publishers, "resize_depth", "depth to image size")
        watch.watch(publishers.DepthPublisher, "_cloud", "cloud")

    def close(self) -> None:
        """Stop the subscriber, and ROS."""
        self._listener.terminate()
        self._listener.wait(10)
        self._node.destroy_node()
        rclpy.try_shutdown()

    def image_message(self, image: np.ndarray) -> Image:
        """As it comes from a camera driver."""
        return messages.image_message(image, messages.header(1, "camera"))

    def decode(self, message: Image) -> np.ndarray:
        """As vo_node does."""
        return messages.image_from_message(message)

    def publish(self, estimate: Estimate, image: np.ndarray) -> None:
        """As vo_node does: odometry, TF, path and status, then depth and cloud."""
        self._odometry.publish(estimate, "camera")
        if estimate.depth is not None:
            self._depth.publish(estimate.stamp_ns, "camera", estimate.depth, estimate.camera, self._camera, image)
        self._odometry.publish_status(estimate, "camera", {})


def listen() -> None:
    """Take every output as bytes and throw it away, until SIGTERM."""
    use_large_shared_memory()
    rclpy.init()
    node = rclpy.create_node("benchmark_listener")
    for topic, message_type in OUTPUTS.items():
        node.create_subscription(message_type, topic, lambda _: None, 10, raw=True)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    listen()
