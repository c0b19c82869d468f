"""flow_node, depth_node and pose_node together: the same parts as vo_node, in three processes."""

import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from ros_helpers import LATCHED, PERIOD, START, NodeProcess, Peer, Room, stamps, values
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines import available_models
from depth_pose_ros.engines.manifest import DEFAULT_MODELS
from depth_pose_ros.geometry.se3 import make_pose, so3_exp
from depth_pose_ros.images import INLIER
from depth_pose_ros.nodes import messages

pytestmark = pytest.mark.skipif(
    not set(DEFAULT_MODELS.values()) <= set(available_models()), reason="the default networks are not in models/"
)

CAMERA = PinholeCamera(320, 192, 200.0, 200.0, 159.5, 95.5)
UNSCALED = [f"{topic}:=network_{topic}" for topic in ("depth/image", "depth/camera_info")] + [
    "points:=network_depth/points"
]


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture(scope="module")
def peer():
    one = Peer()
    yield one
    one.close()


@pytest.fixture(scope="module")
def nodes(peer):
    """All four, vo_node in a namespace of its own that sees the same images."""
    started = {
        "flow_node": NodeProcess("flow_node"),
        "depth_node": NodeProcess(
            "depth_node", *(part for rule in UNSCALED for part in ("-r", rule)), "-p", "depth_at_image_size:=false"
        ),
        "pose_node": NodeProcess("pose_node"),
        "vo_node": NodeProcess(
            "vo_node", "-r", "__ns:=/composed", "-r", "image:=/image", "-r", "camera_info:=/camera_info"
        ),
    }
    for topic in ("odom", "/composed/odom"):
        peer.listen(Odometry, topic)
    for topic in ("status", "/composed/status"):
        peer.listen(DiagnosticArray, topic, LATCHED)
    peer.listen(PointCloud2, "flow/matches", 30)
    peer.listen(CameraInfo, "flow/camera_info", 30)
    peer.listen(Image, "network_depth/image")
    peer.listen(Image, "depth/image")
    peer.listen(Image, "flow/image")
    peer.listen(Image, "matches/image")
    peer.listen(PointCloud2, "points")
    peer.listen(TFMessage, "/tf")
    for name in ("flow_node", "depth_node", "vo_node"):
        started[name].wait_for(" runs at ", spin=peer.spin)
    room = Room(CAMERA)
    # Frames until every node has heard of every other; what they say of these is forgotten again.
    for index in range(100):
        stamp = START - (100 - index) * PERIOD
        peer.send(room.view(np.eye(4)), stamp, CAMERA)
        peer.spin(1.0)
        if all(peer.got[topic] for topic in peer.got):
            break
    peer.spin_until(lambda: all(stamp in stamps(peer.got[t]) for t in ("status", "/composed/status")), what="quiet")
    for name in ("/pose_node", "/composed/vo_node"):
        assert peer.call(Trigger, f"{name}/reset", Trigger.Request()).success
    peer.spin(0.5)
    for received in peer.got.values():
        received.clear()
    yield started
    for node in started.values():
        assert node.stop() == 0, node.said
        assert "Traceback" not in node.said


def poses(odometry):
    result = {}
    for odom in odometry:
        q, p = odom.pose.pose.orientation, odom.pose.pose.position
        result[messages.stamp_ns(odom.header.stamp)] = (np.array([p.x, p.y, p.z]), np.array([q.x, q.y, q.z, q.w]))
    return result


def answers(peer, image, sent):
    """Send an image with the last stamp of ``sent``; what pose_node says of any of these, by stamp, after a second at
    most: between nodes that do not know each other yet a frame is lost.
    """
    peer.send(image, sent[-1], CAMERA)
    end = time.monotonic() + 1.0
    while sent[-1] not in stamps(peer.got["status"]) and time.monotonic() < end:
        peer.spin(0.05)
    told = {messages.stamp_ns(status.header.stamp): status for status in peer.got["status"]}
    return {stamp: told[stamp] for stamp in sent if stamp in told}


def test_split_nodes_give_what_vo_node_gives(nodes, peer):
    room = Room(CAMERA)
    T, step = np.eye(4), make_pose(so3_exp(np.array([0.0, -0.02, 0.0])), np.array([0.0, 0.0, 0.25]))
    T[2, 3] = -3.0
    sent = []
    for index in range(6):
        sent.append(START + index * PERIOD)
        peer.send(room.view(T), sent[-1], CAMERA)
        for topic in ("status", "/composed/status"):
            peer.spin_until(lambda t=topic: sent[-1] in stamps(peer.got[t]), what=f"{topic} of frame {index}")
        T = T @ step
    peer.spin(0.5)

    inside = ("flow/matches", "flow/camera_info", "network_depth/image")
    for topic in (*inside, "status", "depth/image", "points", "matches/image"):
        assert stamps(peer.got[topic]) == sent, topic
    for topic in ("odom", "/composed/odom"):
        assert stamps(peer.got[topic]) == sent[1:], topic
    assert messages.camera_from_message(peer.got["flow/camera_info"][-1]) == CAMERA
    matches = messages.matches_from_message(peer.got["flow/matches"][-1])
    assert matches.reference_stamp_ns == sent[-2] and len(matches.matches) > 500
    assert peer.got["network_depth/image"][-1].width < 320 and peer.got["depth/image"][-1].width == 320
    assert values(peer.got["status"][-1])["state"] == "tracking"
    picture = messages.image_from_message(peer.got["matches/image"][-1])
    assert picture.shape == (192, 320, 3) and (picture == INLIER[::-1]).all(axis=2).sum() > 100

    split, composed = poses(peer.got["odom"]), poses(peer.got["/composed/odom"])
    length = np.linalg.norm(composed[sent[-1]][0])
    assert np.linalg.norm(split[sent[-1]][0] - composed[sent[-1]][0]) < 0.03 * length
    np.testing.assert_allclose(split[sent[-1]][1], composed[sent[-1]][1], atol=2e-3)


def test_a_restarted_flow_node_goes_on_at_the_last_pose(nodes, peer):
    room = Room(CAMERA)
    before = poses(peer.got["odom"])[max(poses(peer.got["odom"]))][0]
    assert nodes["flow_node"].stop() == 0
    nodes["flow_node"] = NodeProcess("flow_node")
    nodes["flow_node"].wait_for(" runs at ", spin=peer.spin)
    sent, answered = [], []
    while len(answered) < 4 and len(sent) < 100:  # until pose_node has heard of the new flow_node, and three more
        view = make_pose(np.eye(3), np.array([0.0, 0.0, -3.0 + 0.1 * len(sent)]))
        sent.append(START + (100 + len(sent)) * PERIOD)
        answered = answers(peer, room.view(view), sent)
    assert len(answered) >= 4
    peer.spin(0.3)
    after = poses(peer.got["odom"])[max(answered)][0]
    assert 0.0 < after[0] - before[0] < 10 * np.linalg.norm(before)
    assert not any("Traceback" in node.said for node in nodes.values())


def test_a_pose_node_that_is_killed_and_started_again_goes_on_although_the_camera_stands_still(nodes, peer):
    """A reference frame that flow_node keeps is one that the new pose_node never heard of."""
    room, first = Room(CAMERA), START + 1000 * PERIOD
    nodes["pose_node"].stop(signal.SIGKILL)
    nodes["pose_node"] = NodeProcess("pose_node")
    nodes["pose_node"].wait_for("scale_source", spin=peer.spin)
    sent, states = [], []
    while "stationary" not in states and len(sent) < 60:
        sent.append(first + len(sent) * PERIOD)
        told = [values(status) for status in answers(peer, room.view(np.eye(4)), sent).values()]
        states = [one["state"] for one in told if "waiting for a frame with depth" not in one["reason"]]
    assert states[-1] == "stationary" and len(states) <= 3, states


def test_pose_node_resets(nodes, peer):
    answer = peer.call(Trigger, "/pose_node/reset", Trigger.Request())
    assert answer.success and "origin" in answer.message


def test_pose_node_refuses_matches_that_are_none(nodes, peer):
    publisher = peer.node.create_publisher(PointCloud2, "flow/matches", 30)
    peer.spin_until(lambda: publisher.get_subscription_count() > 0)
    peer.spin(0.2)
    publisher.publish(messages.cloud_message(np.zeros((5, 3), np.float32), messages.header(START, "camera")))
    nodes["pose_node"].wait_for("refused: flow/matches: point cloud without the fields", spin=peer.spin)
    peer.node.destroy_publisher(publisher)
