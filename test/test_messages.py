# ruff: noqa: E402 (imports that need ROS come after the skip)
"""Messages both ways, against rosbags as an independent reader and writer of what goes over the wire."""

import math

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
rosbags_typesys = pytest.importorskip("rosbags.typesys", reason="needs rosbags")

from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import PoseStamped
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from depth_pose_ros.camera import CameraModel, PinholeCamera
from depth_pose_ros.errors import CameraError, ImageError
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.se3 import inverse, se3_exp
from depth_pose_ros.nodes import messages

STORE = rosbags_typesys.get_typestore(rosbags_typesys.Stores.ROS2_HUMBLE)
STAMP = 1_700_000_000_123_456_789
HEAD = messages.header(STAMP, "camera_optical_frame")


def seen_by_rosbags(message, type_name):
    return STORE.deserialize_cdr(bytes(serialize_message(message)), type_name)


def sent_by_rosbags(type_name, message_class, **fields):
    message = STORE.types[type_name](**fields)
    return deserialize_message(bytes(STORE.serialize_cdr(message, type_name)), message_class)


def foreign_header(frame_id="camera_optical_frame"):
    time = STORE.types["builtin_interfaces/msg/Time"](sec=1_700_000_000, nanosec=123_456_789)
    return STORE.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id)


def check_header(header):
    assert (header.stamp.sec, header.stamp.nanosec) == (1_700_000_000, 123_456_789)
    assert header.frame_id == "camera_optical_frame"


@pytest.mark.parametrize("nanoseconds", [0, STAMP, -1, -5_000_000_001])
def test_stamps_are_exact(nanoseconds):
    assert messages.stamp_ns(messages.time_message(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    "image, encoding",
    [
        (np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3), "bgr8"),
        (np.arange(35, dtype=np.uint8).reshape(5, 7), "mono8"),
        (np.arange(35, dtype=np.uint16).reshape(5, 7) * 1000, "16UC1"),
        (np.array([[0.5, math.nan], [1e-3, 80.0]], np.float32), "32FC1"),
        (np.arange(5 * 14 * 3, dtype=np.uint8).reshape(5, 14, 3)[:, ::2], "bgr8"),  # not contiguous
    ],
)
def test_image_message_says_what_the_array_holds(image, encoding):
    seen = seen_by_rosbags(messages.image_message(image, HEAD), "sensor_msgs/msg/Image")
    check_header(seen.header)
    assert (seen.height, seen.width, seen.encoding, seen.is_bigendian) == (*image.shape[:2], encoding, 0)
    assert seen.step == image.shape[1] * image[0, 0].nbytes
    np.testing.assert_array_equal(np.frombuffer(seen.data, image.dtype).reshape(image.shape), image)


def test_image_of_a_foreign_publisher_with_padded_rows():
    image = np.random.default_rng(1).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    padded = np.zeros((4, 32), np.uint8)
    padded[:, :18] = image.reshape(4, 18)
    message = sent_by_rosbags(
        "sensor_msgs/msg/Image",
        Image,
        header=foreign_header(),
        height=4,
        width=6,
        encoding="rgb8",
        is_bigendian=0,
        step=32,
        data=padded.ravel(),
    )
    np.testing.assert_array_equal(messages.image_from_message(message), image[..., ::-1])


def test_compressed_image_of_a_foreign_publisher():
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(2).integers(0, 255, (8, 9, 3), dtype=np.uint8)
    message = sent_by_rosbags(
        "sensor_msgs/msg/CompressedImage",
        CompressedImage,
        header=foreign_header(),
        format="bgr8; png compressed bgr8",
        data=cv2.imencode(".png", image)[1].ravel(),
    )
    np.testing.assert_array_equal(messages.image_from_compressed(message), image)


def test_depth_of_a_foreign_publisher_in_millimetres():
    data = np.array([[0, 1000, 65535]], "<u2")
    message = sent_by_rosbags(
        "sensor_msgs/msg/Image",
        Image,
        header=foreign_header(),
        height=1,
        width=3,
        encoding="16UC1",
        is_bigendian=0,
        step=6,
        data=data.view(np.uint8).ravel(),
    )
    np.testing.assert_allclose(messages.depth_from_message(message), [[np.nan, 1.0, 65.535]], rtol=1e-6)


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="0 x 0"):
        messages.image_from_message(Image(encoding="bgr8"))


def test_camera_info_of_a_rectified_image():
    camera = PinholeCamera(640, 192, 320.5, 310.25, 319.0, 95.5)
    seen = seen_by_rosbags(messages.camera_info_message(camera, HEAD), "sensor_msgs/msg/CameraInfo")
    check_header(seen.header)
    assert (seen.width, seen.height, seen.distortion_model) == (640, 192, "plumb_bob")
    np.testing.assert_array_equal(seen.d, np.zeros(5))
    np.testing.assert_array_equal(seen.k.reshape(3, 3), camera.K)
    np.testing.assert_array_equal(seen.r.reshape(3, 3), np.eye(3))
    np.testing.assert_array_equal(seen.p.reshape(3, 4), np.hstack([camera.K, np.zeros((3, 1))]))
    assert (seen.binning_x, seen.binning_y, seen.roi.width, seen.roi.height) == (0, 0, 0, 0)
    assert messages.camera_from_message(messages.camera_info_message(camera, HEAD)) == camera


def test_camera_info_without_calibration_is_refused():
    with pytest.raises(CameraError, match=r"K\[0\] = 0"):
        CameraModel.from_camera_info(CameraInfo(width=640, height=480))


def test_odometry_keeps_frames_order_and_covariance():
    T = se3_exp(np.array([1.0, -2.0, 3.0, 0.3, -0.5, 0.7]))
    pose_covariance, twist_covariance = np.arange(36.0).reshape(6, 6), np.arange(36.0, 72.0).reshape(6, 6)
    twist = np.array([1.0, 2.0, 3.0, 0.1, 0.2, 0.3])
    message = messages.odometry_message(HEAD, "base_link", T, pose_covariance, twist, twist_covariance)
    seen = seen_by_rosbags(message, "nav_msgs/msg/Odometry")
    check_header(seen.header)
    assert seen.child_frame_id == "base_link"
    position, q = seen.pose.pose.position, seen.pose.pose.orientation
    np.testing.assert_allclose([position.x, position.y, position.z], T[:3, 3])
    assert math.isclose(q.x**2 + q.y**2 + q.z**2 + q.w**2, 1.0)
    forward = [1 - 2 * (q.y**2 + q.z**2), 2 * (q.x * q.y + q.z * q.w), 2 * (q.x * q.z - q.y * q.w)]
    np.testing.assert_allclose(forward, T[:3, 0], atol=1e-12)
    np.testing.assert_array_equal(seen.pose.covariance, pose_covariance.ravel())
    linear, angular = seen.twist.twist.linear, seen.twist.twist.angular
    np.testing.assert_array_equal([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z], twist)
    np.testing.assert_array_equal(seen.twist.covariance, twist_covariance.ravel())


def test_transform_there_and_back():
    T = se3_exp(np.array([0.1, 0.2, -0.3, 1.0, -2.0, 0.5]))
    message = messages.transform_message(T, HEAD, "base_link")
    seen = seen_by_rosbags(TFMessage(transforms=[message]), "tf2_msgs/msg/TFMessage").transforms[0]
    check_header(seen.header)
    assert seen.child_frame_id == "base_link"
    translation = seen.transform.translation
    np.testing.assert_allclose([translation.x, translation.y, translation.z], T[:3, 3])
    np.testing.assert_allclose(messages.transform_from_message(message), T, atol=1e-12)


def test_a_null_quaternion_is_refused():
    message = messages.transform_message(np.eye(4), HEAD, "base_link")
    message.transform.rotation.w = 0.0
    with pytest.raises(ValueError, match="camera_optical_frame -> base_link has the quaternion"):
        messages.transform_from_message(message)


def test_path():
    poses = [PoseStamped(header=HEAD, pose=messages.pose_message(se3_exp(np.full(6, 0.1 * i)))) for i in range(3)]
    seen = seen_by_rosbags(messages.path_message(HEAD, poses), "nav_msgs/msg/Path")
    assert len(seen.poses) == 3
    assert seen.poses[2].pose.position.x == poses[2].pose.position.x


@pytest.mark.parametrize("organised", [False, True])
def test_cloud_carries_colour_as_packed_float(organised):
    rng = np.random.default_rng(3)
    shape = (3, 4) if organised else (12,)
    points = rng.normal(size=(*shape, 3)).astype(np.float32)
    colours = rng.integers(0, 255, (*shape, 3), dtype=np.uint8)
    if organised:
        points[1, 1] = np.nan
    bgr0 = np.concatenate([colours, np.zeros((*shape, 1), np.uint8)], axis=-1)
    packed = bgr0.view(np.float32)
    seen = seen_by_rosbags(
        messages.cloud_message(np.concatenate([points, packed], axis=-1), HEAD), "sensor_msgs/msg/PointCloud2"
    )
    check_header(seen.header)
    assert (seen.height, seen.width) == (shape if organised else (1, 12))
    assert (seen.point_step, seen.row_step, seen.is_dense) == (16, 16 * seen.width, not organised)
    layout = [(field.name, field.offset, field.datatype, field.count) for field in seen.fields]
    assert layout == [("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1)]
    raw = seen.data.reshape(-1, 16)
    np.testing.assert_array_equal(raw[:, :12].copy().view("<f4"), points.reshape(-1, 3))
    bits = raw[:, 12:].copy().view("<u4")[:, 0]
    bgr = np.stack([bits & 255, bits >> 8 & 255, bits >> 16 & 255, bits >> 24], axis=1)
    np.testing.assert_array_equal(bgr, np.column_stack([colours.reshape(-1, 3), np.zeros(12)]))


def test_cloud_without_points_or_colours():
    seen = seen_by_rosbags(messages.cloud_message(np.zeros((0, 3), np.float32), HEAD), "sensor_msgs/msg/PointCloud2")
    assert (seen.width, seen.height, len(seen.data), [f.name for f in seen.fields]) == (0, 1, 0, ["x", "y", "z"])


def some_matches(count):
    rng = np.random.default_rng(4)
    points = rng.uniform(0, 600, (2, count, 2)).astype(np.float32)
    return Matches(points[0], points[1], rng.uniform(0, 10, count).astype(np.float32))


@pytest.mark.parametrize("count, reference", [(5, STAMP - 100_000_000), (0, STAMP - 1), (0, None), (3, -7)])
def test_matches_there_and_back(count, reference):
    sent = messages.StampedMatches(STAMP, "camera_optical_frame", reference, some_matches(count))
    got = messages.matches_from_message(messages.matches_message(sent))
    assert (got.stamp_ns, got.frame_id, got.reference_stamp_ns) == (STAMP, "camera_optical_frame", reference)
    for name in ("points_1", "points_2", "scores"):
        np.testing.assert_array_equal(getattr(got.matches, name), getattr(sent.matches, name))


def test_matches_are_plain_fields_to_everybody_else():
    sent = messages.StampedMatches(STAMP, "camera_optical_frame", STAMP - 100_000_000, some_matches(5))
    seen = seen_by_rosbags(messages.matches_message(sent), "sensor_msgs/msg/PointCloud2")
    assert [field.name for field in seen.fields] == [
        "u",
        "v",
        "u'",
        "v'",
        "score",
        "reference_sec",
        "reference_nanosec",
    ]
    rows = seen.data.reshape(5, seen.point_step)
    np.testing.assert_array_equal(rows[:, :8].copy().view("<f4"), sent.matches.points_1)
    np.testing.assert_array_equal(rows[:, 8:16].copy().view("<f4"), sent.matches.points_2)
    assert rows[0, 20:28].copy().view("<u4").tolist() == [1_700_000_000, 23_456_789]


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda m: m.fields.pop(0), "without the fields"),
        (lambda m: setattr(m, "data", m.data[:-1]), "bytes of data"),
        (lambda m: setattr(m, "width", 100), "bytes of data"),
        (lambda m: setattr(m, "point_step", 20), "point_step of 20"),
        (lambda m: (setattr(m, "width", 0), setattr(m, "point_step", 2**31)), "2147483648 bytes a point"),
    ],
)
def test_clouds_that_lie_about_themselves_are_refused(spoil, reason):
    message = messages.matches_message(messages.StampedMatches(STAMP, "c", STAMP - 1, some_matches(5)))
    spoil(message)
    with pytest.raises(ImageError, match=reason):
        messages.matches_from_message(message)


def test_cloud_of_a_foreign_publisher_with_gaps_and_big_endian():
    values = np.zeros((2, 24), np.uint8)
    values[:, 8:12] = np.array([1.5, -2.5], ">f4").reshape(2, 1).view(np.uint8)
    field = STORE.types["sensor_msgs/msg/PointField"]
    message = sent_by_rosbags(
        "sensor_msgs/msg/PointCloud2",
        PointCloud2,
        header=foreign_header(),
        height=1,
        width=2,
        fields=[field(name="q", offset=0, datatype=8, count=1), field(name="u", offset=8, datatype=7, count=1)],
        is_bigendian=True,
        point_step=24,
        row_step=48,
        data=values.ravel(),
        is_dense=True,
    )
    assert messages.read_cloud(message, ["u"])["u"].tolist() == [1.5, -2.5]


def test_diagnostic_status():
    status = messages.diagnostic_status(
        DiagnosticStatus.ERROR, "vo_node: odometry", "lost", {"metric": False, "scale": 0.5, "matches": 12}, "camera"
    )
    seen = seen_by_rosbags(status, "diagnostic_msgs/msg/DiagnosticStatus")
    assert (seen.level, seen.name, seen.message, seen.hardware_id) == (2, "vo_node: odometry", "lost", "camera")
    assert {pair.key: pair.value for pair in seen.values} == {"metric": "false", "scale": "0.5", "matches": "12"}


def test_filling_an_image_takes_no_look_at_every_element():
    """Field checks on (test runs set ROS_PYTHON_CHECK_FIELDS=1): 0.1 ms the right way, 200 ms the wrong ways."""
    import time

    image = np.zeros((376, 1241, 3), np.uint8)
    start = time.perf_counter()
    for _ in range(5):
        messages.image_message(image, HEAD)
    assert time.perf_counter() - start < 0.25


def test_inverse_of_a_transform_is_the_transform_back():
    T = se3_exp(np.array([0.1, 0.2, -0.3, 1.0, -2.0, 0.5]))
    back = messages.transform_from_message(messages.transform_message(inverse(T), HEAD, "base_link"))
    np.testing.assert_allclose(back @ T, np.eye(4), atol=1e-12)
