"""What the tests of the nodes share: node processes, a camera that publishes, and a room that it can look at."""

import atexit
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.nodes import messages

LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
SENSOR = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
START = 1_700_000_000_000_000_000
PERIOD = 100_000_000
PATIENCE = 100.0  # s; only a machine that is very busy, or a failure, takes so long


class NodeProcess:
    """One of our nodes in a process of its own, and what it says."""

    def __init__(self, node: str, *ros_arguments: str, run: tuple[str, ...] = ("-m",), **environment: str) -> None:
        """``run``: what Python is given before the module's name."""
        command = [sys.executable, *run, "depth_pose_ros.nodes", node, "--ros-args", *ros_arguments]
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=Path(__file__).resolve().parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1", "RCUTILS_COLORIZED_OUTPUT": "0", **environment},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self._process.kill)  # nothing outlives the tests, whatever fails

    def _read(self) -> None:
        for line in self._process.stdout:
            self.lines.append(line.rstrip())

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, timeout: float = PATIENCE, spin=None) -> str:
        """The first line that matches; ``spin`` is called while waiting."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for line in list(self.lines):
                if re.search(pattern, line):
                    return line
            if self._process.poll() is not None:
                self._reader.join(2)
                if not re.search(pattern, self.said):
                    raise AssertionError(f"ended with {self._process.returncode} before {pattern!r}:\n{self.said}")
                continue
            (spin or time.sleep)(0.05)
        raise AssertionError(f"never said {pattern!r} in {timeout} s:\n{self.said}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout: float = PATIENCE) -> int:
        code = self._process.wait(timeout)
        self._reader.join(2)
        return code

    def stop(self, number: int = signal.SIGINT) -> int:
        """The exit code after a signal."""
        if self.is_running:
            self._process.send_signal(number)
        try:
            return self.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"still running {PATIENCE:.0f} s after signal {number}:\n{self.said}") from None


class Peer:
    """The other side: publishes a camera's images and keeps what comes back."""

    def __init__(self, namespace: str = "") -> None:
        self.node = rclpy.create_node("test_peer", namespace=namespace)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self.images = self.node.create_publisher(Image, "image", 10)
        self.infos = self.node.create_publisher(CameraInfo, "camera_info", 10)
        self.got: dict[str, list] = {}
        self.raw: dict[str, list[bytes]] = {}

    def add(self, node) -> None:
        """Let another node of this process be spun together with this one."""
        self._executor.add_node(node)

    def close(self) -> None:
        self._executor.shutdown()
        self.node.destroy_node()

    def listen(self, message_type: type, topic: str, qos: QoSProfile | int = 10) -> None:
        """Keep the messages of a topic in ``got[topic]``."""
        self.got[topic] = []
        self.node.create_subscription(message_type, topic, self.got[topic].append, qos)

    def listen_raw(self, message_type: type, topic: str, qos: QoSProfile | int = 10) -> None:
        """Keep the bytes of a topic's messages in ``raw[topic]``."""
        self.raw[topic] = []
        self.node.create_subscription(message_type, topic, self.raw[topic].append, qos, raw=True)

    def spin(self, seconds: float = 0.05) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def spin_until(self, condition, timeout: float = PATIENCE, what: str = "") -> None:
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, f"not within {timeout} s: {what}"
            self.spin(0.02)

    def wait_for_node(self, process: NodeProcess, name: str = "vo_node") -> None:
        """Until the node has loaded its networks, and either side knows the topics of the other."""
        process.wait_for(" runs at ", spin=self.spin)
        self.spin_until(lambda: self.images.get_subscription_count() > 0, what="the node subscribes")
        self.shake_hands(name)

    def shake_hands(self, name: str) -> None:
        """Until the node knows every topic of ours: endpoints are told in the order in which they were made, and it can
        only answer a client that it knows.
        """
        self.call(
            GetParameters, f"{self.node.get_namespace().rstrip('/')}/{name}/get_parameters", GetParameters.Request()
        )
        outputs = [topic for topic in self.got if not topic.startswith("/")]
        self.spin_until(lambda: all(self.node.count_publishers(topic) for topic in outputs), what=f"{outputs}")

    def send(self, image: np.ndarray, stamp_ns: int, camera: PinholeCamera | None, frame_id: str = "camera") -> None:
        head = messages.header(stamp_ns, frame_id)
        if camera is not None:
            self.infos.publish(messages.camera_info_message(camera, head))
        self.images.publish(messages.image_message(image, head))

    def call(self, service_type: type, name: str, request, timeout: float = PATIENCE):
        client = self.node.create_client(service_type, name)
        self.spin_until(client.service_is_ready, timeout, f"service {name}")
        future = client.call_async(request)
        self.spin_until(future.done, timeout, f"answer of {name}")
        self.node.destroy_client(client)
        return future.result()


def unlike(theirs, ours, path: str = "message") -> list[str]:
    """Fields in which a message that rosbags decoded differs from one of rclpy."""
    if hasattr(ours, "get_fields_and_field_types"):
        names = ours.get_fields_and_field_types()
        return [text for name in names for text in unlike(getattr(theirs, name), getattr(ours, name), f"{path}.{name}")]
    if isinstance(ours, (str, bool, int, float, bytes)):
        if isinstance(ours, bytes):
            ours = ours[0]
        same = theirs == ours or (theirs != theirs and ours != ours)
        return [] if same else [f"{path}: {theirs!r} and {ours!r}"]
    if len(theirs) != len(ours):
        return [f"{path}: {len(theirs)} and {len(ours)} entries"]
    if isinstance(theirs, np.ndarray):
        same = np.array_equal(theirs, np.asarray(ours).reshape(theirs.shape), equal_nan=theirs.dtype.kind == "f")
        return [] if same else [f"{path}: the arrays differ"]
    return [text for i, pair in enumerate(zip(theirs, ours)) for text in unlike(*pair, f"{path}[{i}]")]


def stamps(received: list) -> list[int]:
    """The stamps of messages with a header."""
    return [messages.stamp_ns(message.header.stamp) for message in received]


def values(status_array) -> dict[str, str]:
    """Key and value of a `status` message."""
    return {pair.key: pair.value for pair in status_array.status[0].values}


class Room:
    """A textured box, 8 m wide, 4 m high and 20 m long, seen by a pinhole camera; exact, by casting a ray per pixel."""

    HALF = np.array([4.0, 2.0, 10.0])
    TEXELS_PER_METRE = 30.0

    def __init__(self, camera: PinholeCamera, seed: int = 0) -> None:
        self.camera = camera
        rng = np.random.default_rng(seed)
        texture = np.zeros((1024, 1024, 3), np.float32)
        for size in (16, 64, 192):
            gray = rng.uniform(-1, 1, (size, size, 1))
            colour = rng.uniform(-0.4, 0.4, (size, size, 3))
            texture += cv2.resize((gray + colour).astype(np.float32), (1024, 1024), interpolation=cv2.INTER_CUBIC)
        self._texture = np.clip(128 + 60 * texture, 0, 255).astype(np.uint8)
        v, u = np.mgrid[: camera.height, : camera.width]
        self._rays = camera.rays(np.stack([u.ravel(), v.ravel()], axis=1))

    def view(self, T_room_camera: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR; the room's axes are those of an optical frame in its middle."""
        rays = self._rays @ T_room_camera[:3, :3].T
        origin = T_room_camera[:3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = (np.where(rays >= 0, self.HALF, -self.HALF) - origin) / rays  # to the wall across each axis
        wall = np.argmin(distance, axis=1)
        points = self.TEXELS_PER_METRE * (origin + rays * distance[np.arange(len(rays)), wall, None])
        # Each wall shows a part of the texture of its own.
        a = np.where(wall == 0, points[:, 2], points[:, 0]) + 197 * wall
        b = np.where(wall == 1, points[:, 2], points[:, 1]) + 331 * wall
        shape = (self.camera.height, self.camera.width)
        maps = (coordinate.astype(np.float32).reshape(shape) for coordinate in (a, b))
        return cv2.remap(self._texture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
