"""A node that has to build its engine first, with a stand-in for NVIDIA's libraries only (fake_gpu.py)."""

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("onnx", reason="the stand-in reads graphs with onnx")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from ros_helpers import PERIOD, START, NodeProcess, Peer, values
from toy_models import difference_model, with_half_and_stored_images

from depth_pose_ros.camera import PinholeCamera

CAMERA = PinholeCamera(80, 48, 50.0, 50.0, 39.5, 23.5)  # of another shape than the size that the model recommends


@pytest.fixture(scope="module", autouse=True)
def ros():
    rclpy.init(args=[])
    yield
    rclpy.shutdown()


@pytest.fixture
def start(tmp_path):
    """Start vo_node on a machine with a GPU."""
    model = with_half_and_stored_images(difference_model(tmp_path))
    started = []

    def start(**machine):
        description = tmp_path / "machine.json"
        description.write_text(json.dumps(machine))
        parameters = {
            "flow_model": model.path,
            "depth_model": "none",
            "scale_source": "none",
            "engine_cache": tmp_path / "engines",
        }
        arguments = [text for name, value in parameters.items() for text in ("-p", f"{name}:={value}")]
        fake = str(Path(__file__).with_name("fake_gpu.py"))
        started.append(NodeProcess("vo_node", *arguments, run=(fake, str(description))))
        return started[-1]

    yield start
    for process in started:
        process.stop()


@pytest.fixture
def peer():
    result = Peer()
    result.listen(DiagnosticArray, "status")
    result.listen(DiagnosticArray, "/diagnostics")
    yield result
    result.close()


def networks_of(peer):
    """(level, message, values) of the entry on the networks, each time it was published."""
    entries = [entry for array in peer.got["/diagnostics"] for entry in array.status if "networks" in entry.name]
    return [(entry.level, entry.message, {pair.key: pair.value for pair in entry.values}) for entry in entries]


def send_until(peer, condition, what):
    """A camera that goes on, whatever the node does."""
    image = np.random.default_rng(0).integers(0, 256, (CAMERA.height, CAMERA.width, 3), dtype=np.uint8)
    count = 0

    def sent():
        nonlocal count
        peer.send(np.roll(image, count, 1), START + count * PERIOD, CAMERA)
        count += 1
        peer.spin(0.1)
        return condition()

    peer.spin_until(sent, what=what)


def test_node_builds_for_the_first_images_size_says_so_and_can_be_interrupted(start, peer):
    process = start(build_seconds=300.0)
    peer.spin_until(lambda: networks_of(peer), what="diagnostics")
    assert "waiting for the first image, whose shape decides their size" in networks_of(peer)[-1][1]
    assert "building" not in process.said
    said = "building the engine difference (fp16, 60x36) with TensorRT 10.3.0: "
    send_until(peer, lambda: any(said in message for _, message, _ in networks_of(peer)), said)
    begin = time.monotonic()
    assert process.stop(signal.SIGINT) == 0
    assert time.monotonic() - begin < 60
    assert "Traceback" not in process.said

    # The next start is clean, and what fails its self-check stays on the diagnostics.
    process = start(wrong={"fp16": "nan"})
    send_until(peer, lambda: peer.got["status"], "an answer")
    assert "there is no TensorRT engine for difference (fp16, 60x36)" in process.said
    assert "difference runs at 60 x 36 on TensorRT 10.3.0 fp32 on Orin" in process.said
    status = values(peer.got["status"][-1])
    assert status["backend"] == "difference: TensorRT 10.3.0 fp32 on Orin (difference.onnx)"
    assert "fp16 on Orin DISAGREES" in status["not_on"]
    peer.spin_until(lambda: networks_of(peer)[-1][1].startswith("ready; "), what="ready, with a warning")
    level, message, entries = networks_of(peer)[-1]
    assert level == DiagnosticStatus.WARN and "DISAGREES" in message and "DISAGREES" in entries["not on 1"]
