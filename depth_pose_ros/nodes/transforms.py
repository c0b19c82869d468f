"""TF: waiting for the transform between camera and base, and broadcasting the one between odom and base.

The mounting of a camera is one transform that does not change, so the latest value of each link is enough, and this
small listener does on every installation what tf2_ros would (which the PyPI wheels of ROS 2 lack). It stops listening
as soon as it has what it was asked for, because a busy /tf costs a Python node dearly.
"""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from tf2_msgs.msg import TFMessage

from depth_pose_ros.geometry.se3 import inverse
from depth_pose_ros.nodes.messages import stamp_ns, transform_from_message

TF_CACHE_NS = 10_000_000_000
"""How long the listeners of tf2 remember, by default: they ignore what is older than that."""

MAX_FRAMES = 10_000
"""That are remembered: more are not of a robot."""


class TransformBroadcaster:
    """Sends one transform on /tf, again and again, and never one that is older than the last.

    The listeners of tf2 would put it in among the later ones, and the robot would seem to jump to and fro. Only where
    the clock itself was set back, and so the listeners start anew, may stamps follow it.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))
        self._last_ns: int | None = None
        self._before_jump_ns: int | None = None  # stamps from here on are of images that the clock's jump overtook
        backwards = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False)
        self._jumps = node.get_clock().create_jump_callback(backwards, post_callback=self._jumped)

    def send(self, transform: TransformStamped) -> bool:
        """Send it, unless it is not newer than the last one; then False, and the log says why."""
        clock = self._node.get_clock()
        stamp, now = stamp_ns(transform.header.stamp), clock.now().nanoseconds
        if self._before_jump_ns is not None:
            if now < self._before_jump_ns <= stamp:
                return False
            self._before_jump_ns = self._last_ns = None
        last = self._last_ns
        clock_was_wrong = not clock.ros_time_is_active and last is not None and last > now + TF_CACHE_NS
        if last is not None and stamp <= last and not clock_was_wrong:
            self._node.get_logger().warning(
                f"TF is withheld for another {(last - stamp) * 1e-9:.3f} s of image stamps, until they have passed the "
                "last one that was sent; when a bag is played again, give its clock (--clock, use_sim_time), else call "
                "~/reset",
                throttle_duration_sec=5.0,
            )
            return False
        self._last_ns = stamp
        self._publisher.publish(TFMessage(transforms=[transform]))
        return True

    def forget(self) -> None:
        """Send the next one whatever its stamp."""
        self._last_ns = None

    def _jumped(self, jump: TimeJump) -> None:
        """The clock of a bag that starts again: its listeners have dropped everything."""
        self._before_jump_ns = self._node.get_clock().now().nanoseconds - jump.delta.nanoseconds // 2


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
            if len(self._links) >= MAX_FRAMES and transform.child_frame_id.lstrip("/") not in self._links:
                self._node.get_logger().warning(
                    f"ignored: more than {MAX_FRAMES} frames on /tf", throttle_duration_sec=5.0
                )
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
