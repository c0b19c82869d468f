"""The threads of a node with a camera: one image is seen while the one before is answered."""

import threading

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from ros_helpers import PATIENCE, PERIOD, START, Peer

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines import available_models, find_model
from depth_pose_ros.engines.manifest import DEFAULT_MODELS
from depth_pose_ros.errors import EngineError
from depth_pose_ros.nodes.camera_node import CameraNode

pytestmark = pytest.mark.skipif(DEFAULT_MODELS["flow"] not in available_models(), reason="no flow network in models/")

CAMERA = PinholeCamera(64, 48, 50.0, 50.0, 31.5, 23.5)
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)


class Gated(CameraNode):
    """Sees and answers when it is allowed to, and remembers the order; index 0 is the first image that was sent."""

    def __init__(self):
        super().__init__("gated")
        self.seen, self.begun, self.answered = [], [], []
        self.may_see, self.may_answer = threading.Event(), threading.Event()
        self.fail_in = ""

    def setup(self):
        super().setup()
        self.start_worker()

    def models(self):
        return [find_model("default", "flow")]

    def load(self, width, height):
        self.network_backends["gate"] = "none"

    def see(self, frame):
        index = (frame.stamp_ns - START) // PERIOD
        self.seen.append(index)
        assert self.may_see.wait(PATIENCE)
        if self.fail_in == "see":
            raise EngineError("the network broke")
        return index

    def process(self, image):
        self.begun.append(image.seen)
        assert self.may_answer.wait(PATIENCE)
        if self.fail_in == "process":
            raise EngineError("the matcher broke")
        self.answered.append(image.seen)
        return True


@pytest.fixture
def peer():
    rclpy.init(args=["--ros-args", "-p", "image_qos:=reliable"])  # none is lost on the way
    one = Peer()
    yield one
    one.close()
    rclpy.shutdown()


@pytest.fixture
def node(peer):
    node = Gated()
    node.start()
    peer.add(node)
    peer.spin_until(lambda: peer.images.get_subscription_count() > 0, what="the node subscribes")
    peer.spin_until(lambda: peer.infos.get_subscription_count() > 0, what="the node subscribes")
    yield node
    for gate in (node.may_see, node.may_answer):
        gate.set()
    node.close()
    left = [thread for thread in threading.enumerate() if thread.name.startswith(("see", "worker"))]
    for thread in left:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in left)
    node.destroy_node()


def send(peer, node, index):
    """Until it has arrived; then the node has the only copy."""
    peer.send(IMAGE, START + index * PERIOD, CAMERA)
    peer.spin_until(lambda: node.camera.received > index, what=f"image {index}")


def test_the_next_image_is_seen_while_one_is_answered_and_the_latest_of_the_others_waits(peer, node):
    node.may_see.set()
    send(peer, node, 0)
    peer.spin_until(lambda: node.begun == [0], what="the first image")
    send(peer, node, 1)
    peer.spin_until(lambda: node.seen == [0, 1], what="the second image")
    for index in range(2, 6):
        send(peer, node, index)
    assert (node.seen, node.begun, node.answered) == ([0, 1], [0], [])  # one is being answered, one waits, one is kept
    assert node.camera.dropped == 3
    node.may_answer.set()
    peer.spin_until(lambda: len(node.answered) == 3, what="the answers")
    assert node.seen == node.answered == [0, 1, 5]
    assert node.camera.received == 6 and node.camera.dropped == 3


@pytest.mark.parametrize("where, sentence", [("see", "the network broke"), ("process", "the matcher broke")])
def test_an_error_in_either_thread_reaches_the_executor_although_no_image_follows(peer, node, where, sentence):
    node.fail_in = where
    node.may_see.set()
    node.may_answer.set()
    with pytest.raises(EngineError, match=sentence):
        send(peer, node, 0)
        peer.spin_until(lambda: False, what="the error")
    assert node.answered == []


def test_the_node_stops_in_the_middle_of_two_frames(peer, node):
    node.may_see.set()
    send(peer, node, 0)
    peer.spin_until(lambda: node.begun == [0], what="the first image")
    node.may_see.clear()
    send(peer, node, 1)
    peer.spin_until(lambda: node.seen == [0, 1], what="the second image")
    send(peer, node, 2)
    release = threading.Timer(0.2, lambda: (node.may_answer.set(), node.may_see.set()))
    release.start()
    node.close()
    release.join()
    assert node.answered[:1] == [0]  # what was at hand is finished
    assert 2 not in node.seen  # what waited is not begun
