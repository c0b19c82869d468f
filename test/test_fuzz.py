"""Whatever a publisher sends is used or refused with a reason: some hundred examples of each kind (soak.py: more)."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("hypothesis")

from fuzz import PROPERTIES, Frames
from hypothesis import HealthCheck, given, settings

from depth_pose_ros.odometry import State

FEW = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("messages, check", PROPERTIES, ids=[check.__name__ for _, check in PROPERTIES])
def test_messages(messages, check):
    FEW(given(messages)(check))()


@pytest.mark.parametrize("policy", ["hold", "predict"])
def test_frames_of_every_kind_through_the_state_machine(policy):
    frames = Frames(seed=1, lost_policy=policy, scale_source="none", refine=False)
    for _ in range(300):
        frames.step()
    assert all(frames.states[state] > 3 for state in State), frames.states
