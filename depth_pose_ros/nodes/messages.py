"""NumPy arrays to ROS messages and back.

Bulk data goes into the message's own ``array.array`` by ``frombytes(memoryview)``: assigning bytes, a list or an
ndarray to ``msg.data`` costs 70 to 400 ms for one image where rclpy then looks at every element, and always a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
from geometry_msgs.msg import Pose, PoseStamped, TransformStamped
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2, PointField
from std_msgs.msg import Header

from depth_pose_ros.camera import CameraModel, PinholeCamera
from depth_pose_ros.errors import ImageError
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.se3 import make_pose, matrix_from_quaternion, quaternion_from_matrix
from depth_pose_ros.images import decode_compressed, decode_depth, decode_image

NANOSECONDS = 1_000_000_000


# ------------------------------------------------------------------------------------------------------ time, header
def stamp_ns(stamp: Time) -> int:
    """A message's stamp in integer nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def time_message(nanoseconds: int) -> Time:
    """The stamp of so many nanoseconds."""
    sec, nanosec = divmod(int(nanoseconds), NANOSECONDS)
    return Time(sec=sec, nanosec=nanosec)


def header(nanoseconds: int, frame_id: str) -> Header:
    """A header from a stamp in nanoseconds and a frame."""
    return Header(stamp=time_message(nanoseconds), frame_id=frame_id)


def fill(message: Image | CompressedImage | PointCloud2, values: np.ndarray) -> None:
    """Make the bytes of an array the data of a message: 0.2 ms for 1.8 MB, with and without field checks."""
    data = message.data  # the message's own array.array: assigning one would copy it
    del data[:]
    if values.size:  # a memoryview of nothing cannot be cast
        data.frombytes(memoryview(np.ascontiguousarray(values)).cast("B"))


# ----------------------------------------------------------------------------------------------------------- images
def image_from_message(message: Image) -> np.ndarray:
    """sensor_msgs/Image -> (H, W, 3) BGR or (H, W) gray, uint8. ImageError on what cannot be decoded."""
    return decode_image(*_image_fields(message), keep_gray=True)


def image_from_compressed(message: CompressedImage) -> np.ndarray:
    """sensor_msgs/CompressedImage (JPEG, PNG) -> (H, W, 3) BGR or (H, W) gray, uint8. ImageError as above."""
    return decode_compressed(message.format, message.data, keep_gray=True)


ENCODINGS = {("uint8", 3): "bgr8", ("uint8", 1): "mono8", ("uint16", 1): "16UC1", ("float32", 1): "32FC1"}


def image_message(image: np.ndarray, head: Header) -> Image:
    """(H, W, 3) uint8 BGR, (H, W) uint8, uint16 or float32 -> bgr8, mono8, 16UC1 or 32FC1."""
    height, width = image.shape[:2]
    channels = image.shape[2] if image.ndim == 3 else 1
    encoding = ENCODINGS[image.dtype.name, channels]
    step = width * channels * image.dtype.itemsize
    message = Image(header=head, height=height, width=width, encoding=encoding, step=step)
    fill(message, image)
    return message


def depth_from_message(message: Image) -> np.ndarray:
    """32FC1, or 16UC1 in millimetres -> (H, W) float32, NaN where unknown (REP-118). ImageError for anything else."""
    return decode_depth(*_image_fields(message))


def _image_fields(message: Image) -> tuple:
    m = message
    return m.height, m.width, m.encoding, m.step, bool(m.is_bigendian), m.data


def camera_info_message(camera: PinholeCamera, head: Header) -> CameraInfo:
    """The CameraInfo of a rectified image: no distortion, R identity, P = [K | 0]."""
    K = camera.K
    return CameraInfo(
        header=head,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=K.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=np.hstack([K, np.zeros((3, 1))]).ravel().tolist(),
    )


def camera_from_message(message: CameraInfo) -> PinholeCamera:
    """The camera of a rectified image, as :func:`camera_info_message` wrote it. CameraError when it is not one."""
    return CameraModel.from_camera_info(message).pinhole


# ------------------------------------------------------------------------------------------------------------ poses
def pose_message(T: np.ndarray) -> Pose:
    """(4, 4) -> geometry_msgs/Pose."""
    pose = Pose()
    pose.position.x, pose.position.y, pose.position.z = map(float, T[:3, 3])
    q = pose.orientation
    q.x, q.y, q.z, q.w = map(float, quaternion_from_matrix(T[:3, :3]))
    return pose


def transform_message(T_parent_child: np.ndarray, head: Header, child: str) -> TransformStamped:
    """(4, 4) -> geometry_msgs/TransformStamped; ``head.frame_id`` is the parent."""
    message = TransformStamped(header=head, child_frame_id=child)
    translation, q = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = map(float, T_parent_child[:3, 3])
    q.x, q.y, q.z, q.w = map(float, quaternion_from_matrix(T_parent_child[:3, :3]))
    return message


def transform_from_message(message: TransformStamped) -> np.ndarray:
    """geometry_msgs/TransformStamped -> T_parent_child (4, 4). ValueError on a quaternion that is none, or NaN."""
    t, q = message.transform.translation, message.transform.rotation
    length = math.hypot(q.x, q.y, q.z, q.w)
    if not (1e-6 < length < 1e6 and all(map(math.isfinite, (t.x, t.y, t.z)))):
        raise ValueError(
            f"transform {message.header.frame_id} -> {message.child_frame_id} has the quaternion "
            f"({q.x}, {q.y}, {q.z}, {q.w}) and the translation ({t.x}, {t.y}, {t.z})"
        )
    return make_pose(matrix_from_quaternion(np.array([q.x, q.y, q.z, q.w])), np.array([t.x, t.y, t.z]))


def odometry_message(
    head: Header,
    child: str,
    T_odom_child: np.ndarray,
    pose_covariance: np.ndarray,
    twist: np.ndarray,
    twist_covariance: np.ndarray,
) -> Odometry:
    """nav_msgs/Odometry: the pose and its covariance in ``head.frame_id``, the twist and its own in ``child``.

    twist: (6,) linear, then angular velocity. Covariances are (6, 6) in the order x y z rx ry rz (REP-103).
    """
    message = Odometry(header=head, child_frame_id=child)
    message.pose.pose = pose_message(T_odom_child)
    message.pose.covariance = pose_covariance.ravel().tolist()
    linear, angular = message.twist.twist.linear, message.twist.twist.angular
    linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = map(float, twist)
    message.twist.covariance = twist_covariance.ravel().tolist()
    return message


def path_message(head: Header, poses: Iterable[PoseStamped]) -> Path:
    """nav_msgs/Path."""
    return Path(header=head, poses=list(poses))


# ----------------------------------------------------------------------------------------------------------- clouds
def _fields(dtype: np.dtype) -> list[PointField]:
    types = {"float32": PointField.FLOAT32, "uint32": PointField.UINT32}
    return [
        PointField(name=name, offset=dtype.fields[name][1], datatype=types[dtype.fields[name][0].name], count=1)
        for name in dtype.names
    ]


def structured_cloud(points: np.ndarray, head: Header, is_dense: bool) -> PointCloud2:
    """A (N,) or (H, W) structured array of float32 and uint32 fields -> sensor_msgs/PointCloud2 with these fields."""
    height, width = points.shape if points.ndim == 2 else (1, len(points))
    message = PointCloud2(
        header=head,
        height=height,
        width=width,
        fields=_fields(points.dtype),
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.dtype.itemsize * width,
        is_dense=is_dense,
    )
    fill(message, points)
    return message


def cloud_message(points: np.ndarray, head: Header) -> PointCloud2:
    """Points -> sensor_msgs/PointCloud2, as RViz, depth_image_proc and PCL read it.

    points: (N, 3) float32 x y z, or (N, 4) with rgb, a FLOAT32 whose bits are 0x00RRGGBB; or (H, W, 3 or 4) for an
        organised cloud with NaN where nothing is known.
    """
    layout = np.dtype([(name, "<f4") for name in ("x", "y", "z", "rgb")[: points.shape[-1]]])
    cloud = np.ascontiguousarray(points, "<f4").view(layout)[..., 0]
    return structured_cloud(cloud, head, is_dense=points.ndim == 2)


def read_cloud(message: PointCloud2, names: Iterable[str]) -> np.ndarray:
    """The named FLOAT32 and UINT32 fields of a PointCloud2 -> (height * width,) structured array.

    ImageError when a field is missing or of another type, or when there is less data than the header says.
    """
    types = {PointField.FLOAT32: "f4", PointField.UINT32: "u4"}
    order = ">" if message.is_bigendian else "<"
    known = {f.name: (order + types[f.datatype], f.offset) for f in message.fields if f.datatype in types}
    names = list(names)
    if missing := [name for name in names if name not in known]:
        raise ImageError(f"point cloud without the fields {missing}; it has {[f.name for f in message.fields]}")
    if message.point_step >= 2**31:  # even of a cloud without points: NumPy has no such type
        raise ImageError(f"point cloud of {message.point_step} bytes a point; less than 2 GiB are expected")
    row = message.width * message.point_step
    if message.row_step < row or len(message.data) < message.height * message.row_step:
        raise ImageError(
            f"point cloud of {message.width} x {message.height} points of {message.point_step} bytes, "
            f"row_step {message.row_step}, with only {len(message.data)} bytes of data"
        )
    if any(known[name][1] + 4 > message.point_step for name in names):
        raise ImageError(f"point cloud whose fields do not fit into its point_step of {message.point_step} bytes")
    layout = np.dtype(
        {
            "names": names,
            "formats": [known[name][0] for name in names],
            "offsets": [known[name][1] for name in names],
            "itemsize": max(message.point_step, 1),
        }
    )
    data = np.frombuffer(message.data, np.uint8, message.height * message.row_step)
    return np.ascontiguousarray(data.reshape(message.height, message.row_step)[:, :row]).view(layout).ravel()


# ---------------------------------------------------------------------------------------------------------- matches
MATCH = np.dtype(
    [
        ("u", "<f4"),
        ("v", "<f4"),
        ("u'", "<f4"),
        ("v'", "<f4"),
        ("score", "<f4"),
        ("reference_sec", "<u4"),
        ("reference_nanosec", "<u4"),
    ]
)


MAX_MATCHES = 20_000
"""As many as the parameter max_matches allows."""


@dataclass(frozen=True)
class StampedMatches:
    """Matches between a reference frame and the current one, as they travel from flow_node to pose_node.

    stamp_ns, frame_id: of the current image.
    reference_stamp_ns: of the frame that ``matches.points_1`` lie in; None for a first frame, which has no matches.
    matches:            in pixels of the rectified image.
    """

    stamp_ns: int
    frame_id: str
    reference_stamp_ns: int | None
    matches: Matches


def matches_message(stamped: StampedMatches) -> PointCloud2:
    """Matches -> PointCloud2 with the fields u, v (reference image), u', v' (current image), score.

    The header carries the current image's stamp and optical frame. The reference image's stamp is in two fields of
    its own, the same in every point, so that it needs no convention about frame names and survives bags and bridges.
    A pair of frames without any match is one point of NaN with score 0; a first frame is an empty cloud.
    """
    count = len(stamped.matches)
    if stamped.reference_stamp_ns is None:
        cloud = np.empty(0, MATCH)
    else:
        nothing = np.array((np.nan, np.nan, np.nan, np.nan, 0.0, 0, 0), MATCH)
        cloud = np.full(max(count, 1), nothing)
        if count:
            cloud["u"], cloud["v"] = stamped.matches.points_1.T
            cloud["u'"], cloud["v'"] = stamped.matches.points_2.T
            cloud["score"] = stamped.matches.scores
        reference = time_message(stamped.reference_stamp_ns)
        cloud["reference_sec"] = reference.sec & 0xFFFFFFFF
        cloud["reference_nanosec"] = reference.nanosec
    return structured_cloud(cloud, header(stamped.stamp_ns, stamped.frame_id), is_dense=count > 0)


def matches_from_message(message: PointCloud2) -> StampedMatches:
    """The inverse of :func:`matches_message`. ImageError when the cloud holds no matches of this form."""
    cloud = read_cloud(message, MATCH.names)
    if len(cloud) > MAX_MATCHES:
        raise ImageError(f"point cloud of {len(cloud)} matches; at most {MAX_MATCHES} are taken")
    reference = None
    if len(cloud):
        sec = int(np.array(cloud["reference_sec"][0]).astype(np.int32))
        reference = sec * NANOSECONDS + int(cloud["reference_nanosec"][0])
    cloud = cloud[np.logical_and.reduce([np.isfinite(cloud[name]) for name in ("u", "v", "u'", "v'", "score")])]
    points_1, points_2 = (
        np.stack([cloud[u], cloud[v]], axis=1).astype(np.float32) for u, v in (("u", "v"), ("u'", "v'"))
    )
    matches = Matches(points_1, points_2, cloud["score"].astype(np.float32))
    return StampedMatches(stamp_ns(message.header.stamp), message.header.frame_id, reference, matches)


# ------------------------------------------------------------------------------------------------------ diagnostics
def diagnostic_status(
    level: bytes, name: str, message: str, values: Mapping[str, Any], hardware_id: str = ""
) -> DiagnosticStatus:
    """diagnostic_msgs/DiagnosticStatus; floats with six digits, booleans as true and false."""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    pairs = [KeyValue(key=key, value=text(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id, values=pairs)
