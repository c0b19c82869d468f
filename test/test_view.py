"""What the viewer records of a run and of ROS topics, read back by rerun's own tool."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rerun")

from test_cli import estimate_with_depth

from depth_pose_ros import view
from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.geometry.se3 import make_pose, so3_exp
from depth_pose_ros.odometry import Frame

CAMERA = PinholeCamera(64, 48, 50.0, 50.0, 31.5, 23.5)
DEPTH = np.full((24, 32), 4.0, np.float32)


def entities(file: Path) -> Counter:
    """How many rows each entity of a recording has."""
    tool = Path(sys.executable).with_name("rerun")
    environment = {**os.environ, "HOME": str(file.parent)}  # its notice of the first start, and its settings
    words = [tool, "rrd", "print", "-v", file]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    rows = Counter()
    for count, entity in re.findall(r"with (\d+) rows .*? - /(\S+) - data", done.stdout):
        rows[entity] += int(count)
    return rows


def poses(count: int) -> list[np.ndarray]:
    return [make_pose(so3_exp(np.array([0, 0.01 * i, 0])), np.array([0, 0, 0.1 * i])) for i in range(count)]


def test_a_run(tmp_path):
    said = []
    viewer = view.Viewer("test", tmp_path / "deep" / "view.rrd", said.append, live=False)
    depth = DEPTH.copy()
    depth[0, 0] = np.nan
    for i, T in enumerate(poses(3)):
        image = np.full((48, 64, 3), 40 * i, np.uint8)
        frame = Frame(10**9 * (i + 1), image, image[..., 0], CAMERA)
        viewer.show(frame, estimate_with_depth(depth, T, CAMERA.resized(32, 24)))
    viewer.close()
    assert str(tmp_path / "deep" / "view.rrd") in said[0]
    rows = entities(tmp_path / "deep" / "view.rrd")
    for entity in ("world/camera", "world/camera/points", "world/camera/image/matches", "world/covariance"):
        assert rows[entity] == 3, entity
    assert rows["world/camera/image"] == rows["world/camera/depth"] == 6  # each with its camera
    assert rows["world/path"] == 2 and rows["state"] == 1  # told when it changes
    assert rows["plots/matches/inliers"] == rows["plots/scale/spread"] == rows["plots/ms/flow"] == 3


def test_without_rerun_it_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(ConfigError, match=r"-m pip install .*rerun"):
        view.Viewer("test", tmp_path / "view.rrd", print)


def test_ros_topics(tmp_path):
    """view_node in a process of its own, fed with what vo_node publishes with a base frame."""
    rclpy = pytest.importorskip("rclpy")
    from nav_msgs.msg import Odometry
    from ros_helpers import LATCHED, START, NodeProcess, Peer
    from sensor_msgs.msg import CameraInfo, Image, PointCloud2
    from tf2_msgs.msg import TFMessage

    from depth_pose_ros.geometry.point_cloud import PointCloud
    from depth_pose_ros.nodes import messages

    rclpy.init(args=[])
    peer = Peer()
    node = NodeProcess("view_node", "-p", f"file:={tmp_path / 'view.rrd'}", DISPLAY="", WAYLAND_DISPLAY="")
    try:
        publishers = {
            topic: peer.node.create_publisher(kind, topic, 10)
            for topic, kind in {
                "depth/image": Image,
                "depth/camera_info": CameraInfo,
                "flow/image": Image,
                "matches/image": Image,
                "points": PointCloud2,
                "odom": Odometry,
            }.items()
        }
        transforms = peer.node.create_publisher(TFMessage, "/tf_static", LATCHED)
        head = messages.header(0, "base_link")
        transforms.publish(TFMessage(transforms=[messages.transform_message(np.eye(4), head, "camera")]))
        node.wait_for("Recording what", spin=peer.spin)
        everyone = (*publishers.values(), peer.images)
        peer.spin_until(lambda: all(p.get_subscription_count() for p in everyone), what="the viewer subscribes")
        cloud = PointCloud(CAMERA.resized(32, 24)).xyz_rgb(DEPTH, np.full((24, 32, 3), 90, np.uint8)).reshape(-1, 4)
        picture = np.full((48, 64, 3), 200, np.uint8)
        for i, T in enumerate(poses(5)):
            head = messages.header(START + i * 10**8, "camera")
            publishers["depth/camera_info"].publish(messages.camera_info_message(CAMERA.resized(32, 24), head))
            peer.spin(0.15)  # the camera is known before what it saw, as after the first frames of a real one
            publishers["depth/image"].publish(messages.image_message(DEPTH, head))
            publishers["flow/image"].publish(messages.image_message(picture, head))
            publishers["matches/image"].publish(messages.image_message(picture, head))
            publishers["points"].publish(messages.cloud_message(cloud, head))
            covariance = 0.01 * np.eye(6)
            of_odom = messages.header(START + i * 10**8, "odom")
            publishers["odom"].publish(
                messages.odometry_message(of_odom, "base_link", T, covariance, np.zeros(6), covariance)
            )
            peer.images.publish(messages.image_message(picture, head))
            peer.spin(0.15)
        assert node.stop() == 0
    finally:
        peer.close()
        rclpy.shutdown()
    rows = entities(tmp_path / "view.rrd")
    wanted = ("world/camera", "world/path", "world/covariance", "world/camera/points", "world/camera/depth")
    assert all(rows[entity] >= 2 for entity in (*wanted, "world/camera/image", "flow", "matches")), rows
    assert "is not shown" not in node.said


def test_a_transport_that_is_none_is_refused():
    rclpy = pytest.importorskip("rclpy")
    from depth_pose_ros.nodes.view_node import ViewNode

    rclpy.init(args=["--ros-args", "-p", "image_transport:=zip"])
    try:
        with pytest.raises(ConfigError, match="image_transport = 'zip'; expected raw or compressed"):
            ViewNode()
    finally:
        rclpy.shutdown()


def test_a_raw_image_is_shown_as_the_depth_sees_it(tmp_path, monkeypatch):
    """Rectified with the camera_info beside it; what comes as image_rect stays as it is."""
    rclpy = pytest.importorskip("rclpy")
    from depth_pose_ros.camera import CameraModel, Rectifier
    from depth_pose_ros.nodes import messages
    from depth_pose_ros.nodes.view_node import ViewNode

    for screen in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(screen, raising=False)
    raw = CameraModel.from_pinhole(CAMERA, (-0.3, 0.1, 0.0, 0.0, 0.0))
    head = messages.header(10**9, "camera")
    image = np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    info = messages.camera_info_message(CAMERA, head)
    info.d = [-0.3, 0.1, 0.0, 0.0, 0.0]
    shown, told = {}, []
    for topic in ("image", "image_rect"):
        rclpy.init(args=["--ros-args", "-r", f"image:=camera/{topic}", "-p", f"file:={tmp_path / topic}.rrd"])
        node = ViewNode()
        try:
            assert node.count_subscribers("camera/camera_info") == (topic == "image")
            monkeypatch.setattr(node.viewer, "image", lambda picture, _, name=topic: shown.update({name: picture}))
            if topic == "image":
                node._raw_camera_info(info)
                node.get_logger().warning = told.append
                node._tell_silence()
            node._image(messages.image_message(image, head))
        finally:
            node.close()
            node.destroy_node()
            rclpy.shutdown()
    np.testing.assert_array_equal(shown["image"], Rectifier(raw)(image))
    np.testing.assert_array_equal(shown["image_rect"], image)
    assert "nothing to show yet: no publisher on /camera/image; no publisher on /camera/camera_info" in told[0]
