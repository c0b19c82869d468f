"""`/diagnostics`, and the log line that names each missing thing when a node has given nothing for five seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from depth_pose_ros.nodes import messages

SILENCE = 5.0
"""Seconds without anything after which it is told what is missing."""


class Health:
    """`/diagnostics` once a second, and after five seconds without output a log line for each thing that is missing."""

    def __init__(
        self,
        node: Node,
        problems: Callable[[], list[str]],
        details: Callable[[], list[DiagnosticStatus]],
    ) -> None:
        """``problems``: what is missing, a sentence each; ``details``: further entries for `/diagnostics`."""
        self.outputs = 0
        self._node = node
        self._problems = problems
        self._details = details
        self._latencies_ms: deque[float] = deque(maxlen=200)
        self._output_at = self._told_at = time.monotonic()
        self._counts: dict[str, tuple[float, int]] = {}
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the steady clock: with use_sim_time and no /clock, a timer on the node's clock would be silent as well.
        node.create_timer(1.0, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def begin(self) -> None:
        """Count the time without output from now on."""
        self._output_at = self._told_at = time.monotonic()

    def output(self, latency_ms: float) -> None:
        """One frame was answered, so long after it had been received."""
        self.outputs += 1
        self._output_at = time.monotonic()
        self._latencies_ms.append(latency_ms)

    def rate(self, name: str, count: int) -> float:
        """Per second, from a running count, since this was last asked."""
        now = time.monotonic()
        then, before = self._counts.get(name, (now, count))
        self._counts[name] = (now, count)
        return (count - before) / (now - then) if now > then else 0.0

    def _tick(self) -> None:
        now = time.monotonic()
        problems = self._problems() if now - self._output_at > SILENCE else []
        if problems and now - self._told_at > SILENCE:
            self._told_at = now
            for problem in problems:
                self._node.get_logger().warning(f"no output for {now - self._output_at:.0f} s: {problem}")
        values = {"outputs": self.outputs, "output_rate_hz": self.rate("outputs", self.outputs)}
        if latencies := list(self._latencies_ms):
            values["latency_p50_ms"], values["latency_p95_ms"] = map(float, np.percentile(latencies, [50, 95]))
        level, text = DiagnosticStatus.OK, "running"
        if problems:
            level, text = DiagnosticStatus.ERROR, "; ".join(problems)
        elif not self.outputs:
            level, text = DiagnosticStatus.WARN, "starting"
        summary = messages.diagnostic_status(level, f"{self._node.get_name()}: output", text, values)
        self._publisher.publish(
            DiagnosticArray(
                header=messages.header(self._node.get_clock().now().nanoseconds, ""),
                status=[summary, *self._details()],
            )
        )
