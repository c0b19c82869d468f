"""What every node with a camera has in common: its input, and the threads that see and answer its images."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import SetBool

from depth_pose_ros.camera import CameraModel, FrameRectifier, network_size
from depth_pose_ros.config import EngineConfig, InputConfig, NetworkConfig, Tunables
from depth_pose_ros.engines import Manifest, NetworkDepth, NetworkFlow, may_build
from depth_pose_ros.errors import CameraError, ConfigError, EngineError, ImageError
from depth_pose_ros.images import read_mask
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.camera_input import CameraImage, CameraInput
from depth_pose_ros.nodes.managed_node import ManagedNode
from depth_pose_ros.nodes.opening import Opening
from depth_pose_ros.odometry import Frame
from depth_pose_ros.pipeline import one_ahead


@dataclass(frozen=True)
class SeenImage:
    """An image on its way to the answer.

    seen:       what :meth:`CameraNode.see` made of the frame.
    is_new:     nothing before it can be compared with it: another camera or size, or stamps that start again.
    prepare_ms: what decoding and rectifying it cost.
    """

    image: CameraImage
    frame: Frame
    seen: Any
    is_new: bool
    prepare_ms: dict[str, float]


class CameraNode(ManagedNode):
    """A node that answers the images of one camera, one at a time and in their order, in threads of its own.

    A subclass gives :meth:`load`, :meth:`see` and :meth:`process`, and calls :meth:`start_worker` at the end of its
    ``setup``. One thread loads and sees; another one, meanwhile, processes the frame before with ``self.lock`` held:
    callbacks that touch the same things take it, and what ``see`` and ``process`` share goes through what is seen.
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
        """What runs each network, and its files, for diagnostics; empty while they are loaded."""
        self.backend_reasons: tuple[str, ...] = ()
        """Why nothing better runs them, a sentence each."""
        self.opening = Opening(self)
        mask = self.configs[InputConfig].mask
        self._mask = read_mask(mask) if mask else None
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

    def see(self, frame: Frame) -> Any:
        """What the networks make of this frame alone. It must not depend on frames before."""
        raise NotImplementedError

    def process(self, image: SeenImage) -> bool:
        """Answer one frame; False when something that :meth:`missing` names kept it from being published."""
        raise NotImplementedError

    def missing(self) -> list[str]:
        """See ManagedNode."""
        if not self.network_backends and not self._waits_for_size:
            return [self.opening.work or "the networks are still being loaded"]
        return self.camera.problems()

    def network_loaded(self, network: NetworkFlow | NetworkDepth) -> None:
        """Tell what runs a network and, once, why nothing better does."""
        self.network_backends[network.manifest.name] = network.runs_on
        text = f"{network.manifest.name} runs at {network.input_size[0]} x {network.input_size[1]} on {network.runs_on}"
        if network.backend_reasons and network.backend_reasons != self.backend_reasons:
            self.backend_reasons = network.backend_reasons
            text += f" (not on {'; not on '.join(network.backend_reasons)})"
        self.get_logger().info(text)

    # ------------------------------------------------------------------------------------------- the threads
    def _work(self) -> None:
        try:
            for image in one_ahead(self._see_images(), "see"):
                with self.lock:
                    answered = self.process(image)
                if answered:
                    self.health.output(1e3 * (time.monotonic() - image.image.received_at))
        except Exception as error:
            if self.opening.is_over and isinstance(error, EngineError):
                return  # a build that was given up
            self._error = error
            if self.context.ok():  # else: an error of publishing after the signal that ends us
                self._error_signal.trigger()

    def _see_images(self) -> Iterator[SeenImage]:
        """Load the networks; then each image that can be used, as it is seen. Runs in a thread of its own."""
        network = self.configs[NetworkConfig]
        models = self.models()
        recommended, multiple = models[0].recommended_size, math.lcm(*(m.inputs.multiple_of for m in models))
        size = (network.network_width, network.network_height) if network.network_width else recommended
        if not self._waits_for_size:
            self._load(size)  # before the first image, so that a missing or broken model is told at once
        while (image := self.camera.next()) is not None:
            try:
                start = time.perf_counter()
                changed = self._rectifier is None or image.model != self._rectifier.model
                if changed:
                    self._take_camera(image.model, recommended, multiple)
                bgr, gray = self._rectifier(image.image)
                frame = Frame(image.stamp_ns, bgr, gray, self._rectifier.camera, self._rectifier.mask)
                rectify_ms = 1e3 * (time.perf_counter() - start)
            except (ImageError, CameraError) as error:
                self.camera.refuse(str(error))
                continue
            prepare_ms = {"decode": image.decode_ms, "rectify": rectify_ms}
            yield SeenImage(image, frame, self.see(frame), changed or image.jumped_back, prepare_ms)

    def _load(self, size: tuple[int, int]) -> None:
        """Callbacks, diagnostics and the answer to the image before go on meanwhile."""
        self._waits_for_size = False
        self.load(*size)
        self._network_size = size

    def _raise_error(self) -> None:
        """In the executor's thread, whose error ends the process."""
        if self._error is not None:
            raise self._error

    def _take_camera(self, model: CameraModel, recommended: tuple[int, int], multiple: int) -> None:
        size = self._size_for(model, recommended, multiple)
        if size != self._network_size:
            self._load(size)
        if self._rectifier is not None:
            self.get_logger().info(
                f"the camera changed to {model.image_width} x {model.image_height} pixels; "
                "going on from the last pose with a new pair of frames"
            )
        self._rectifier = self._make_rectifier(model, size)

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
        return FrameRectifier(model, size, gray_size, rectify, self._mask)

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
