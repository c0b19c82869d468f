"""Publishers and subscriptions whose QoS the user can override, and why nothing arrives on a topic.

The overrides are parameters, e.g. ``qos_overrides./image.subscription.reliability: reliable`` (ROS 2's own names).
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

from depth_pose_ros.errors import ConfigError


def publish(node: Node, message_type: type, topic: str, qos: QoSProfile) -> Publisher:
    """A publisher. ConfigError when the user's QoS for it cannot be had."""
    return _with_overrides(node.create_publisher, message_type, topic, qos)


def subscribe(node: Node, message_type: type, topic: str, callback: Callable, qos: QoSProfile) -> Subscription:
    """A subscription. ConfigError when the user's QoS for it cannot be had."""
    return _with_overrides(node.create_subscription, message_type, topic, callback, qos)


def _with_overrides(create: Callable, message_type: type, topic: str, *rest: object):
    options = QoSOverridingOptions.with_default_policies()
    try:
        return create(message_type, topic, *rest, qos_overriding_options=options)
    except Exception as error:  # rclpy raises a different one for each thing that may be wrong with an override
        raise ConfigError(f"QoS of {topic}: {error}; see the qos_overrides among the parameters") from error


def camera_info_topic(node: Node, image_topic: str) -> str:
    """The sibling of an image topic, as image_transport has it, unless `camera_info` was remapped itself."""
    plain = node.resolve_topic_name("camera_info", only_expand=True)
    resolved = node.resolve_topic_name("camera_info")
    return resolved if resolved != plain else image_topic.rpartition("/")[0] + "/camera_info"


def is_rectified(image_topic: str) -> bool:
    """By the topic's name: image_proc gives image_rect and image_rect_color the CameraInfo of the raw image."""
    return image_topic.removesuffix("/compressed").rpartition("/")[2].startswith("image_rect")


def why_silent(node: Node, subscription: Subscription) -> str:
    """Why nothing arrives on the topic of a subscription, in a sentence."""
    topic, expected = subscription.topic_name, ros_type(subscription.msg_type)
    publishers = node.get_publishers_info_by_topic(topic)
    if not publishers:
        return f"no publisher on {topic}"
    types = {publisher.topic_type for publisher in publishers}
    if expected not in types:
        return f"{topic} carries {', '.join(sorted(types))}, expected {expected}"
    obstacles = [_obstacle(publisher.qos_profile, subscription.qos_profile) for publisher in publishers]
    if all(obstacles):
        return f"incompatible QoS on {topic}: {obstacles[0]}"
    return f"{len(publishers)} publisher(s) on {topic}, but nothing arrives"


def ros_type(message_type: type) -> str:
    """The name of a message type as ROS has it, e.g. ``sensor_msgs/msg/Image``."""
    return message_type.__module__.split(".")[0] + "/msg/" + message_type.__name__


def _obstacle(offered: QoSProfile, requested: QoSProfile) -> str:
    """Why a subscription gets nothing from a publisher, in words; empty when they match."""
    reliable, lasting = ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL
    if requested.reliability == reliable and offered.reliability == ReliabilityPolicy.BEST_EFFORT:
        return "the publisher is best effort, the subscription reliable"
    if requested.durability == lasting and offered.durability == DurabilityPolicy.VOLATILE:
        return "the publisher is volatile, the subscription transient local; remove that QoS override"
    return ""
