"""``depth_pose check-camera TOPIC``: listens to a camera for some seconds and says what is wrong with it, and the fix.

Judges what vo_node would meet: topic, QoS, CameraInfo, encoding, rectification, rate, stamps, exposure and transform.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import cv2
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import CameraError, ImageError
from depth_pose_ros.nodes import messages
from depth_pose_ros.nodes.camera_input import OUTPUTS
from depth_pose_ros.nodes.topics import is_rectified
from depth_pose_ros.nodes.transforms import TransformListener

OK, WARNING, FAULT = "ok", "warning", "fault"

DISCOVERY = 4.0  # s at least in which publishers are looked for before they are taken to be absent
LOOKED_AT = 12  # images that are decoded
MIN_RATE = 5.0  # Hz: below, a camera that turns sees too little twice
MAX_AGE = 1.0  # s between an image's stamp and now
MAX_LOST = 0.05  # share of images
DARK, BRIGHT, FLAT = 25.0, 230.0, 4.0  # grey levels: median brightness, likewise, standard deviation
SATURATED = 0.4  # share of pixels
FLICKER = 0.1  # relative change of the brightness from image to image
FIELD_OF_VIEW = (15.0, 175.0)  # deg, of any lens that is sold
IMAGES = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: ``level`` is ok, warning or fault; ``fix`` says what to do unless it is ok."""

    check: str
    level: str
    found: str
    fix: str = ""


class CameraCheck:
    """Listens to one camera and judges it afterwards."""

    def __init__(
        self, node: Node, topic: str, seconds: float, camera_info: str | None = None, reliable: bool = False
    ) -> None:
        """Nothing is received before :meth:`subscribe` finds a publisher. ``camera_info`` None: beside the images."""
        self.topic = node.resolve_topic_name(topic)
        base = self.topic.removesuffix("/compressed")
        self.camera_info_topic = node.resolve_topic_name(camera_info or base.rpartition("/")[0] + "/camera_info")
        self.is_rectified = is_rectified(base)
        self._node = node
        self._seconds = seconds
        self._qos = QoSProfile(
            depth=10, reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        )
        self._stamps: list[int] = []
        self._ages: list[float] = []
        self._sums: list[int] = []
        self._levels: list[float] = []
        self._kept: list[Image | CompressedImage] = []
        self._keep_at = 0.0
        self.listening_since: float | None = None
        self._info: CameraInfo | None = None
        self._infos = 0
        self.frame_id = ""

    @property
    def publishers(self) -> list:
        """Of the image topic."""
        return self._node.get_publishers_info_by_topic(self.topic)

    def subscribe(self) -> None:
        """Take what comes from now on, if there is a publisher; its type says what to take."""
        publishers = self.publishers
        if self.listening_since is not None or not publishers:
            return
        self.listening_since = time.monotonic()
        kind = next((IMAGES[p.topic_type] for p in publishers if p.topic_type in IMAGES), None)
        if kind is not None:
            self._node.create_subscription(kind, self.topic, self._take_image, self._qos)
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._node.create_subscription(CameraInfo, self.camera_info_topic, self._take_info, qos)

    def _take_image(self, message: Image | CompressedImage) -> None:
        stamp = messages.stamp_ns(message.header.stamp)
        self._stamps.append(stamp)
        self._ages.append((self._node.get_clock().now().nanoseconds - stamp) / 1e9)
        self._sums.append(zlib.adler32(memoryview(message.data)))
        if isinstance(message, Image):
            self._levels.append(float(np.frombuffer(message.data, np.uint8)[::61].mean()) if message.data else 0.0)
        self.frame_id = message.header.frame_id
        if time.monotonic() >= self._keep_at:
            self._kept.append(message)
            self._keep_at = time.monotonic() + self._seconds / LOOKED_AT

    def _take_info(self, message: CameraInfo) -> None:
        self._info = message
        self._infos += 1

    # --------------------------------------------------------------------------------------------------- judgement
    def findings(self, transforms: TransformListener, base_frame: str) -> list[Finding]:
        """Everything that was looked at, in the order in which it matters; what depends on a fault is left out."""
        found = [self._check_topic()]
        if found[0].level == FAULT:
            return found
        found.append(self._check_qos())
        if not self._stamps:
            if found[-1].level != FAULT:
                found.append(
                    Finding(
                        "images",
                        FAULT,
                        f"{self.topic} has a publisher, but no image arrives",
                        "look at the driver's log; if it does publish, its shared memory may be too small for its "
                        "images: start it with the package's config/fastdds.xml, or set image_qos:=reliable",
                    )
                )
            return found
        images, encoding = self._decode()
        found.append(encoding)
        found += self._check_camera(images)
        found += [self._check_rate(), self._check_stamps()]
        if images:
            found.append(self._check_exposure(images))
        found.append(self._check_transform(transforms, base_frame))
        return found

    def _check_topic(self) -> Finding:
        publishers = self.publishers
        if not publishers:
            others = sorted(
                name
                for name, types in self._node.get_topic_names_and_types()
                if any(kind in IMAGES for kind in types) and not name.endswith(OUTPUTS) and name != self.topic
            )
            hint = f"name one of those that have images: {', '.join(others[:5])}" if others else "start the driver"
            return Finding("topic", FAULT, f"nobody publishes {self.topic}", f"{hint}; ros2 topic list shows all")
        kinds = sorted({publisher.topic_type for publisher in publishers})
        if not any(kind in IMAGES for kind in kinds):
            return Finding(
                "topic", FAULT, f"{self.topic} carries {', '.join(kinds)}, no images", "name the camera's image topic"
            )
        if len(publishers) > 1:
            names = ", ".join(sorted(f"{p.node_namespace.rstrip('/')}/{p.node_name}" for p in publishers))
            return Finding(
                "topic",
                FAULT,
                f"{len(publishers)} publishers on {self.topic} ({names}): their images would be mixed",
                "give each camera a namespace of its own, and stop a driver that was started twice",
            )
        if kinds == ["sensor_msgs/msg/CompressedImage"]:
            base = self.topic.removesuffix("/compressed")
            return Finding("topic", OK, f"compressed images; start with image:={base} image_transport:=compressed")
        return Finding("topic", OK, f"one publisher of {kinds[0]}")

    def _check_qos(self) -> Finding:
        offered = self.publishers[0].qos_profile if self.publishers else self._qos
        compatibility, reason = qos_check_compatible(offered, self._qos)
        if compatibility == QoSCompatibility.ERROR:
            fix = "set image_qos:=sensor_data, or let the driver publish reliably"
            if "urability" in reason:
                fix = "remove the durability override of the subscription"
            return Finding("QoS", FAULT, f"incompatible: {reason.strip()}", fix)
        best_effort = offered.reliability == ReliabilityPolicy.BEST_EFFORT
        kind = "best effort" if best_effort else "reliable"
        limit = "; image_qos:=reliable would get nothing" if best_effort else ""
        return Finding("QoS", OK, f"the publisher is {kind}{limit}")

    def _decode(self) -> tuple[list[np.ndarray], Finding]:
        images = []
        for message in self._kept:
            try:
                if isinstance(message, Image):
                    images.append(messages.image_from_message(message))
                else:
                    images.append(messages.image_from_compressed(message))
            except ImageError as error:
                fix = "set an encoding in the driver that is known, e.g. bgr8, mono8 or yuv422_yuy2"
                if images:  # some can be read: the driver or the cable damages others
                    fix = "look for errors of the driver and of the cable"
                return [], Finding("encoding", FAULT, str(error), fix)
        first, image = self._kept[0], images[0]
        name = first.encoding if isinstance(first, Image) else first.format
        return images, Finding("encoding", OK, f"{name}, {image.shape[1]} x {image.shape[0]} pixels")

    def _check_camera(self, images: list[np.ndarray]) -> list[Finding]:
        """CameraInfo and rectification."""
        if self._info is None:
            return [
                Finding(
                    "CameraInfo",
                    FAULT,
                    f"nothing on {self.camera_info_topic}",
                    "let the driver publish it, name it (camera_info:=TOPIC), or give the node a calibration file with "
                    "the parameter camera_info_url",
                )
            ]
        try:
            model = CameraModel.from_camera_info(self._info)
        except CameraError as error:
            fix = "calibrate the camera (ros2 run camera_calibration cameracalibrator) and load the file in the driver"
            return [Finding("CameraInfo", FAULT, str(error), fix)]
        size = (model.image_width, model.image_height)
        if images and size != images[0].shape[1::-1]:
            return [
                Finding(
                    "CameraInfo",
                    FAULT,
                    f"for {size[0]} x {size[1]} pixels, but the images have "
                    f"{images[0].shape[1]} x {images[0].shape[0]}",
                    "load the calibration of this resolution, or set binning and roi; a resize node must scale it too",
                )
            ]
        camera = model.pinhole
        angle = 2 * math.degrees(math.atan(0.5 * camera.width / camera.fx))
        off = abs(camera.cx / camera.width - 0.5), abs(camera.cy / camera.height - 0.5)
        if not FIELD_OF_VIEW[0] < angle < FIELD_OF_VIEW[1] or max(off) > 0.25 or not 0.8 < camera.fx / camera.fy < 1.25:
            return [
                Finding(
                    "CameraInfo",
                    FAULT,
                    f"implausible: fx {camera.fx:.1f}, fy {camera.fy:.1f}, cx {camera.cx:.1f}, cy {camera.cy:.1f} for "
                    f"{camera.width} x {camera.height} pixels ({angle:.0f} deg wide)",
                    "it is of another resolution or camera: calibrate again at this resolution",
                )
            ]
        found = [Finding("CameraInfo", OK, f"{angle:.0f} deg wide, fx {camera.fx:.1f}, fy {camera.fy:.1f} pixels")]
        if self.is_rectified:
            found.append(Finding("rectification", OK, "rectified before, by the topic's name"))
        elif model.is_rectified:
            found.append(
                Finding(
                    "rectification",
                    WARNING,
                    "CameraInfo tells no distortion, though the topic's name does not say that it is rectified",
                    "nothing, if the driver rectifies (ZED does); else calibrate the camera: every lens bends lines",
                )
            )
        else:
            found.append(Finding("rectification", OK, f"{model.distortion_model} distortion, undone by the node"))
        return found

    def _check_rate(self) -> Finding:
        steps = np.diff(np.array(self._stamps)) / 1e9
        steps = steps[steps > 0]
        if len(steps) < 2:
            if len(self._stamps) > 2:
                return Finding("rate", OK, f"{len(self._stamps)} images; their stamps do not tell the rate")
            return Finding("rate", FAULT, f"{len(self._stamps)} images in all", "raise the driver's frame rate")
        period = float(np.median(steps))
        lost = int(np.sum(np.round(steps / period) - 1))
        share = lost / (len(steps) + lost)
        told = f"{1 / period:.1f} Hz by the stamps"
        if 1 / period < MIN_RATE:
            fix = f"raise the frame rate above {MIN_RATE:g} Hz: shorter exposure, smaller images, a faster bus"
            return Finding("rate", FAULT, told + ": too slow to follow turns", fix)
        if share > MAX_LOST:
            return Finding(
                "rate",
                WARNING,
                f"{told}, but {100 * share:.0f} % of the images do not arrive",
                "start the driver with the package's config/fastdds.xml, or set image_qos:=reliable; over a network, "
                "compress (image_transport:=compressed)",
            )
        return Finding("rate", OK, f"{told}, {100 * share:.0f} % lost")

    def _check_stamps(self) -> Finding:
        steps = np.diff(np.array(self._stamps))
        if max(self._stamps) <= 0 or (steps <= 0).mean() > 0.2:
            what = "are zero" if max(self._stamps) <= 0 else "do not increase from image to image"
            return Finding(
                "stamps", FAULT, f"the stamps {what}", "let the driver stamp each image with the time of its exposure"
            )
        if (steps <= 0).any():
            told = f"{(steps <= 0).sum()} of {len(steps)} stamps are not after the one before"
            return Finding("stamps", WARNING, told, "update the driver; such images are refused")
        age = float(np.median(self._ages))
        if not -0.1 < age < MAX_AGE:
            how = "behind" if age > 0 else "ahead of"
            return Finding(
                "stamps",
                WARNING,
                f"stamps are {abs(age):.1f} s {how} this computer's clock",
                "synchronise the clocks (chrony, PTP) or take the system's time in the driver; for a bag, play it with "
                "--clock and set use_sim_time:=true",
            )
        return Finding("stamps", OK, f"{1e3 * age:.0f} ms old on arrival")

    def _check_exposure(self, images: list[np.ndarray]) -> Finding:
        grays = [image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in images]
        if len(self._sums) > 3 and len(set(self._sums)) == 1:
            return Finding(
                "exposure", FAULT, "every image is the same, bit by bit", "the driver repeats one image: restart it"
            )
        level = float(np.median([np.median(gray) for gray in grays]))
        contrast = float(np.median([gray.std() for gray in grays]))
        saturated = float(np.mean([(gray >= 250).mean() for gray in grays]))
        told = f"median brightness {level:.0f} of 255, contrast {contrast:.0f}"
        if level < DARK:
            return Finding(
                "exposure",
                FAULT,
                f"{told}: dark",
                "take off the lens cap; more light or gain, or a longer exposure (below 10 ms)",
            )
        if level > BRIGHT or saturated > SATURATED:
            told += f", {100 * saturated:.0f} % saturated"
            return Finding(
                "exposure", FAULT, f"{told}: overexposed", "switch on auto exposure, or shorten the exposure"
            )
        if contrast < FLAT:
            return Finding(
                "exposure", FAULT, f"{told}: nothing to see", "look at the lens (cap, fog) and at the exposure"
            )
        change = np.abs(np.diff(self._levels)) / np.maximum(self._levels[:-1], 1.0) if len(self._levels) > 2 else [0.0]
        if np.median(change) > FLICKER:
            return Finding(
                "exposure",
                WARNING,
                f"the brightness changes by {100 * float(np.median(change)):.0f} % from image to image",
                "set the power line frequency (50 or 60 Hz) in the driver, or fix exposure and gain",
            )
        return Finding("exposure", OK, told)

    def _check_transform(self, transforms: TransformListener, base_frame: str) -> Finding:
        frame = self.frame_id
        if not frame:
            fix = "set frame_id in the driver to the camera's optical frame, or camera_frame:=NAME here"
            return Finding("transform", FAULT, "the images' headers name no frame", fix)
        if not base_frame:
            told = f"frame {frame}; its transform was not looked at (give --base-frame base_link if you set base_frame)"
            return Finding("transform", OK, told)
        T = transforms.lookup(base_frame, frame)
        if T is None:
            return Finding(
                "transform",
                FAULT,
                transforms.missing(base_frame, frame).split(";")[0],
                f"publish it: robot_state_publisher, or ros2 run tf2_ros static_transform_publisher --x 0.3 --z 0.5 "
                f"--roll -1.5708 --yaw -1.5708 --frame-id {base_frame} --child-frame-id {frame}",
            )
        right, down, forward = T[:3, :3].T  # the optical axes in the base's, whose z is up
        if right[0] > 0.8 and forward[2] > 0.8:
            return Finding(
                "transform",
                FAULT,
                f"{frame} has the axes of a body (x forward, z up), not of an image (z forward, x right)",
                f"add an optical frame, ros2 run tf2_ros static_transform_publisher --roll -1.5708 --yaw -1.5708 "
                f"--frame-id {frame} --child-frame-id {frame}_optical, and set camera_frame:={frame}_optical",
            )
        if down[2] > 0.5:
            fix = "turn the image in the driver, or correct the transform"
            return Finding("transform", WARNING, f"by the transform from {base_frame} the camera is upside down", fix)
        x, y, z = T[:3, 3]
        return Finding("transform", OK, f"{base_frame} -> {frame} at x {x:.2f}, y {y:.2f}, z {z:.2f} m")


def check_cameras(
    topics: Sequence[str],
    seconds: float = 10.0,
    camera_info: str | None = None,
    base_frame: str = "",
    reliable: bool = False,
) -> dict[str, list[Finding]]:
    """Listen to several cameras at once; the findings by topic. rclpy must be initialised."""
    node = rclpy.create_node("check_camera")
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    start = look = time.monotonic()
    try:
        transforms = TransformListener(node)
        checks = [CameraCheck(node, topic, seconds, camera_info, reliable) for topic in topics]

        def end(check: CameraCheck) -> float:
            since = check.listening_since
            return start + max(seconds, DISCOVERY) if since is None else since + seconds

        while rclpy.ok() and time.monotonic() < max(end(check) for check in checks):
            if time.monotonic() >= look:
                look = time.monotonic() + 0.2
                for check in checks:
                    check.subscribe()
            executor.spin_once(timeout_sec=0.05)
        return {check.topic: check.findings(transforms, base_frame.lstrip("/")) for check in checks}
    finally:
        executor.shutdown()
        node.destroy_node()


# ------------------------------------------------------------------------------------------------ the command line
def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose check-camera``."""
    parser.add_argument("topics", nargs="+", metavar="TOPIC", help="image topic, e.g. /camera/image_raw")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to listen (default: 10)")
    parser.add_argument("--camera-info", metavar="TOPIC", help="CameraInfo, when it is not beside the image topic")
    parser.add_argument("--base-frame", default="", metavar="FRAME", help="check its transform to the camera, too")
    parser.add_argument(
        "--image-qos", choices=("sensor_data", "reliable"), default="sensor_data", help="as vo_node's parameter"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def check(arguments: argparse.Namespace) -> int:
    """Listen, print; 1 when there is a fault."""
    rclpy.init()
    try:
        if not arguments.json:
            print(f"Listening for {arguments.seconds:g} s ...", flush=True)
        found = check_cameras(
            arguments.topics,
            arguments.seconds,
            arguments.camera_info,
            arguments.base_frame,
            reliable=arguments.image_qos == "reliable",
        )
    finally:
        rclpy.try_shutdown()
    if arguments.json:
        print(json.dumps({topic: [asdict(finding) for finding in findings] for topic, findings in found.items()}))
    else:
        for topic, findings in found.items():
            print(f"\n{topic}")
            for finding in findings:
                print(f"  {finding.level.upper() if finding.level != OK else OK:8} {finding.check:14} {finding.found}")
                if finding.fix:
                    print(f"{'':26}fix: {finding.fix}")
    return int(any(finding.level == FAULT for findings in found.values() for finding in findings))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``check_camera``, for ``ros2 run``."""
    parser = argparse.ArgumentParser(prog="check_camera", description=__doc__.splitlines()[0])
    add_arguments(parser)
    return check(parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
