"""What a node hears while its networks are opened, which takes minutes when an engine has to be built."""

from __future__ import annotations

from rclpy.node import Node

from depth_pose_ros.engines import Listener
from depth_pose_ros.errors import EngineError


class Opening(Listener):
    """To the node's log; and for its diagnostics what is being worked on, and what was warned of."""

    def __init__(self, node: Node) -> None:
        self.work = ""
        """What takes long just now, and for how long; empty: nothing."""
        self.warnings: list[str] = []
        self.is_over = False
        """Set when the node stops: what takes long is then given up."""
        self._node = node

    def info(self, text: str) -> None:
        """See Listener."""
        self._node.get_logger().info(text)

    def warning(self, text: str) -> None:
        """See Listener."""
        self.warnings.append(text)
        self._node.get_logger().warning(text)

    def busy(self, text: str) -> None:
        """See Listener."""
        if self.is_over:
            raise EngineError("given up, because the node stops")
        self.work = text

    def idle(self) -> None:
        """See Listener."""
        self.work = ""
