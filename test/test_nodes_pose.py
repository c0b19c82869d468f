"""pose_node without DDS or another process: what its callbacks are given, and what it says of it."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.parameter import Parameter
from ros_helpers import PERIOD, START
from sensor_msgs.msg import Image

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.nodes import messages, pose_node
from depth_pose_ros.nodes.health import SILENCE

CAMERA = PinholeCamera(320, 192, 200.0, 200.0, 159.5, 95.5)
DEPTH = 5.0
STEP = 0.1
POINTS = np.random.default_rng(1).uniform((40, 10), (310, 182), (300, 2)).astype(np.float32)
FLOW = np.array([200.0 * STEP / DEPTH, 0.0], np.float32)  # of a wall, for a camera that goes to the left


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


class Rig:
    """A pose_node, what it is sent, and its estimates."""

    def __init__(self, has_depth_node):
        self.node = pose_node.PoseNode()
        self.node.start()
        self.estimates = []
        self.logged = []
        self._publish = self.node.motion.publish
        self.node.motion.publish = self._keep
        self.node.get_logger().warning = lambda text, **_: self.logged.append(text)
        if has_depth_node:
            self.node.create_publisher(Image, "network_depth/image", 10)
            while not self.node.count_publishers("network_depth/image"):
                time.sleep(0.01)

    def _keep(self, estimate, *rest):
        self.estimates.append(estimate)
        return self._publish(estimate, *rest)

    def send(self, index, has_depth, step=STEP):
        """The messages of a frame; the camera has moved by ``step`` since the one before."""
        stamp, before = START + index * PERIOD, START + (index - 1) * PERIOD
        head, take = messages.header(stamp, "camera"), self.node._inputs
        take["flow/camera_info"].callback(messages.camera_info_message(CAMERA, head))
        if has_depth:
            self.send_depth(index)
        matches = Matches(POINTS, POINTS + FLOW * np.float32(step / STEP), np.ones(300, np.float32))
        stamped = messages.StampedMatches(stamp, "camera", before, matches)
        take["flow/matches"].callback(messages.matches_message(stamped))

    def send_depth(self, index):
        depth = np.full((48, 80), DEPTH, np.float32)
        message = messages.image_message(depth, messages.header(START + index * PERIOD, "camera"))
        self.node._inputs["network_depth/image"].callback(message)

    def work_on_all(self, monkeypatch):
        """Let go of the frames that wait for depth, as if PATIENCE were over."""
        with monkeypatch.context() as patch:
            patch.setattr(pose_node, "PATIENCE", -1.0)
            self.node._work()

    @property
    def lengths(self):
        return [float(np.linalg.norm(one.T_previous_current[:3, 3])) for one in self.estimates]

    def close(self):
        self.node.close()
        self.node.destroy_node()


@pytest.fixture
def rig_with():
    rigs = []

    def make(has_depth_node):
        rigs.append(Rig(has_depth_node))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


def test_frames_before_the_first_depth_do_not_move_it(rig_with):
    """As when pose_node starts again and does not hear depth_node yet: a motion of one unit would be no such motion."""
    rig = rig_with(has_depth_node=True)
    for index in range(1, 8):
        rig.send(index, has_depth=index >= 4)
    assert [one.state.value for one in rig.estimates] == ["initialising"] * 3 + ["tracking"] * 4
    assert all("waiting for a frame with depth from /network_depth/image" in one.reason for one in rig.estimates[:3])
    assert {one.scale.source for one in rig.estimates[3:]} == {"network"}
    np.testing.assert_allclose(rig.lengths, [0.0] * 3 + [STEP] * 4, rtol=0.05)
    assert not rig.logged


def test_after_a_reset_it_waits_for_depth_again(rig_with, monkeypatch):
    rig = rig_with(has_depth_node=True)
    for index in range(1, 4):
        rig.send(index, has_depth=True)
    rig.node.motion._reset(None, type("Response", (), {})())
    for index in range(4, 8):
        rig.send(index, has_depth=index >= 6)
    np.testing.assert_allclose(rig.lengths, [0.0, STEP, STEP, 0.0, 0.0, STEP, STEP], rtol=0.05)


def test_once_there_was_depth_frames_without_it_are_followed(rig_with):
    rig = rig_with(has_depth_node=True)
    for index in range(1, 10):
        rig.send(index, has_depth=index % 3 == 1)
    assert rig.node.without_depth == 4  # the last two wait
    np.testing.assert_allclose(rig.lengths, [0.0] + [STEP] * 6, rtol=0.05)


def test_without_depth_node_it_goes_on_without_scale_and_says_so(rig_with):
    rig = rig_with(has_depth_node=False)
    rig.send(1, has_depth=False)
    rig.send(2, has_depth=False)
    assert [one.state.value for one in rig.estimates] == ["initialising"] * 2  # it may not be known yet
    rig.node.motion.began_at -= SILENCE
    del rig.estimates[0]
    for index in range(3, 6):
        rig.send(index, has_depth=False)
    assert [one.scale.source for one in rig.estimates] == ["none"] * 4
    np.testing.assert_allclose(rig.lengths, [0.0, 1.0, 1.0, 1.0], rtol=0.05)
    assert len(rig.logged) == 1 and "no depth for scale_source network; until it comes" in rig.logged[0]
    rig.send(6, has_depth=True)
    assert rig.lengths[-1] == pytest.approx(STEP, rel=0.05) and rig.estimates[-1].scale.source == "network"
    assert len(rig.logged) == 2 and "the unit has changed from that of scale_source none to that" in rig.logged[1]


@pytest.mark.parametrize("source", ["none", "camera_height"])
def test_a_unit_that_is_not_the_networks_needs_no_depth(rig_with, source):
    rig = rig_with(has_depth_node=False)
    rig.node.set_parameters([Parameter("scale_source", value=source)])
    for index in range(1, 4):
        rig.send(index, has_depth=False)
    assert [one.state.value for one in rig.estimates] == ["initialising", "tracking", "tracking"]


def test_depth_that_is_always_late_is_not_waited_for_for_ever(rig_with, monkeypatch):
    rig = rig_with(has_depth_node=True)
    rig.send(1, has_depth=False)
    rig.work_on_all(monkeypatch)
    rig.node.motion.began_at -= 100.0  # depth_node has sent nothing yet: its engine may take minutes
    rig.node.details()
    rig.send(2, has_depth=False)
    rig.node.details()
    rig.work_on_all(monkeypatch)
    assert [one.state.value for one in rig.estimates] == ["initialising"] * 2
    assert len(rig.logged) == 1 and "no motion before the first depth: 1 publisher(s) on" in rig.logged[0]
    rig.send_depth(2)  # too late
    rig.node._depth_began_at -= SILENCE
    rig.send(3, has_depth=False)
    rig.work_on_all(monkeypatch)
    assert rig.estimates[-1].state.value == "tracking" and rig.estimates[-1].scale.source == "none"


def test_depth_that_ceases_is_told(rig_with):
    """Odometry goes on, and so nothing is missing; but its scale drifts, and there is no depth image any more."""
    rig = rig_with(has_depth_node=False)
    for index in range(1, 4):
        rig.send(index, has_depth=True)
    before = rig.node.details()[1]
    rig.send(4, has_depth=False)
    assert rig.node._is_silent("network_depth/image") is False and not rig.logged
    rig.node._arrived_at["network_depth/image"] -= SILENCE
    depth = rig.node.details()[1]
    assert before.name == depth.name == "pose_node: depth"
    assert depth.level == DiagnosticStatus.WARN
    assert "no publisher on /network_depth/image; start depth_node" in depth.message
    assert len(rig.logged) == 1 and "carried on without depth: no publisher on /network_depth/image" in rig.logged[0]


def test_stamps_that_start_again_do_not_find_depth_of_before(rig_with):
    """It would seem to have gone past the frames that now come."""
    rig = rig_with(has_depth_node=True)
    for index in range(100, 104):
        rig.send(index, has_depth=True)
    for index in range(1, 6):
        rig.send(index, has_depth=True)
    rig.send(6, has_depth=False)
    assert rig.node.without_depth == 0 and len(rig.estimates) == 9 and len(rig.node._waiting) == 1
