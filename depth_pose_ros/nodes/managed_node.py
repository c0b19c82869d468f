"""What every node of this package is: a lifecycle node, which starts by itself unless it is told not to."""

from __future__ import annotations

import traceback
from collections.abc import Collection

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from depth_pose_ros.config import NodeConfig, Tunables
from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.nodes import parameters
from depth_pose_ros.nodes.health import Health

ENTITIES = {
    "publishers": "destroy_publisher",
    "subscriptions": "destroy_subscription",
    "clients": "destroy_client",
    "services": "destroy_service",
    "timers": "destroy_timer",
    "guards": "destroy_guard_condition",
}
"""What a node can own, and how it is destroyed."""

WAITING = {
    "unconfigured": "the node is not configured; call `ros2 lifecycle set {name} configure`, or set autostart",
    "inactive": "the node is not active; call `ros2 lifecycle set {name} activate`, or set autostart",
    "finalized": "the node was shut down; start it again",
}

UNANSWERED = (
    "what arrives is still being worked on; if that lasts, the computer is too slow for these networks: see the time "
    "of each stage on status, and choose a smaller network_width or a faster backend"
)


class ManagedNode(LifecycleNode):
    """Has its parameters and `/diagnostics` from the start, and everything else between configure and cleanup.

    A subclass gives :meth:`setup`, :meth:`set_active`, :meth:`teardown`, :meth:`apply`, :meth:`missing` and
    :meth:`details`. What ``setup`` makes on the node (publishers, subscriptions, services, timers) is destroyed here.
    """

    def __init__(self, name: str, *config_classes: type[Tunables], leave_out: Collection[str] = ()) -> None:
        super().__init__(name)
        self.phase = "unconfigured"
        """unconfigured, inactive, active or finalized."""
        self.configs = parameters.declare(self, NodeConfig, *config_classes, leave_out=leave_out)
        self.health = Health(self, self.problems, lambda: self.details() if self._is_set_up else [])
        parameters.on_change(self, self.configs, lambda config: self.apply(config) if self._is_set_up else None)
        self._failure: Exception | None = None
        self._lasting = self._entities()

    def start(self) -> None:
        """With ``autostart``, configure and activate. Raises whatever keeps it from being configured."""
        if not self.configs[NodeConfig].autostart:
            self.get_logger().info(f"autostart is false: {self.problems()[0]}")
        elif self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()
        elif self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop, before the process ends: as cleanup, in whatever state."""
        if self._is_set_up:
            self.set_active(False)
            self._tear_down("finalized")

    # ------------------------------------------------------------------------------------ what a subclass gives
    def setup(self) -> None:
        """Make all that it takes; threads are started last. DepthPoseError when that is not possible."""
        raise NotImplementedError

    def set_active(self, active: bool) -> None:
        """Work, or ignore what arrives."""
        raise NotImplementedError

    def teardown(self) -> None:
        """Stop threads."""

    def apply(self, config: Tunables) -> None:
        """Take a changed config. ConfigError to refuse it."""

    def missing(self) -> list[str]:
        """What keeps the active node from giving output, a sentence each."""
        raise NotImplementedError

    def details(self) -> list[DiagnosticStatus]:
        """Entries of `/diagnostics`."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------ lifecycle
    @property
    def _is_set_up(self) -> bool:
        return self.phase in ("inactive", "active")

    def problems(self) -> list[str]:
        """What keeps the node from giving output, a sentence each."""
        if self.phase == "active":
            return self.missing() or [UNANSWERED]
        return [WAITING[self.phase].format(name=self.get_fully_qualified_name())]

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy. Unlike an error that nobody foresaw, a DepthPoseError leaves the node unconfigured."""
        self._failure = None
        try:
            self.setup()
        except Exception as error:  # rclpy would swallow it
            self._failure = error
            self._destroy_entities()
            if isinstance(error, DepthPoseError):
                self.get_logger().error(f"cannot be configured: {error}")
                return TransitionCallbackReturn.FAILURE
            self.get_logger().error(f"cannot be configured:\n{traceback.format_exc()}")
            return TransitionCallbackReturn.ERROR
        for sentence in parameters.unknown(self):
            self.get_logger().warning(sentence)
        self.phase = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.set_active(True)
        self.phase = "active"
        self.health.begin()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.set_active(False)
        self.phase = "inactive"
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self._tear_down("unconfigured")
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """See rclpy."""
        self.close()
        self.phase = "finalized"
        return TransitionCallbackReturn.SUCCESS

    def _tear_down(self, phase: str) -> None:
        self.phase = phase
        self.teardown()
        self._destroy_entities()

    def _entities(self) -> dict[str, list]:
        return {kind: list(getattr(self, kind)) for kind in ENTITIES}

    def _destroy_entities(self) -> None:
        """All but those that the node had before it was configured."""
        for kind, entities in self._entities().items():
            for entity in entities:
                if all(entity is not lasting for lasting in self._lasting[kind]):
                    getattr(self, ENTITIES[kind])(entity)
