"""Images and their camera as a node receives them: the latest frame wins, and what is missing has a name."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.config import InputConfig
from depth_pose_ros.errors import CameraError, ImageError
from depth_pose_ros.nodes import messages, topics
from depth_pose_ros.nodes.health import SILENCE

CAMERA_INFO_WAIT = 0.5
"""Seconds that an image waits for its CameraInfo: drivers send the two at once, and either may come first."""

JUMP_BACK_NS = 1_000_000_000
"""Stamps that go back by more are a new recording or a clock that was set, not two frames that overtook each other."""

OUTPUTS = ("depth/image", "flow/image", "matches/image")
"""Topics of this package, which are no camera's."""


class OutOfOrderError(ImageError):
    """An image whose stamp is not later than the one before it."""


@dataclass(frozen=True)
class CameraImage:
    """One decoded image that fits its camera.

    image:       (H, W, 3) BGR or (H, W) gray, uint8, as the camera sent it.
    jumped_back: stamps start again at an earlier time; nothing before this image can be compared with it.
    received_at: on the monotonic clock, in seconds.
    decode_ms:   what decoding cost.
    """

    stamp_ns: int
    frame_id: str
    image: np.ndarray
    model: CameraModel
    jumped_back: bool
    received_at: float
    decode_ms: float


class CameraInput:
    """Subscriptions to the images and the CameraInfo of one camera, and the slot in which the latest image waits.

    The executor's thread only fills the slot; decoding is done by whoever calls :meth:`next`, for the images that are
    used. Counters are written by one thread each and read by any.
    """

    def __init__(self, node: Node, config: InputConfig) -> None:
        self.received = 0
        self.dropped = 0
        self.refused = 0
        self.refusal = ""
        self.delay_ms = math.nan
        """From the stamp of the last image that could be used to its arrival in the worker."""
        self.paused = True  # until :meth:`pause` says otherwise
        self._node = node
        self._config = config
        self._slot: deque[tuple[Image | CompressedImage, float]] = deque()  # with the time of arrival
        self._changed = threading.Condition()
        self._closed = False
        self._models: dict[tuple[int, int], CameraModel] = {}  # by the size of the images they belong to
        self._camera_problem = ""
        self._last_stamp_ns: int | None = None
        self._out_of_order = False
        self._refused_at = -math.inf
        self._arrived_at = self._accepted_at = time.monotonic()

        base = node.resolve_topic_name("image")
        self._type = CompressedImage if config.image_transport == "compressed" else Image
        if self._type is CompressedImage:
            base = base.removesuffix("/compressed")
            self.topic = base + "/compressed"
        else:
            self.topic = base
        self.camera_info_topic = topics.camera_info_topic(node, base)
        self.is_rectified = topics.is_rectified(base)
        best_effort = config.image_qos == "sensor_data"
        reliability = ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE
        qos = QoSProfile(depth=10, reliability=reliability)
        self._subscription = topics.subscribe(node, self._type, self.topic, self._take_image, qos)
        if config.camera_info_url:
            self._keep(CameraModel.from_yaml(config.camera_info_url.removeprefix("file://")))
        else:
            qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
            topics.subscribe(node, CameraInfo, self.camera_info_topic, self._take_camera_info, qos)

    # ------------------------------------------------------------------------------------- the executor's thread
    def _take_image(self, message: Image | CompressedImage) -> None:
        self._arrived_at = time.monotonic()
        self.received += 1
        if self.paused:
            return
        with self._changed:
            while len(self._slot) >= self._config.queue_size:
                self._slot.popleft()
                self.dropped += 1
            self._slot.append((message, self._arrived_at))
            self._changed.notify_all()

    def _take_camera_info(self, message: CameraInfo) -> None:
        try:
            model = CameraModel.from_camera_info(message)
        except CameraError as error:
            self._camera_problem = f"the CameraInfo on {self.camera_info_topic} cannot be used: {error}"
            self._node.get_logger().warning(self._camera_problem, throttle_duration_sec=SILENCE)
            return
        self._camera_problem = ""
        self._keep(model)

    def _keep(self, model: CameraModel) -> None:
        with self._changed:
            self._models.pop((model.image_width, model.image_height), None)  # the latest is the last of the dict
            self._models[model.image_width, model.image_height] = model
            while len(self._models) > 8:
                self._models.pop(next(iter(self._models)))
            self._changed.notify_all()

    # --------------------------------------------------------------------------------------- the worker's thread
    def next(self) -> CameraImage | None:
        """Wait for the next image that can be used. None once :meth:`close` was called."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._slot or self._closed)
                if self._closed:
                    return None
                message, received_at = self._slot.popleft()
            try:
                return self._check(message, received_at)
            except OutOfOrderError as error:
                self.refused += 1
                if not self._out_of_order:
                    self._node.get_logger().warning(f"images refused: {error}")
                self._out_of_order = True
            except (ImageError, CameraError) as error:
                self.refuse(str(error))

    def _check(self, message: Image | CompressedImage, received_at: float) -> CameraImage:
        stamp_ns = messages.stamp_ns(message.header.stamp)
        jumped_back = self._check_stamp(stamp_ns)
        start = time.perf_counter()
        if self._type is CompressedImage:
            image = messages.image_from_compressed(message)
        else:
            image = messages.image_from_message(message)
        decode_ms = 1e3 * (time.perf_counter() - start)
        size = (image.shape[1], image.shape[0])
        with self._changed:
            self._changed.wait_for(lambda: size in self._models or self._closed, timeout=CAMERA_INFO_WAIT)
            model = self._models.get(size)
        if model is None:
            raise CameraError(self._why_no_camera(size))
        frame_id = self._config.camera_frame or message.header.frame_id
        if not frame_id:
            raise ImageError("the image's header names no frame_id; set it in the driver, or set camera_frame here")
        self._last_stamp_ns = stamp_ns
        self._out_of_order = False
        self._accepted_at = time.monotonic()
        self.delay_ms = 1e-6 * (self._node.get_clock().now().nanoseconds - stamp_ns)
        return CameraImage(stamp_ns, frame_id, image, model, jumped_back, received_at, decode_ms)

    def _check_stamp(self, stamp_ns: int) -> bool:
        """True for stamps that start again at an earlier time. ImageError for a frame that is not newer."""
        last = self._last_stamp_ns
        if last is None or stamp_ns > last:
            return False
        if stamp_ns < last - JUMP_BACK_NS:
            self._node.get_logger().warning(
                f"stamps jumped back by {(last - stamp_ns) / 1e9:.3f} s (a bag that starts again, or a clock that was "
                "set); going on from the last pose with a new pair of frames"
            )
            return True
        how = "the same stamp as" if stamp_ns == last else f"a stamp {(last - stamp_ns) / 1e6:.1f} ms before"
        raise OutOfOrderError(f"image with {how} the one before it; images must come in the order of their stamps")

    def _why_no_camera(self, size: tuple[int, int]) -> str:
        if self._camera_problem:
            return self._camera_problem
        known = ", ".join(f"{width} x {height}" for width, height in self._models)
        if known:
            where = self._config.camera_info_url or self.camera_info_topic
            return (
                f"image of {size[0]} x {size[1]} pixels, but the CameraInfo of {where} is for {known}; give the one "
                "that belongs to this image (scaled with it, or with binning and roi set)"
            )
        return (
            f"no CameraInfo on {self.camera_info_topic}; publish it, remap camera_info, "
            "or set camera_info_url to a calibration file"
        )

    def refuse(self, reason: str) -> None:
        """Count an image that cannot be used and say why, at most once in five seconds for the same reason."""
        self.refused += 1
        now = time.monotonic()
        if reason != self.refusal or now - self._refused_at > SILENCE:
            self._node.get_logger().warning(f"image refused: {reason}")
            self._refused_at = now
        self.refusal = reason

    # --------------------------------------------------------------------------------------------------- control
    def pause(self, paused: bool) -> None:
        """Ignore images from now on, or take them again."""
        with self._changed:
            self.paused = paused
            self._slot.clear()

    def close(self) -> None:
        """Let :meth:`next` return None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ---------------------------------------------------------------------------------------------- what is missing
    def problems(self) -> list[str]:
        """What kept every image of the last five seconds from being used, a sentence each; empty when all is well."""
        now = time.monotonic()
        if self.paused:
            return ["paused; call ~/pause with data: false to go on"]
        if now - self._arrived_at > SILENCE:
            missing = [self._why_no_image()]
            if not self._models:
                missing.append(self._camera_problem or self._why_no_camera((0, 0)))
            return missing
        if now - self._accepted_at > SILENCE and self.refusal:
            return [f"every image is refused: {self.refusal}"]
        return []

    def _why_no_image(self) -> str:
        why = topics.why_silent(self._node, self._subscription)
        publishers = self._node.get_publishers_info_by_topic(self.topic)
        if not publishers:
            wanted = topics.ros_type(self._type)
            own = dict(self._node.get_publisher_names_and_types_by_node(*self._name))
            others = [name for name, types in self._node.get_topic_names_and_types() if wanted in types]
            others = [n for n in others if n not in own and not n.endswith(OUTPUTS) and n != self.topic]
            hint = f"there are images on {', '.join(sorted(others)[:5])}; remap image" if others else "start the camera"
            return f"{why} ({hint})"
        transports = {"sensor_msgs/msg/Image": "raw", "sensor_msgs/msg/CompressedImage": "compressed"}
        types = {publisher.topic_type for publisher in publishers}
        if topics.ros_type(self._type) not in types:
            transport = next((transports[t] for t in types if t in transports), None)
            return f"{why}; set image_transport to {transport}" if transport else why
        if self._subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE:
            return f"{why}; set image_qos to sensor_data" if "best effort" in why else why
        return (
            f"{why}; if it should, the publisher's shared memory may be too small for its images: set image_qos to "
            "reliable here, or start the publisher with the package's config/fastdds.xml"
        )

    @property
    def _name(self) -> tuple[str, str]:
        return self._node.get_name(), self._node.get_namespace()
