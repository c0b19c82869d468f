"""What every node with a camera has in common: its input, one worker thread, diagnostics and the watchdog."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from std_srvs.srv import SetBool

from depth_pose_ros.camera import CameraModel, FrameRectifier, network_size
from depth_pose_ros.config import InputConfig, NetworkConfig, Tunables
from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.errors import CameraError, ConfigError, ImageError
from depth_pose_ros.nodes import messages, parameters
from depth_pose_ros.nodes.camera_input import SILENCE, CameraImage, CameraInput
from depth_pose_ros.odometry import Frame


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


class CameraNode(Node):
    """A node that answers the images of one camera, one at a time, in a thread of its own.

    A subclass gives :meth:`load` and :meth:`process` and calls :meth:`start` at the end of its own ``__init__``.
    Both run in the worker's thread, ``process`` with ``self.lock`` held; callbacks that touch the same things take it.
    """

    def __init__(self, name: str, *config_classes: type[Tunables], leave_out: Collection[str] = ()) -> None:
        super().__init__(name)
        self.lock = threading.RLock()
        self.configs = parameters.declare(self, InputConfig, NetworkConfig, *config_classes, leave_out=leave_out)
        width, height = self.configs[NetworkConfig].network_width, self.configs[NetworkConfig].network_height
        if (width == 0) != (height == 0):
            raise ConfigError(f"network_width = {width} and network_height = {height}; set both, or neither")
        self.network_backends: dict[str, str] = {}
        """What runs each network, for diagnostics; empty while they are loaded."""
        self.camera = CameraInput(self, self.configs[InputConfig])
        self.health = Health(self, self.problems, self.details)
        self.create_service(SetBool, "~/pause", self._pause)
        self._told_reasons: tuple[str, ...] = ()
        self._rectifier: FrameRectifier | None = None
        self._network_size = (0, 0)
        self._error: Exception | None = None
        self._error_signal = self.create_guard_condition(self._raise_error)
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._worker.start()

    def close(self) -> None:
        """Let the frame at hand be finished, and stop."""
        self.camera.close()
        if self._worker.is_alive():
            self._worker.join()

    # ------------------------------------------------------------------------------------ what a subclass gives
    def load(self, width: int, height: int) -> tuple[tuple[int, int], int]:
        """Load the networks for images of width x height (0: as they recommend).

        Returns the size that they recommend and the number of which width and height must be multiples.
        """
        raise NotImplementedError

    def camera_changed(self) -> None:
        """The next frame comes from another camera or in another size: nothing before it can be compared with it."""

    def process(self, image: CameraImage, frame: Frame, prepare_ms: dict[str, float]) -> bool:
        """Answer one frame; False when something that :meth:`problems` names kept it from being published.

        prepare_ms: what decoding and rectifying it cost.
        """
        raise NotImplementedError

    def problems(self) -> list[str]:
        """What keeps the node from answering, a sentence each."""
        if not self.network_backends:
            return ["the networks are still being loaded"]
        return self.camera.problems()

    def network_loaded(self, network: NetworkFlow | NetworkDepth) -> None:
        """Tell what runs a network and, once, why nothing better does."""
        self.network_backends[network.manifest.name] = network.backend
        text = f"{network.manifest.name} runs at {network.width} x {network.height} on {network.backend}"
        if network.backend_reasons and network.backend_reasons != self._told_reasons:
            self._told_reasons = network.backend_reasons
            text += f" (not on {'; not on '.join(network.backend_reasons)})"
        self.get_logger().info(text)

    # -------------------------------------------------------------------------------------------- the worker
    def _work(self) -> None:
        network = self.configs[NetworkConfig]
        try:
            # Before the first image and its size are known, so that a missing or broken model is told at once.
            recommended, multiple = self.load(network.network_width, network.network_height)
            self._network_size = (
                (network.network_width, network.network_height) if network.network_width else recommended
            )
            while (image := self.camera.next()) is not None:
                try:
                    start = time.perf_counter()
                    if image.jumped_back:
                        self.camera_changed()
                    frame = self._frame(image, recommended, multiple)
                    rectify_ms = 1e3 * (time.perf_counter() - start)
                except (ImageError, CameraError) as error:
                    self.camera.refuse(str(error))
                    continue
                with self.lock:
                    answered = self.process(image, frame, {"decode": image.decode_ms, "rectify": rectify_ms})
                if answered:
                    self.health.output(1e3 * (time.monotonic() - image.received_at))
        except Exception as error:
            self._error = error
            if self.context.ok():  # else: an error of publishing after the signal that ends us
                self._error_signal.trigger()

    def _raise_error(self) -> None:
        """In the executor's thread, whose error ends the process."""
        if self._error is not None:
            raise self._error

    def _frame(self, image: CameraImage, recommended: tuple[int, int], multiple: int) -> Frame:
        if self._rectifier is None or image.model != self._rectifier.model:
            size = self._size_for(image.model, recommended, multiple)
            with self.lock:
                if self._rectifier is not None:
                    self.get_logger().info(
                        f"the camera changed to {image.model.image_width} x {image.model.image_height} pixels; "
                        "going on from the last pose with a new pair of frames"
                    )
                if size != self._network_size:
                    self.load(*size)
                    self._network_size = size
                self._rectifier = self._make_rectifier(image.model, size)
                self.camera_changed()
        bgr, gray = self._rectifier(image.image)
        return Frame(image.stamp_ns, bgr, gray, self._rectifier.camera)

    def _size_for(self, model: CameraModel, recommended: tuple[int, int], multiple: int) -> tuple[int, int]:
        network = self.configs[NetworkConfig]
        if network.network_width:
            return network.network_width, network.network_height
        return network_size((model.image_width, model.image_height), recommended, multiple)

    def _make_rectifier(self, model: CameraModel, size: tuple[int, int]) -> FrameRectifier:
        config = self.configs[InputConfig]
        width, height = model.image_width, model.image_height
        gray_size = None
        if width > config.max_width:
            gray_size = (config.max_width, max(1, round(height * config.max_width / width)))
        rectify = config.rectify
        if rectify == "auto" and self.camera.is_rectified and not model.is_rectified:
            rectify = "never"
            self.get_logger().info(f"{self.camera.topic} is rectified, by its name; set rectify to always if it is not")
        return FrameRectifier(model, size, gray_size, rectify)

    # ------------------------------------------------------------------------------------------- callbacks
    def _pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self.camera.pause(request.data)
        response.success = True
        response.message = "paused: images are ignored" if request.data else "running"
        return response

    def details(self) -> list[DiagnosticStatus]:
        """Entries of `/diagnostics`."""
        camera = self.camera
        rate = self.health.rate("images", camera.received)
        images = messages.diagnostic_status(
            DiagnosticStatus.OK if rate > 0 or camera.paused else DiagnosticStatus.WARN,
            f"{self.get_name()}: images",
            "paused" if camera.paused else "arriving" if rate > 0 else "none in the last second",
            {
                "topic": camera.topic,
                "rate_hz": rate,
                "received": camera.received,
                "dropped": camera.dropped,
                "refused": camera.refused,
                "last_refusal": camera.refusal,
            },
        )
        networks = messages.diagnostic_status(
            DiagnosticStatus.OK if self.network_backends else DiagnosticStatus.WARN,
            f"{self.get_name()}: networks",
            "ready" if self.network_backends else "loading",
            {"size": f"{self._network_size[0]} x {self._network_size[1]}", **self.network_backends},
        )
        return [images, networks]
