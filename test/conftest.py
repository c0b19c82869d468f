"""What every test runs under, set before anything imports rclpy."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# rclpy leaves out its checks of message fields by default: tests want every wrong type told.
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"
# Tests must not hear, nor be heard by, a robot or another run of the tests.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds.xml"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images beside the checkout, which not everybody has."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder}")
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch and OpenCV on one thread: sums in the same order whatever else the machine does."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What several processes tell each other over DDS may be late on a loaded machine: such tests may try again."""
    for item in items:
        if Path(item.nodeid.split("::")[0]).stem.startswith(
            ("test_nodes", "test_demo", "test_check_camera", "test_view", "test_tensorrt_node")
        ):
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("needs_gpu"):
        from depth_pose_ros.engines import tensorrt

        if missing := tensorrt.missing():
            pytest.skip(missing)
