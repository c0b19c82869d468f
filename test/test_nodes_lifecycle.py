"""Nodes as lifecycle nodes: what they do in each state, and that they leave nothing behind."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from nav_msgs.msg import Odometry
from ros_helpers import LATCHED, PERIOD, START, NodeProcess, Peer, Room, stamps
from std_srvs.srv import SetBool

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines import available_models
from depth_pose_ros.engines.manifest import DEFAULT_MODELS
from depth_pose_ros.geometry.se3 import make_pose

pytestmark = pytest.mark.skipif(
    not set(DEFAULT_MODELS.values()) <= set(available_models()), reason="the default networks are not in models/"
)

CAMERA = PinholeCamera(320, 192, 200.0, 200.0, 159.5, 95.5)


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture
def peer():
    one = Peer()
    yield one
    one.close()


def test_a_managed_node_works_only_while_it_is_active(peer):
    node = NodeProcess("vo_node", "-p", "autostart:=false")
    peer.listen(DiagnosticArray, "status", LATCHED)
    peer.listen(Odometry, "odom")
    peer.listen(DiagnosticArray, "/diagnostics")
    node.wait_for("autostart is false: the node is not configured; call `ros2 lifecycle set /vo_node configure`")
    room, indices = Room(CAMERA), iter(range(1000))

    def state():
        return peer.call(GetState, "/vo_node/get_state", GetState.Request()).current_state.label

    def change(transition):
        request = ChangeState.Request(transition=Transition(id=transition))
        return peer.call(ChangeState, "/vo_node/change_state", request).success

    def send():
        index = next(indices)
        T = make_pose(np.eye(3), np.array([0.0, 0.0, -3.0 + 0.1 * (index % 20)]))
        peer.send(room.view(T), START + index * PERIOD, CAMERA)
        return START + index * PERIOD

    def drive(count):
        for _ in range(count):
            stamp = send()
            peer.spin_until(lambda s=stamp: s in stamps(peer.got["status"]), what="status")
        peer.spin(0.2)

    assert state() == "unconfigured" and peer.images.get_subscription_count() == 0
    assert not change(Transition.TRANSITION_ACTIVATE)
    assert change(Transition.TRANSITION_CONFIGURE) and state() == "inactive"
    node.wait_for(" runs at ", spin=peer.spin)
    peer.spin_until(lambda: peer.images.get_subscription_count() > 0, what="the node subscribes")
    peer.shake_hands("vo_node")
    send()
    refused = peer.call(SetBool, "/vo_node/pause", SetBool.Request(data=False))
    assert not refused.success and "not active" in refused.message

    assert change(Transition.TRANSITION_ACTIVATE)
    drive(4)
    before = peer.got["odom"][-1].pose.pose.position.x
    assert before > 0

    assert change(Transition.TRANSITION_DEACTIVATE)
    answered = len(peer.got["status"])
    send()
    peer.spin(0.5)
    assert len(peer.got["status"]) == answered == 4
    assert change(Transition.TRANSITION_ACTIVATE)
    drive(3)
    assert peer.got["odom"][-1].pose.pose.position.x > before  # the pose went on from where it was

    # A clean node has no topics; configured again it starts at the origin.
    assert change(Transition.TRANSITION_DEACTIVATE) and change(Transition.TRANSITION_CLEANUP)
    peer.spin_until(lambda: peer.node.count_publishers("odom") == 0, what="no odometry any more")
    assert change(Transition.TRANSITION_CONFIGURE) and change(Transition.TRANSITION_ACTIVATE)
    peer.spin_until(lambda: peer.images.get_subscription_count() > 0, what="the node subscribes again")
    peer.shake_hands("vo_node")
    peer.spin_until(lambda: sum(" runs at " in line for line in node.lines) == 4, what="the networks again")
    drive(3)
    assert 0 < peer.got["odom"][-1].pose.pose.position.x < before
    messages = {status.message for array in peer.got["/diagnostics"] for status in array.status}
    assert "running" in messages
    assert node.stop() == 0 and "Traceback" not in node.said, node.said


def segments(pid):
    """The shared-memory segments of Fast DDS that a process has mapped, but for the ports that many share."""
    maps = Path(f"/proc/{pid}/maps")
    if not maps.exists():
        pytest.skip("this system does not tell what a process has mapped")
    names = {line.split()[-1] for line in maps.read_text().splitlines() if "/dev/shm/fastdds_" in line}
    return {name for name in names if not Path(name).name.startswith("fastdds_port")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_shared_memory_is_left(number):
    alone = str(101 + os.getpid() % 100)  # a domain without us, whose segments it would map as well
    node = NodeProcess("pose_node", ROS_DOMAIN_ID=alone)
    node.wait_for("scale_source")
    own = segments(node.pid)
    assert own and all(os.path.exists(name) for name in own)
    assert node.stop(number) == 0
    assert not any(os.path.exists(name) for name in own)


@pytest.mark.parametrize("module", ["numpy.linalg", "rclpy.qos", "depth_pose_ros.config"])
def test_a_signal_while_libraries_are_imported_ends_quietly(module):
    """Earlier than that it is Python itself that is starting."""
    node = NodeProcess("vo_node", PYTHONPROFILEIMPORTTIME="1")
    node.wait_for(rf"\| +{module}$")
    assert node.stop() == 0, node.said
    assert "Traceback" not in node.said, node.said


def test_security_without_keys_ends_with_one_sentence(tmp_path):
    (tmp_path / "enclaves").mkdir()
    security = {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path),
    }
    node = NodeProcess("pose_node", **security)
    assert node.wait() == 1
    assert "ROS 2 cannot be started: " in node.said and "Traceback" not in node.said, node.said
