"""The parts of the nodes without a network or another process: frames, covariances, TF, parameters, depth images."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from tf2_msgs.msg import TFMessage

from depth_pose_ros.config import NODE_CONFIGS, Tunables, tunable, tunables
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.geometry.se3 import inverse, make_pose, se3_exp, se3_log, so3_exp, so3_log
from depth_pose_ros.images import flow_picture
from depth_pose_ros.nodes import messages, parameters, running, topics, transforms
from depth_pose_ros.nodes.depth_image import resize_depth
from depth_pose_ros.nodes.publishers import R_BODY_OPTICAL, Mounting
from depth_pose_ros.nodes.transforms import TransformBroadcaster, TransformListener, find_transform

BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT
ROOT = Path(__file__).resolve().parents[1]
T_BASE_CAMERA = make_pose(R_BODY_OPTICAL @ so3_exp(np.array([0.3, -0.8, 0.2])), np.array([0.4, -0.2, 1.1]))
"""A camera that is rotated and offset in every axis."""


# ------------------------------------------------------------------------------------------------------- frames
def test_without_a_base_frame_forward_is_x_and_left_is_y():
    """A camera that goes 2 m forward (z), 1 m left (-x) and 0.5 m up (-y)."""
    T = Mounting().pose(make_pose(np.eye(3), np.array([-1.0, -0.5, 2.0])))
    np.testing.assert_allclose(T[:3, 3], [2.0, 1.0, 0.5], atol=1e-12)
    np.testing.assert_allclose(T[:3, 2], [1.0, 0.0, 0.0], atol=1e-12)  # its z axis looks along odom's x


def test_without_a_base_frame_a_turn_to_the_left_is_positive_about_z():
    left = make_pose(so3_exp(np.array([0.0, -0.2, 0.0])), np.zeros(3))  # optical y points down
    T = Mounting().pose(left) @ inverse(Mounting().pose(np.eye(4)))
    np.testing.assert_allclose(so3_log(T[:3, :3]), [0.0, 0.0, 0.2], atol=1e-12)


def test_with_a_base_frame_the_base_starts_at_the_origin_and_moves_as_it_did():
    mounting = Mounting(T_BASE_CAMERA)
    rng = np.random.default_rng(0)
    T_odom_base = np.eye(4)
    for _ in range(20):
        T_origin_camera = inverse(T_BASE_CAMERA) @ T_odom_base @ T_BASE_CAMERA
        np.testing.assert_allclose(mounting.pose(T_origin_camera), T_odom_base, atol=1e-9)
        T_odom_base = T_odom_base @ se3_exp(rng.normal(0, 0.3, 6))


@pytest.mark.parametrize("T_base_camera", [None, T_BASE_CAMERA], ids=["camera", "base"])
def test_twist_is_the_velocity_of_the_child_in_its_own_axes(T_base_camera):
    mounting = Mounting(T_base_camera)
    twist = np.array([1.5, -0.3, 0.1, 0.05, -0.2, 0.4])
    T_camera_child = mounting.T_camera_child
    T_previous_current = T_camera_child @ se3_exp(twist * 0.1) @ inverse(T_camera_child)
    np.testing.assert_allclose(mounting.twist(T_previous_current, np.zeros((6, 6)), 0.1)[0], twist, atol=1e-9)


def numeric_jacobian(function, T, size=1e-6):
    """Of function(T) by an error of T in the axes of its parent, about its own origin, as ROS covariances have it."""

    def moved(error):
        return function(make_pose(so3_exp(error[3:]) @ T[:3, :3], T[:3, 3] + error[:3]))

    return np.stack([(moved(e) - moved(-e)) / (2 * size) for e in size * np.eye(6)], axis=1)


COVARIANCE = np.cov(np.random.default_rng(1).normal(0, 1e-3, (6, 20)))


def test_pose_covariance_is_carried_to_the_base_and_to_the_axes_of_odom():
    mounting = Mounting(T_BASE_CAMERA)
    T = se3_exp(np.array([3.0, 1.0, 2.0, 0.5, -0.7, 0.2]))
    reference = mounting.pose(T)

    def error_in_odom(T_origin_camera):
        pose = mounting.pose(T_origin_camera)
        return np.concatenate([pose[:3, 3], so3_log(pose[:3, :3] @ reference[:3, :3].T)])

    J = numeric_jacobian(error_in_odom, T)
    np.testing.assert_allclose(mounting.pose_covariance(T, COVARIANCE), J @ COVARIANCE @ J.T, rtol=1e-6, atol=1e-12)


def test_twist_covariance_is_carried_to_the_axes_of_the_base():
    mounting = Mounting(T_BASE_CAMERA)
    T = se3_exp(np.array([0.1, 0.02, 0.2, 0.01, -0.02, 0.005]))
    J = numeric_jacobian(lambda moved: mounting.twist(moved, COVARIANCE, 0.1)[0], T)
    expected = J @ COVARIANCE @ J.T
    np.testing.assert_allclose(mounting.twist(T, COVARIANCE, 0.1)[1], expected, atol=1e-3 * np.abs(expected).max())


# ----------------------------------------------------------------------------------------------------------- TF
def test_transforms_are_found_through_a_common_ancestor():
    T_base_mast, T_mast_camera, T_base_arm = (se3_exp(np.random.default_rng(i).normal(0, 1, 6)) for i in range(3))
    links = {
        "mast": ("base_link", T_base_mast),
        "camera": ("mast", T_mast_camera),
        "arm": ("base_link", T_base_arm),
        "base_link": ("odom", se3_exp(np.ones(6))),
    }
    np.testing.assert_allclose(find_transform(links, "base_link", "camera"), T_base_mast @ T_mast_camera, atol=1e-12)
    expected = inverse(T_base_arm) @ T_base_mast @ T_mast_camera
    np.testing.assert_allclose(find_transform(links, "arm", "camera"), expected, atol=1e-12)
    np.testing.assert_allclose(find_transform(links, "camera", "arm"), inverse(expected), atol=1e-12)
    np.testing.assert_array_equal(find_transform(links, "camera", "camera"), np.eye(4))


def test_frames_that_are_not_connected_have_no_transform():
    links = {"camera": ("mast", np.eye(4)), "a": ("b", np.eye(4)), "b": ("a", np.eye(4))}
    assert find_transform(links, "base_link", "camera") is None
    assert find_transform(links, "a", "camera") is None  # a loop ends, too


@pytest.fixture(scope="module")
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


class Broadcast:
    """A TransformBroadcaster, the stamps in seconds that it let through, and the clock of a bag."""

    def __init__(self, use_sim_time):
        self.node = rclpy.create_node("tf", parameter_overrides=[Parameter("use_sim_time", value=use_sim_time)])
        self._broadcaster = TransformBroadcaster(self.node)
        self._clock = self.node.create_publisher(Clock, "/clock", 10)
        self.forget = self._broadcaster.forget

    def sent(self, *seconds):
        heads = ((second, messages.header(second * 10**9, "odom")) for second in seconds)
        return [s for s, head in heads if self._broadcaster.send(messages.transform_message(np.eye(4), head, "base"))]

    def set_clock(self, second):
        end = time.monotonic() + 60.0
        while self.node.get_clock().now().nanoseconds != second * 10**9:
            assert time.monotonic() < end, "the clock is not heard"
            self._clock.publish(Clock(clock=messages.time_message(second * 10**9)))
            rclpy.spin_once(self.node, timeout_sec=0.1)


def test_tf_never_goes_back(ros):
    tf = Broadcast(use_sim_time=False)
    # A recording that is played again without its clock: nothing is sent until it has passed the end of the first time.
    assert tf.sent(100, 101, 102, 102, 101, 100, 101, 102, 103) == [100, 101, 102, 103]
    tf.forget()
    assert tf.sent(50, 51, 50) == [50, 51]
    # The system's clock was wrong by far, and was set back: who has listened so far ignores what is sent anyway.
    now = int(time.time())
    assert tf.sent(now + 5, now, now + 6, now + 1000, now + 1, now + 2) == [
        now + 5,
        now + 6,
        now + 1000,
        now + 1,
        now + 2,
    ]
    tf.node.destroy_node()


def test_tf_follows_the_clock_of_a_bag_that_is_played_again(ros):
    tf = Broadcast(use_sim_time=True)
    tf.set_clock(102)
    assert tf.sent(100, 101, 101, 102) == [100, 101, 102]
    tf.set_clock(100)
    assert tf.sent(102, 103, 100, 100, 101) == [100, 101]  # two images were still on their way
    tf.node.destroy_node()


@pytest.mark.parametrize("value", [0.0, 1e300, float("nan"), float("inf")])
def test_a_transform_that_is_none_is_ignored(ros, value):
    node = rclpy.create_node("listener")
    listener = TransformListener(node)
    wrong = messages.transform_message(np.eye(4), messages.header(0, "base"), "camera")
    q = wrong.transform.rotation
    q.x = q.y = q.z = q.w = value
    right = messages.transform_message(T_BASE_CAMERA, messages.header(0, "base"), "other")
    listener._listen(TFMessage(transforms=[wrong, right]))
    assert listener.lookup("base", "camera") is None
    np.testing.assert_allclose(listener.lookup("base", "other"), T_BASE_CAMERA, atol=1e-12)
    node.destroy_node()


def test_the_frames_of_a_flooded_tf_are_not_all_remembered(ros, monkeypatch):
    monkeypatch.setattr(transforms, "MAX_FRAMES", 3)
    node = rclpy.create_node("listener")
    listener = TransformListener(node)
    heads = [messages.transform_message(np.eye(4), messages.header(0, "base"), f"frame{i}") for i in range(5)]
    listener._listen(TFMessage(transforms=heads))
    assert [listener.lookup("base", f"frame{i}") is not None for i in range(5)] == [True, True, True, False, False]
    node.destroy_node()


# --------------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Example(Tunables):
    """An example."""

    height: float = tunable(1.5, "A height.", unit="m", minimum=0.1, maximum=10.0)
    count: int = tunable(5, "A count.", minimum=1)
    source: str = tunable("a", "A source.", choices=("a", "b"))
    fixed: bool = tunable(True, "A switch.", read_only=True)


@pytest.fixture
def node_with(ros):
    nodes = []

    def make(**overrides):
        node = rclpy.create_node(
            "example", parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()]
        )
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def test_parameters_are_declared_with_descriptors(node_with):
    node = node_with(height=2.0)
    configs = parameters.declare(node, Example)
    assert configs[Example] == Example(height=2.0)
    descriptor = node.describe_parameter("height")
    assert descriptor.description == "A height. [m]"
    assert (descriptor.floating_point_range[0].from_value, descriptor.floating_point_range[0].to_value) == (0.1, 10.0)
    assert node.describe_parameter("count").integer_range[0].from_value == 1
    assert node.describe_parameter("source").additional_constraints == "one of: a, b"
    assert node.describe_parameter("fixed").read_only


@pytest.mark.parametrize(
    "wrong, reason", [({"height": 2}, "1.0"), ({"height": 20.0}, "0.1 to 10 m"), ({"source": "c"}, "one of: a, b")]
)
def test_wrong_values_at_start_are_refused_in_one_sentence(node_with, wrong, reason):
    with pytest.raises(ConfigError, match=reason):
        parameters.declare(node_with(**wrong), Example)


def test_live_changes_are_applied_and_wrong_ones_refused(node_with):
    node = node_with()
    configs = parameters.declare(node, Example)
    applied = []
    parameters.on_change(node, configs, applied.append)

    def change(**values):
        return node.set_parameters_atomically([Parameter(name, value=value) for name, value in values.items()])

    assert change(height=3.0, count=7).successful
    assert applied == [Example(height=3.0, count=7)] and configs[Example] == applied[0]
    refused = change(height=4.0, source="c")
    assert not refused.successful and "source = 'c' is out of range; allowed: one of: a, b" in refused.reason
    assert not change(height=99.0).successful and not change(height="high").successful
    assert not change(fixed=False).successful
    assert len(applied) == 1 and node.get_parameter("height").value == 3.0


def test_parameters_that_nobody_has_are_told(node_with):
    node = node_with(**{"scale_sorce": "network", "camera_height": 2.0, "qos_overrides./nowhere.publisher.depth": 3})
    told = parameters.unknown(node)
    assert len(told) == 2
    assert "scale_sorce means nothing to this node and is ignored; did you mean scale_source?" in told[0]
    assert "qos_overrides./nowhere.publisher.depth" in told[1] and "after remapping" in told[1]


def test_qos_can_be_overridden_and_what_is_wrong_with_it_is_told(node_with):
    wanted = {"qos_overrides./image.subscription.reliability": "reliable", "qos_overrides./image.subscription.depth": 3}
    node = node_with(**wanted)
    subscription = topics.subscribe(
        node, Clock, "image", lambda message: None, QoSProfile(depth=10, reliability=BEST_EFFORT)
    )
    assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE and subscription.qos_profile.depth == 3
    for name, value in (("reliability", "maybe"), ("depth", "many"), ("depth", -1), ("history", "all")):
        node = node_with(**{f"qos_overrides./odom.publisher.{name}": value})
        with pytest.raises(ConfigError, match=r"QoS of odom: .*see the qos_overrides"):
            topics.publish(node, Clock, "odom", QoSProfile(depth=10))


def test_the_default_parameter_file_is_up_to_date():
    """If this fails: python -m depth_pose_ros.nodes.parameters > config/depth_pose.yaml."""
    made = parameters.default_yaml(*NODE_CONFIGS)
    assert (ROOT / "config" / "depth_pose.yaml").read_text() == made


def test_no_parameter_is_declared_twice():
    names = [item.name for config_class in NODE_CONFIGS for item in tunables(config_class)]
    assert len(names) == len(set(names))


# ------------------------------------------------------------------------------------------------- depth, flow
def plane(u, v):
    return 1.0 / (0.02 + 1e-4 * u + 3e-4 * v)


def depth_of_plane(width, height, full_width, full_height):
    v, u = np.mgrid[:height, :width]
    return plane((u + 0.5) * full_width / width - 0.5, (v + 0.5) * full_height / height - 0.5).astype(np.float32)


def test_depth_of_a_plane_is_resized_exactly():
    resized = resize_depth(depth_of_plane(310, 94, 1241, 376), 1241, 376)
    expected = depth_of_plane(1241, 376, 1241, 376)
    np.testing.assert_allclose(resized[4:-4, 4:-4], expected[4:-4, 4:-4], rtol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "edge_aware"])
def test_no_depth_is_invented_between_two_surfaces(interpolation):
    depth = np.full((24, 32), 30.0, np.float32)
    depth[:, 12:20] = 3.0
    resized = resize_depth(depth, 101, 77, interpolation)
    assert set(np.unique(resized).round(4).tolist()) == {3.0, 30.0}
    edge = np.flatnonzero(np.abs(np.diff(resized[40])) > 1.0)
    np.testing.assert_allclose(edge + 0.5, [(12 * 101 / 32) - 0.5, (20 * 101 / 32) - 0.5], atol=0.51)


@pytest.mark.parametrize("interpolation", ["nearest", "edge_aware"])
def test_what_is_not_known_stays_so_and_spreads_not(interpolation):
    depth = np.full((24, 32), 30.0, np.float32)
    depth[16:, 8:20] = np.nan
    resized = resize_depth(depth, 128, 96, interpolation)
    expected = np.full((96, 128), 30.0, np.float32)
    expected[64:, 32:80] = np.nan
    np.testing.assert_allclose(resized, expected, rtol=1e-6)


def test_flow_picture_shows_direction_as_hue():
    flow = np.zeros((4, 4, 2), np.float32)
    flow[:2, :, 0] = 5.0  # to the right
    flow[2:, :, 0] = -5.0
    picture = flow_picture(flow)
    assert picture[0, 0].tolist() == [0, 0, 255] and picture[3, 0].tolist() == [255, 255, 0]


# ------------------------------------------------------------------------------------------------------ running
def test_the_users_fast_dds_profile_stays():
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        environment = {name: "mine.xml"}
        running.use_large_shared_memory(environment)
        assert environment == {name: "mine.xml"}


@pytest.mark.parametrize("distribution, name", [("humble", "FASTRTPS"), ("kilted", "FASTDDS"), ("", "FASTDDS")])
def test_otherwise_fast_dds_gets_ours_under_the_name_it_knows(distribution, name):
    environment = {"ROS_DISTRO": distribution}
    running.use_large_shared_memory(environment)
    assert environment[f"{name}_DEFAULT_PROFILES_FILE"] == str(ROOT / "config" / "fastdds.xml")


def test_log_of_a_pose_is_a_twist():
    """What Mounting.twist relies on."""
    twist = np.array([0.1, 0.2, 0.3, 0.01, 0.02, 0.03])
    np.testing.assert_allclose(se3_log(se3_exp(twist)), twist, atol=1e-12)
