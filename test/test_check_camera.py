"""``depth_pose check-camera`` over real DDS: a good camera, and one with each fault, all heard at once."""

import json
import math
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")

import rclpy
from ros_helpers import LATCHED, SENSOR
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import String
from tf2_msgs.msg import TFMessage

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.geometry.se3 import make_pose, so3_exp
from depth_pose_ros.nodes import messages

ROOT = Path(__file__).resolve().parents[1]
CAMERA = PinholeCamera(80, 60, 70.0, 70.0, 39.5, 29.5)
OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
RATE = 10  # Hz of the stamps; how fast the images really come is the machine's affair
SECONDS = 3.5

# By the name of the camera that has it: the check that must fail, a word of what is found, and one of the fix.
FAULTS = {
    "absent": ("topic", "nobody publishes", "/bright/image"),
    "words": ("topic", "std_msgs/msg/String", "image topic"),
    "twice": ("topic", "2 publishers", "namespace"),
    "no_info": ("CameraInfo", "nothing on /no_info/camera_info", "camera_info_url"),
    "zero_k": ("CameraInfo", "not calibrated", "cameracalibrator"),
    "other_size": ("CameraInfo", "160 x 120 pixels, but the images have 80 x 60", "resolution"),
    "other_lens": ("CameraInfo", "implausible", "calibrate again"),
    "encoding": ("encoding", "rgb10", "bgr8"),
    "slow": ("rate", "2.0 Hz", "exposure"),
    "stamps": ("stamps", "do not increase", "time of its exposure"),
    "dark": ("exposure", "dark", "light"),
    "bright": ("exposure", "overexposed", "auto exposure"),
    "frozen": ("exposure", "the same, bit by bit", "restart"),
    "no_frame": ("transform", "no frame", "camera_frame"),
    "no_transform": ("transform", "no transform between base_link and no_transform", "static_transform_publisher"),
    "not_optical": ("transform", "axes of a body", "not_optical_optical"),
}
WARNINGS = {
    "late": ("stamps", "behind this computer's clock", "chrony"),
    "no_distortion": ("rectification", "no distortion", "calibrate"),
    "flicker": ("exposure", "changes by", "power line"),
}
FINE = ("good", "compressed")


class Cameras:
    """All cameras in one thread, each under its own namespace, until closed."""

    def __init__(self) -> None:
        self._node = rclpy.create_node("cameras")
        self._texture = cv2.resize(np.random.default_rng(0).integers(30, 220, (30, 400), np.uint8), None, fx=2, fy=2)
        self._images, self._infos = {}, {}
        for name in (*FAULTS, *WARNINGS, *FINE):
            kind = {"words": String, "compressed": CompressedImage}.get(name, Image)
            topic = f"/{name}/image" + ("/compressed" if name == "compressed" else "")
            count = {"absent": 0, "twice": 2}.get(name, 1)
            self._images[name] = [self._node.create_publisher(kind, topic, 10) for _ in range(count)]
            if name != "no_info":
                self._infos[name] = self._node.create_publisher(CameraInfo, f"/{name}/camera_info", 10)
        self._tf = self._node.create_publisher(TFMessage, "/tf_static", LATCHED)
        transforms = []
        for name in (*FAULTS, *WARNINGS, *FINE):
            if name != "no_transform":
                T = make_pose(np.eye(3) if name == "not_optical" else OPTICAL @ so3_exp(np.full(3, 0.1)), np.ones(3))
                transforms.append(messages.transform_message(T, messages.header(0, "base_link"), name))
        self._tf.publish(TFMessage(transforms=transforms))
        self._start = time.time_ns()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self._thread.start()

    def _publish(self) -> None:
        tick = 0
        while not self._stop.wait(1 / RATE):
            for name, publishers in self._images.items():
                self._send(name, publishers, tick)
            tick += 1

    def _send(self, name: str, publishers: list, tick: int) -> None:
        if name == "words":
            publishers[0].publish(String(data="not an image"))
            return
        shift = 0 if name == "frozen" else 3 * tick % 600
        image = np.ascontiguousarray(self._texture[:, shift : shift + CAMERA.width])
        gain = {"dark": 0.08, "bright": 4.0, "flicker": 0.5 + 0.5 * (tick % 2)}.get(name, 1.0)
        image = np.clip(image * gain, 0, 255).astype(np.uint8)
        period = {"stamps": 0, "slow": 5 * 10**9 // RATE}.get(name, 10**9 // RATE)
        stamp = self._start + tick * period - (name == "late") * 100 * 10**9
        head = messages.header(stamp, "" if name == "no_frame" else name)
        if name in self._infos:
            scale = 2 if name == "other_size" else 1
            info = messages.camera_info_message(CAMERA.resized(80 * scale, 60 * scale), head)
            info.d = [0.0] * 5 if name == "no_distortion" else [-0.1, 0.01, 0.0, 0.0, 0.0]
            if name == "zero_k":
                info.k = np.zeros(9)
            if name == "other_lens":
                info.k[0] = info.k[4] = info.p[0] = info.p[5] = 7000.0
            self._infos[name].publish(info)
        for publisher in publishers:
            if name == "compressed":
                message = CompressedImage(header=head, format="png")
                message.data.frombytes(cv2.imencode(".png", image)[1].tobytes())
            else:
                message = messages.image_message(image, head)
            if name == "encoding":
                message.encoding = "rgb10"
            publisher.publish(message)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._node.destroy_node()


def check(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "depth_pose_ros.cli", "check-camera", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)


@pytest.fixture(scope="module")
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture(scope="module")
def found(ros):
    """What one call finds of all cameras, by camera."""
    cameras = Cameras()
    try:
        topics = [f"/{n}/image" + ("/compressed" if n == "compressed" else "") for n in (*FAULTS, *WARNINGS, *FINE)]
        done = check(*topics, "--seconds", str(SECONDS), "--base-frame", "base_link", "--json")
    finally:
        cameras.close()
    assert done.returncode == 1, done.stdout + done.stderr
    return {topic.split("/")[1]: findings for topic, findings in json.loads(done.stdout).items()}


def of(findings: list[dict], check: str) -> dict:
    return next((finding for finding in findings if finding["check"] == check), {"level": "not looked at"})


@pytest.mark.parametrize("camera", FAULTS)
def test_a_fault_is_found_and_its_fix_named(found, camera):
    check, says, fix = FAULTS[camera]
    finding = of(found[camera], check)
    assert finding["level"] == "fault", found[camera]
    assert says in finding["found"] and fix in finding["fix"], finding
    others = [f for f in found[camera] if f["level"] == "fault" and f["check"] != check]
    assert not others, "nothing else is wrong with it"


@pytest.mark.parametrize("camera", WARNINGS)
def test_a_doubt_is_told_with_its_fix(found, camera):
    check, says, fix = WARNINGS[camera]
    finding = of(found[camera], check)
    assert finding["level"] == "warning", found[camera]
    assert says in finding["found"] and fix in finding["fix"], finding


@pytest.mark.parametrize("camera", FINE)
def test_a_good_camera_has_no_fault(found, camera):
    levels = {finding["check"]: finding["level"] for finding in found[camera]}
    assert set(levels) == {
        *("topic", "QoS", "encoding", "CameraInfo", "rectification", "rate", "stamps", "exposure", "transform")
    }
    assert "fault" not in levels.values(), found[camera]
    assert of(found[camera], "rate")["found"].startswith("10.0 Hz")
    assert "at x 1.00, y 1.00, z 1.00" in of(found[camera], "transform")["found"]
    width = 2 * math.degrees(math.atan(40 / 70))
    assert f"{width:.0f} deg wide" in of(found[camera], "CameraInfo")["found"]


def test_incompatible_qos_is_found_and_told_to_people(ros):
    """A best-effort camera for a subscription that wants every image."""
    node = rclpy.create_node("best_effort_camera")
    publisher = node.create_publisher(Image, "/best_effort/image", SENSOR)
    try:
        done = check("/best_effort/image", "--seconds", "0.2", "--image-qos", "reliable")
    finally:
        node.destroy_publisher(publisher)
        node.destroy_node()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAULT    QoS" in done.stdout and "fix: set image_qos:=sensor_data" in done.stdout
