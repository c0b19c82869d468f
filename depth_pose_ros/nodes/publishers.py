"""What an Estimate becomes on ROS topics; nothing is computed that nobody has subscribed to.

Every message carries the image's stamp. Frames after REP-103 and REP-105, depth after REP-118.
"""

from __future__ import annotations

from array import array
from collections import deque
from pathlib import Path

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OutputConfig
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.evaluation.trajectory import Trajectory, write_kitti, write_tum
from depth_pose_ros.geometry.point_cloud import PointCloud
from depth_pose_ros.geometry.se3 import hat, inverse, make_pose, se3_log
from depth_pose_ros.images import flow_picture, matches_picture
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.depth_image import resize_depth
from depth_pose_ros.nodes.topics import publish
from depth_pose_ros.nodes.transforms import TransformBroadcaster
from depth_pose_ros.odometry import Estimate, State

R_BODY_OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Optical axes (right, down, forward) to body axes (forward, left, up), REP-103."""

TRAJECTORY_LIMIT = 2_000_000
"""Poses kept for ~/save_trajectory: 18 hours at 30 Hz, 250 MB. Then the older half is forgotten."""

BACKGROUND = 40
"""Gray behind matches whose image is not known here."""


# ------------------------------------------------------------------------------------------------------- frames
class Mounting:
    """How the published motion follows from the camera's: T_odom_child(k) = T_odom_origin T_c0_ck T_camera_child.

    With a base frame, the odometry frame is where the base was at the start: T_odom_origin = T_base_camera and
    T_camera_child its inverse. Without one the child is the optical frame itself, while the odometry frame has the
    axes of a body (x forward, y left, z up) at the first camera.
    """

    def __init__(self, T_base_camera: np.ndarray | None = None) -> None:
        if T_base_camera is None:
            self.T_odom_origin, self.T_camera_child = make_pose(R_BODY_OPTICAL, np.zeros(3)), np.eye(4)
        else:
            self.T_odom_origin, self.T_camera_child = T_base_camera, inverse(T_base_camera)

    def pose(self, T_origin_camera: np.ndarray) -> np.ndarray:
        """T_odom_child (4, 4)."""
        return self.T_odom_origin @ T_origin_camera @ self.T_camera_child

    def pose_covariance(self, T_origin_camera: np.ndarray, covariance: np.ndarray) -> np.ndarray:
        """(6, 6) of :meth:`pose`, in the axes of odom, from that of T_origin_camera in the axes of its origin."""
        return _carry(self.T_odom_origin, T_origin_camera, self.T_camera_child, covariance)

    def twist(self, T_previous_current: np.ndarray, covariance: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """Velocity of the child in its own axes, (6,) linear and angular per second, and its covariance (6, 6).

        The one constant velocity that takes the previous pose of the child to the current one: the SE(3) logarithm.
        """
        T_child_camera = inverse(self.T_camera_child)
        T = T_child_camera @ T_previous_current @ self.T_camera_child
        step = se3_log(T)
        # log(exp(e) T) = log(T) + J e with J the inverse of the left Jacobian, to first order I - ad / 2 (Sola et al.,
        # 2018); and dx, dr about the child's origin are the twist e = (dx - dr x p, dr) about the parent's.
        ad = _both(hat(step[3:]))
        ad[:3, 3:] = hat(step[:3])
        about_parent = np.eye(6)
        about_parent[:3, 3:] = hat(T[:3, 3])
        J = (np.eye(6) - 0.5 * ad) @ about_parent
        child_covariance = _carry(T_child_camera, T_previous_current, self.T_camera_child, covariance)
        return step / dt, J @ child_covariance @ J.T / dt**2


def _carry(A: np.ndarray, T: np.ndarray, B: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Covariance (6, 6) of A T B from that of T; both in parent axes about the child's origin, A and B exact.

    T' = (p + dx, exp(dr) R) moves the origin of B's child, at R b + p, by dx + dr x (R b).
    """
    J = np.eye(6)
    J[:3, 3:] = -hat(T[:3, :3] @ B[:3, 3])
    J = _both(A[:3, :3]) @ J
    return J @ covariance @ J.T


def _both(block: np.ndarray) -> np.ndarray:
    """(6, 6) that does the same to translation and rotation."""
    result = np.zeros((6, 6))
    result[:3, :3] = result[3:, 3:] = block
    return result


# -------------------------------------------------------------------------------------------------- odometry, TF
class OdometryPublisher:
    """`odom`, `/tf`, `path`, `status`, and the trajectory that ~/save_trajectory writes."""

    def __init__(self, node: Node, config: OutputConfig) -> None:
        self.config = config
        self.mounting: Mounting | None = None
        """To be set as soon as it is known; nothing but `status` is published before."""
        self.status: DiagnosticStatus | None = None
        """The last that was published."""
        self._node = node
        self._path: deque[PoseStamped] = deque(maxlen=config.path_max_size)
        self._unsent = 0
        self._stamps, self._poses = array("q"), array("d")
        self._odom = publish(node, Odometry, "odom", QoSProfile(depth=10))
        self._tf = TransformBroadcaster(node)
        self._path_publisher = publish(node, PathMessage, "path", QoSProfile(depth=1))
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._status = publish(node, DiagnosticArray, "status", latched)

    def is_scaled(self, estimate: Estimate) -> bool:
        """Whether lengths have a scale that lasts, or the user wants them all the same."""
        return estimate.scale.source != "none" or self.config.allow_unscaled_tf

    def publish(self, estimate: Estimate, camera_frame: str) -> None:
        """Odometry, TF and path of one frame. The first frame is no motion yet and only starts the trajectory."""
        if self.mounting is None or not estimate.has_pose:
            return
        config = self.config
        T = self.mounting.pose(estimate.T_odom_camera)
        self._remember(estimate.stamp_ns, T)
        # A frame name of its own keeps a motion without scale from being combined with anything metric.
        scaled = self.is_scaled(estimate)
        odom_frame = config.odom_frame if scaled else config.odom_frame + "_unscaled"
        child = config.base_frame or camera_frame
        head = messages.header(estimate.stamp_ns, odom_frame)
        if estimate.dt > 0 and scaled and config.publish_tf:
            transform = messages.transform_message(T, head, child)
            if config.invert_tf:
                transform = messages.transform_message(
                    inverse(T), messages.header(estimate.stamp_ns, child), config.odom_frame
                )
            self._tf.send(transform)
        if estimate.dt > 0 and self._odom.get_subscription_count():
            pose_covariance = self.mounting.pose_covariance(estimate.T_odom_camera, estimate.pose_covariance)
            twist, twist_covariance = self.mounting.twist(
                estimate.T_previous_current, estimate.motion_covariance, estimate.dt
            )
            self._odom.publish(messages.odometry_message(head, child, T, pose_covariance, twist, twist_covariance))
        if config.path_max_size != self._path.maxlen:
            self._path = deque(self._path, maxlen=config.path_max_size)
        self._path.append(PoseStamped(header=head, pose=messages.pose_message(T)))
        # A path is sent whole, 5 ms for 1000 poses: the longer it is, the more seldom.
        self._unsent += 1
        if self._unsent > len(self._path) // 100 and self._path_publisher.get_subscription_count():
            self._unsent = 0
            self._path_publisher.publish(messages.path_message(head, self._path))

    def publish_status(self, estimate: Estimate, camera_frame: str, more: dict[str, object]) -> None:
        """`status`: what the odometry is doing and how sure it is of its scale, as key and value.

        A diagnostic_msgs/DiagnosticArray with one entry, whose header carries the image's stamp.
        """
        self.status = messages.diagnostic_status(
            {State.LOST: DiagnosticStatus.ERROR, State.INITIALISING: DiagnosticStatus.WARN}.get(
                estimate.state, DiagnosticStatus.OK
            ),
            f"{self._node.get_name()}: odometry",
            f"{estimate.state.value}: {estimate.reason}" if estimate.reason else estimate.state.value,
            {
                "state": estimate.state.value,
                "reason": estimate.reason,
                "model": estimate.model,
                "scale_source": estimate.scale.source,
                "scale": float(estimate.scale.value),
                "scale_spread": float(estimate.scale.spread),
                "scale_ok": bool(estimate.scale.ok),
                "metric": bool(estimate.scale.is_metric),
                "matches": estimate.matches,
                "inliers": estimate.inliers,
                "parallax_px": float(estimate.parallax_px),
                "dt": float(estimate.dt),
                **more,
                **{f"{stage}_ms": round(float(ms), 3) for stage, ms in estimate.timings_ms.items()},
            },
            hardware_id=camera_frame,
        )
        head = messages.header(estimate.stamp_ns, camera_frame)
        self._status.publish(DiagnosticArray(header=head, status=[self.status]))

    # ------------------------------------------------------------------------------------------------ trajectory
    def forget(self) -> None:
        """Start path and trajectory anew, because stamps start again at an earlier time."""
        self._path.clear()
        self._stamps, self._poses = array("q"), array("d")

    def reset(self) -> None:
        """Start everything anew."""
        self.forget()
        self._tf.forget()

    def _remember(self, stamp_ns: int, T: np.ndarray) -> None:
        if len(self._stamps) >= TRAJECTORY_LIMIT:
            half = len(self._stamps) // 2
            del self._stamps[:half], self._poses[: half * 16]
        self._stamps.append(stamp_ns)
        self._poses.extend(T.ravel().tolist())

    def save_trajectory(self) -> tuple[int, list[Path]]:
        """Write the trajectory since the start or the last reset; number of poses and the files.

        `.tum`: stamp x y z qx qy qz qw of base (or camera) in odom, as published.
        `.kitti.txt`: the first three rows of the camera's pose in its first frame, as KITTI's odometry benchmark does.
        Each appears whole or not at all. OSError when they cannot be written.
        """
        in_odom = Trajectory(self._stamps, self._poses)
        cameras = in_odom.poses
        if len(cameras):
            cameras = cameras @ inverse(self.mounting.T_camera_child)
            cameras = inverse(cameras[0]) @ cameras
        stem = str(Path(self.config.trajectory_path).expanduser())
        files = [Path(stem + ".tum"), Path(stem + ".kitti.txt")]
        write_tum(files[0], in_odom)
        write_kitti(files[1], Trajectory(self._stamps, cameras))
        return len(in_odom), files


# --------------------------------------------------------------------------------------------------- depth, cloud
class DepthPublisher:
    """`depth/image`, `depth/camera_info` and `points`, in the optical frame of the rectified image."""

    def __init__(self, node: Node, config: OutputConfig) -> None:
        self.config = config
        self._image = publish(node, Image, "depth/image", QoSProfile(depth=2))
        self._camera_info = publish(node, CameraInfo, "depth/camera_info", QoSProfile(depth=2))
        self._points = publish(node, PointCloud2, "points", QoSProfile(depth=2))
        self._cloud_maker: PointCloud | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether anybody has subscribed to any of the three."""
        return any(p.get_subscription_count() for p in (self._image, self._camera_info, self._points))

    def publish(
        self,
        stamp_ns: int,
        camera_frame: str,
        depth: np.ndarray,
        depth_camera: PinholeCamera,
        image_camera: PinholeCamera,
        image: np.ndarray | None,
    ) -> None:
        """One frame's depth.

        depth:        (h, w) float32 along Z, of ``depth_camera``; NaN where unknown.
        image_camera: of the rectified input image; the depth image gets this size unless it is to keep its own.
        image:        (H, W, 3) uint8 BGR of the same view at any size, for the colours of the cloud, or None.
        """
        config = self.config
        head = messages.header(stamp_ns, camera_frame)
        camera = image_camera if config.depth_at_image_size else depth_camera
        if self._image.get_subscription_count():
            resized = resize_depth(depth, camera.width, camera.height, config.depth_interpolation)
            if not (depth.min() >= config.min_depth and depth.max() <= config.max_depth):  # a look at few, or NaN
                resized = self._in_range(resized.copy() if resized is depth else resized)
            self._image.publish(messages.image_message(resized, head))
        if self._camera_info.get_subscription_count():
            self._camera_info.publish(messages.camera_info_message(camera, head))
        if self._points.get_subscription_count():
            self._points.publish(self._cloud(depth, depth_camera, image, head))

    def _in_range(self, depth: np.ndarray) -> np.ndarray:
        """Depth with NaN outside of min_depth to max_depth, in place."""
        outside = ~((depth >= self.config.min_depth) & (depth <= self.config.max_depth))
        depth[outside] = np.nan
        return depth

    def _cloud(self, depth: np.ndarray, camera: PinholeCamera, image: np.ndarray | None, head: Header) -> PointCloud2:
        if self._cloud_maker is None or self._cloud_maker.camera != camera:
            self._cloud_maker = PointCloud(camera)
        depth = self._in_range(depth.copy())
        if image is None:
            points = self._cloud_maker.xyz(depth)
        else:
            image = cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
            points = self._cloud_maker.xyz_rgb(depth, image)
        points = points[:: self.config.points_stride, :: self.config.points_stride]
        if not self.config.points_organized:
            points = points.reshape(-1, points.shape[-1])
            points = np.take(points, np.flatnonzero(np.isfinite(points[:, 2])), axis=0)
        return messages.cloud_message(points, head)


class FlowPicturePublisher:
    """`flow/image`: optical flow to the current frame as a colour picture, for people."""

    def __init__(self, node: Node) -> None:
        self._publisher = publish(node, Image, "flow/image", QoSProfile(depth=2))

    def publish(self, stamp_ns: int, camera_frame: str, flow: FlowField, width: int, height: int) -> None:
        """``width`` and ``height`` are those of the picture."""
        if self._publisher.get_subscription_count():
            picture = cv2.resize(flow_picture(flow.forward), (width, height), interpolation=cv2.INTER_LINEAR)
            self._publisher.publish(messages.image_message(picture, messages.header(stamp_ns, camera_frame)))


class MatchesPicturePublisher:
    """`matches/image`: the matches of a frame, green where they agree with the motion, else red; for people."""

    def __init__(self, node: Node) -> None:
        self._publisher = publish(node, Image, "matches/image", QoSProfile(depth=2))

    def publish(self, estimate: Estimate, camera_frame: str, camera: PinholeCamera, image: np.ndarray | None) -> None:
        """One frame's matches.

        camera: in whose pixels the matches are.
        image:  (H, W, 3) uint8 BGR of the same view at any size, or None: then they are drawn on gray.
        """
        if not self._publisher.get_subscription_count():
            return
        if image is None:
            image = np.full((camera.height, camera.width, 3), BACKGROUND, np.uint8)
        to_image = np.array([image.shape[1] / camera.width, image.shape[0] / camera.height])
        points = ((points + 0.5) * to_image - 0.5 for points in (estimate.points_1, estimate.points_2))
        picture = matches_picture(image, *points, estimate.inlier_mask)
        self._publisher.publish(messages.image_message(picture, messages.header(estimate.stamp_ns, camera_frame)))
