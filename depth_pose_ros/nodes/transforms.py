"""TF: waiting for the transform between camera and base, and broadcasting odom -> base.

The mounting of a camera is one transform that does not change, so the latest value of each link is enough, and this
small listener does on every installation what tf2_ros would (which the PyPI wheels of ROS 2 lack). It stops listening
as soon as it has what it was asked for, because a busy /tf costs a Python node dearly.
"""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from depth_pose_ros.geometry.se3 import inverse
from depth_pose_ros.nodes.messages import transform_from_message


class TransformListener:
    """The links of /tf and /tf_static, each at its latest, until :meth:`close`."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._links: dict[str, tuple[str, np.ndarray]] = {}  # child -> (parent, T_parent_child)
        static = QoSProfile(
            depth=100, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
        )
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", self._listen, QoSProfile(depth=100)),
            node.create_subscription(TFMessage, "/tf_static", self._listen, static),
        ]

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        """T_target_source (4, 4), or None while it is not known. May be called from any thread."""
        return find_transform(dict(self._links), target.lstrip("/"), source.lstrip("/"))

    def missing(self, target: str, source: str) -> str:
        """What to tell the user while :meth:`lookup` gives None."""
        links = ", ".join(f"{parent} -> {child}" for child, (parent, _) in sorted(dict(self._links).items()))
        return (
            f"no transform between {target} and {source} on /tf or /tf_static (seen: {links or 'none'}); publish it "
            "(robot_state_publisher or static_transform_publisher), or leave base_frame empty"
        )

    def close(self) -> None:
        """Stop listening. From the executor's thread only."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _listen(self, message: TFMessage) -> None:
        for transform in message.transforms:
            try:
                T = transform_from_message(transform)
            except ValueError as error:
                self._node.get_logger().warning(f"ignored: {error}", throttle_duration_sec=5.0)
                continue
            self._links[transform.child_frame_id.lstrip("/")] = (transform.header.frame_id.lstrip("/"), T)


def find_transform(links: dict[str, tuple[str, np.ndarray]], target: str, source: str) -> np.ndarray | None:
    """T_target_source (4, 4) from links child -> (parent, T_parent_child), or None when they are not connected."""

    def ancestors(frame: str) -> dict[str, np.ndarray]:
        found = {frame: np.eye(4)}  # ancestor -> T_ancestor_frame
        while frame in links and links[frame][0] not in found:  # the second ends a loop in a broken tree
            parent, T_parent_frame = links[frame]
            found[parent] = T_parent_frame @ found[frame]
            frame = parent
        return found

    of_target, of_source = ancestors(target), ancestors(source)
    for frame, T_frame_source in of_source.items():
        if frame in of_target:
            return inverse(of_target[frame]) @ T_frame_source
    return None
