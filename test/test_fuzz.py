"""Whatever a publisher sends is used or refused with a reason: some hundred examples of each kind (soak.py: more)."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("hypothesis")

import rclpy
from fuzz import PROPERTIES, Handlers
from fuzz_frames import Frames, Pairs
from hypothesis import HealthCheck, given, settings

from depth_pose_ros.odometry import State

FEW = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("messages, check", PROPERTIES, ids=[check.__name__ for _, check in PROPERTIES])
def test_messages(messages, check):
    FEW(given(messages)(check))()


def _calling(check):
    def call(message):
        check(message)

    return call


def test_callbacks_of_the_nodes():
    rclpy.init(args=["--ros-args", "--log-level", "fatal"])
    handlers = Handlers()
    for messages, check in handlers.properties:
        FEW(given(messages)(_calling(check)))()
    handlers.close()
    rclpy.shutdown()


@pytest.mark.parametrize("source, count", [(Frames, 300), (Pairs, 2000)])
@pytest.mark.parametrize("policy, scale_source", [("hold", "median_depth"), ("predict", "none")])
def test_frames_of_every_kind_through_the_state_machine(source, count, policy, scale_source):
    frames = source(seed=1, lost_policy=policy, scale_source=scale_source, refine=False)
    for _ in range(count):
        frames.step()
    assert all(frames.states[state] > 3 for state in State), frames.states
