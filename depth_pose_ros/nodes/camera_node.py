"""What every node with a camera has in common: its input, and one worker thread."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import SetBool

from depth_pose_ros.camera import CameraModel, FrameRectifier, network_size
from depth_pose_ros.config import EngineConfig, InputConfig, NetworkConfig, Tunables
from depth_pose_ros.engines import Manifest, NetworkDepth, NetworkFlow, may_build
from depth_pose_ros.errors import CameraError, ConfigError, EngineError, ImageError
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.camera_input import CameraImage, CameraInput
from depth_pose_ros.nodes.managed_node import ManagedNode
from depth_pose_ros.nodes.opening import Opening
from depth_pose_ros.odometry import Frame


class CameraNode(ManagedNode):
    """A node that answers the images of one camera, one at a time, in a thread of its own.

    A subclass gives :meth:`load` and :meth:`process`, and calls :meth:`start_worker` at the end of its ``setup``.
    Both run in the worker's thread, ``process`` with ``self.lock`` held; callbacks that touch the same things take it.
    """

    def __init__(self, name: str, *config_classes: type[Tunables], leave_out: Collection[str] = ()) -> None:
        super().__init__(name, InputConfig, NetworkConfig, EngineConfig, *config_classes, leave_out=leave_out)
        self.lock = threading.RLock()

    def setup(self) -> None:
        """See ManagedNode."""
        width, height = self.configs[NetworkConfig].network_width, self.configs[NetworkConfig].network_height
        if (width == 0) != (height == 0):
            raise ConfigError(f"network_width = {width} and network_height = {height}; set both, or neither")
        self.network_backends: dict[str, str] = {}
        """What runs each network, for diagnostics; empty while they are loaded."""
        self.backend_reasons: tuple[str, ...] = ()
        """Why nothing better runs them, a sentence each."""
        self.opening = Opening(self)
        self.camera = CameraInput(self, self.configs[InputConfig])
        self.create_service(SetBool, "~/pause", self._pause)
        self._rectifier: FrameRectifier | None = None
        self._network_size = (0, 0)
        self._waits_for_size = may_build(self.configs[NetworkConfig].backend) and not width
        """An engine is built for one size: not before the first image, whose shape decides it."""
        self._error: Exception | None = None
        self._error_signal = self.create_guard_condition(self._raise_error)

    def start_worker(self) -> None:
        """Begin to load the networks, and then to work."""
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)
        self._worker.start()

    def set_active(self, active: bool) -> None:
        """See ManagedNode."""
        self.camera.pause(not active)

    def teardown(self) -> None:
        """Let the frame at hand be finished, and stop."""
        self.opening.is_over = True
        self.camera.close()
        self._worker.join()

    # ------------------------------------------------------------------------------------ what a subclass gives
    def models(self) -> list[Manifest]:
        """The models of the networks, the one that recommends the size first."""
        raise NotImplementedError

    def load(self, width: int, height: int) -> None:
        """Load the networks for images of width x height, and take them into use."""
        raise NotImplementedError

    def camera_changed(self) -> None:
        """The next frame comes from another camera or in another size: nothing before it can be compared with it."""

    def process(self, image: CameraImage, frame: Frame, prepare_ms: dict[str, float]) -> bool:
        """Answer one frame; False when something that :meth:`missing` names kept it from being published.

        prepare_ms: what decoding and rectifying it cost.
        """
        raise NotImplementedError

    def missing(self) -> list[str]:
        """See ManagedNode."""
        if not self.network_backends and not self._waits_for_size:
            return [self.opening.work or "the networks are still being loaded"]
        return self.camera.problems()

    def network_loaded(self, network: NetworkFlow | NetworkDepth) -> None:
        """Tell what runs a network and, once, why nothing better does."""
        self.network_backends[network.manifest.name] = network.backend
        text = f"{network.manifest.name} runs at {network.width} x {network.height} on {network.backend}"
        if network.backend_reasons and network.backend_reasons != self.backend_reasons:
            self.backend_reasons = network.backend_reasons
            text += f" (not on {'; not on '.join(network.backend_reasons)})"
        self.get_logger().info(text)

    # -------------------------------------------------------------------------------------------- the worker
    def _work(self) -> None:
        network = self.configs[NetworkConfig]
        try:
            models = self.models()
            recommended, multiple = models[0].recommended_size, math.lcm(*(m.inputs.multiple_of for m in models))
            size = (network.network_width, network.network_height) if network.network_width else recommended
            if not self._waits_for_size:
                self._load(size)  # before the first image, so that a missing or broken model is told at once
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
            if self.opening.is_over and isinstance(error, EngineError):
                return  # a build that was given up
            self._error = error
            if self.context.ok():  # else: an error of publishing after the signal that ends us
                self._error_signal.trigger()

    def _load(self, size: tuple[int, int]) -> None:
        """Without the lock: callbacks and diagnostics go on while an engine is built."""
        self._waits_for_size = False
        self.load(*size)
        self._network_size = size

    def _raise_error(self) -> None:
        """In the executor's thread, whose error ends the process."""
        if self._error is not None:
            raise self._error

    def _frame(self, image: CameraImage, recommended: tuple[int, int], multiple: int) -> Frame:
        if self._rectifier is None or image.model != self._rectifier.model:
            size = self._size_for(image.model, recommended, multiple)
            if size != self._network_size:
                self._load(size)
            with self.lock:
                if self._rectifier is not None:
                    self.get_logger().info(
                        f"the camera changed to {image.model.image_width} x {image.model.image_height} pixels; "
                        "going on from the last pose with a new pair of frames"
                    )
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
        if self.phase != "active":
            response.success, response.message = False, self.problems()[0]
            return response
        self.camera.pause(request.data)
        response.success = True
        response.message = "paused: images are ignored" if request.data else "running"
        return response

    def details(self) -> list[DiagnosticStatus]:
        """See ManagedNode."""
        camera = self.camera
        rate = self.health.rate("images", camera.received)
        images = messages.diagnostic_status(
            DiagnosticStatus.OK if rate > 0 or camera.paused else DiagnosticStatus.WARN,
            f"{self.get_name()}: images",
            "paused" if camera.paused else "arriving" if rate > 0 else "none in the last second",
            {
                "topic": camera.topic,
                "rate_hz": rate,
                "delay_ms": camera.delay_ms,
                "received": camera.received,
                "dropped": camera.dropped,
                "refused": camera.refused,
                "last_refusal": camera.refusal,
            },
        )
        ready = bool(self.network_backends) and not self.opening.work
        state = "waiting for the first image, whose shape decides their size" if self._waits_for_size else "loading"
        networks = messages.diagnostic_status(
            DiagnosticStatus.OK if ready and not self.opening.warnings else DiagnosticStatus.WARN,
            f"{self.get_name()}: networks",
            "; ".join(["ready" if ready else self.opening.work or state, *self.opening.warnings]),
            {
                "size": f"{self._network_size[0]} x {self._network_size[1]}",
                **self.network_backends,
                **{f"not on {i}": reason for i, reason in enumerate(self.backend_reasons, 1)},
            },
        )
        return [images, networks]
