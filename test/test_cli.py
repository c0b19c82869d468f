"""The command line: what it imports, what it refuses, and a whole run on a small drive with known truth."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from depth_pose_ros import cli
from depth_pose_ros import run as run_command
from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig, tunables
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.evaluation.trajectory import Trajectory, read_tum, relative_errors, write_tum
from depth_pose_ros.geometry.se3 import inverse, make_pose, so3_exp
from depth_pose_ros.odometry import Estimate, Frame, Scale, State, VisualOdometry
from depth_pose_ros.run import Results

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "onnxruntime", "rclpy", "tensorrt", "matplotlib", "evo", "rosbags", "rich", "cv2")


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in cli.COMMANDS if name == "run")])
def test_help_needs_no_heavy_package(arguments):
    """In a process of its own, since pytest has imported some of them."""
    code = (
        "import sys; from depth_pose_ros.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"found = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: depth_pose" in done.stdout


def test_every_command_can_be_found():
    import importlib.util

    for command in cli.COMMANDS.values():
        assert importlib.util.find_spec(command.module), command.module


def test_every_odometry_tunable_is_an_option(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    text = capsys.readouterr().out
    for item in tunables(OdometryConfig):
        assert f"--{item.name.replace('_', '-')}" in text


def make_drive(folder: Path, count: int = 6, bend: bool = False) -> Trajectory:
    """A camera that flies towards a corner of two walls above a floor and turns a little; images, camera and truth.

    Its path is straight, which no similarity can align, unless it is to bend.
    """
    width, height = 320, 192
    K = np.array([[260.0, 0, 159.5], [0, 260, 95.5], [0, 0, 1]])
    rng = np.random.default_rng(0)
    texture = np.zeros((1024, 1024), np.float32)
    for size in (16, 64, 128, 256):
        texture += cv2.resize(
            rng.normal(size=(size, size)).astype(np.float32), (1024, 1024), interpolation=cv2.INTER_CUBIC
        )
    texture = np.clip(128 + 35 * texture, 0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    stamps, poses = [], []
    for i in range(count):
        T = make_pose(so3_exp(np.array([0.002, 0.012, 0.0]) * i), np.array([0.03, -0.02 * i * bend, 0.25]) * i)
        image = np.zeros((height, width), np.uint8)
        nearest = np.full((height, width), np.inf, np.float32)
        y, x = np.mgrid[0:height, 0:width]
        rays = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], -1) @ T[:3, :3].T
        for normal, distance in (((0.3, 0.0, 1.0), 8.0), ((0.0, 1.0, 0.15), 1.6), ((-0.8, 0.1, 1.0), 9.0)):
            normal = np.array(normal) / np.linalg.norm(normal)
            depth = (distance - normal @ T[:3, 3]) / (rays @ normal)
            hit = (depth > 0) & (depth < nearest)
            points = rays * depth[..., None] + T[:3, 3]
            across = np.cross(normal, (0, 1, 0.3))
            across /= np.linalg.norm(across)
            u, v = points @ across, points @ np.cross(normal, across)
            seen = cv2.remap(
                texture,
                (u * 64 + 512).astype(np.float32),
                (v * 64 + 512).astype(np.float32),
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_WRAP,
            )
            image[hit] = seen[hit]
            nearest[hit] = depth[hit]
        assert cv2.imwrite(str(folder / f"{i}.png"), image)
        stamps.append(i * 100_000_000)
        poses.append(T)
    (folder / "intrinsics.txt").write_text(f"260 260 159.5 95.5 {width} {height}\n")
    (folder / "times.txt").write_text("\n".join(f"{stamp / 1e9}" for stamp in stamps))
    truth = Trajectory(stamps, poses)
    write_tum(folder / "groundtruth_tum.txt", truth)
    return truth


class DisFlow:
    """A FlowEstimator without a network: OpenCV's DIS, on every fourth pixel."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height, self.backend = width, height, "OpenCV DIS"
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def features(self, image):
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)

    def flow(self, features_1, features_2):
        size = (self.width // 4, self.height // 4)
        both = ((features_1, features_2), (features_2, features_1))
        forward, backward = (
            cv2.resize(self._dis.calc(a, b, None), size, interpolation=cv2.INTER_AREA) for a, b in both
        )
        return FlowField(forward, backward, None, 4)


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drive")
    make_drive(folder)
    return folder


@pytest.fixture
def without_networks(monkeypatch):
    """The real odometry on classical flow, so that the command is tested where no network was exported."""

    def load(network_config, engine_config, odometry_config, image_size, size):
        size = size or image_size
        return VisualOdometry(DisFlow(*size), None, odometry_config), size, []

    monkeypatch.setattr(run_command, "_load", load)


def run(*arguments) -> int:
    return cli.main(["run", *(str(argument) for argument in arguments)])


@pytest.mark.usefixtures("without_networks")
def test_a_whole_run(drive, tmp_path, capsys):
    out = tmp_path / "deep" / "out"
    assert run(drive, "--out", out, "--scale-source", "none") == 0
    path, truth = read_tum(out / "trajectory.tum"), read_tum(drive / "groundtruth_tum.txt")
    assert path.stamps_ns.tolist() == truth.stamps_ns.tolist()
    errors = relative_errors(path, truth)
    assert np.median(errors.rotation) < 0.1 and np.median(errors.direction) < 3
    rows = list(csv.DictReader((out / "frames.csv").open()))
    assert [row["stamp"] for row in rows] == [f"0.{i}00000000" for i in range(6)]
    assert rows[0]["state"] == "initialising" and rows[-1]["state"] == "tracking"
    assert int(rows[-1]["inliers"]) > 50 and float(rows[-1]["total_ms"]) > 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 6 and summary["truth"]["pairs"] == 5
    assert "direction" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["frames.csv", "summary.json", "trajectory.tum", "truth.tum"]


@pytest.mark.usefixtures("without_networks")
def test_step_size_and_number_of_frames(drive, tmp_path):
    assert run(drive, "--out", tmp_path, "--scale-source", "none", "--step", 2, "--max-frames", 2) == 0
    assert read_tum(tmp_path / "trajectory.tum").stamps_ns.tolist() == [0, 200_000_000]
    assert run(drive, "--out", tmp_path, "--scale-source", "none", "--size", "160x96", "--fps", 20) == 0
    assert read_tum(tmp_path / "trajectory.tum").stamps_ns.tolist() == [i * 50_000_000 for i in range(6)]


@pytest.mark.usefixtures("without_networks")
def test_a_damaged_image_is_counted_and_the_rest_goes_on(drive, tmp_path, capsys):
    folder = tmp_path / "drive"
    shutil.copytree(drive, folder)
    (folder / "2.png").write_bytes(b"damaged")
    cv2.imwrite(str(folder / "3.png"), np.zeros((10, 10), np.uint8))
    assert run(folder, "--out", tmp_path / "out", "--scale-source", "none") == 0
    assert len(read_tum(tmp_path / "out" / "trajectory.tum")) == 4
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["refused"] == 2
    said = capsys.readouterr().out
    assert "2.png" in said and "10 x 10" in said


@pytest.mark.usefixtures("without_networks")
def test_exit_code_1_when_nothing_could_be_tracked(tmp_path, capsys):
    folder = tmp_path / "black"
    folder.mkdir()
    for i in range(4):
        cv2.imwrite(str(folder / f"{i}.png"), np.zeros((96, 160), np.uint8))
    camera = ("--camera", 100, 100, 80, 48)
    assert run(folder, *camera, "--out", tmp_path / "out", "--scale-source", "none") == 1
    assert (tmp_path / "out" / "frames.csv").exists()
    for file in folder.iterdir():
        file.write_bytes(b"damaged")
    cv2.imwrite(str(folder / "0.png"), np.zeros((96, 160), np.uint8))
    assert run(folder, *camera, "--out", tmp_path / "out", "--scale-source", "none") == 1
    assert "1 usable frames and 3 refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing"], "does not exist"),
        (["DRIVE", "--camera", "a", "b", "c", "d"], "fx fy cx cy"),
        (["DRIVE", "--camera", "missing.yaml"], "missing.yaml"),
        (["DRIVE", "--camera-height", "-1"], "camera_height = -1.0 is out of range"),
        (["DRIVE", "--scale-source", "gps"], "gps"),
        (["DRIVE", "--truth", "missing.tum"], "missing.tum"),
        (["DRIVE", "--fps", "0"], "fps = 0"),
        (["DRIVE", "--flow-model", "no_such_model"], "no_such_model"),
        (["DRIVE", "--depth-model", "none"], "network needs a depth network"),
        (["DRIVE", "--depth-model", "none", "--scale-source", "median_depth"], "median_depth needs a depth network"),
        (["DRIVE", "--size", "640"], "WIDTHxHEIGHT"),
        (["DRIVE", "--step", "0"], "expected 1 or more"),
        (["DRIVE", "--nonsense"], "--nonsense"),
        ([], "input"),
    ],
)
def test_what_cannot_be_done_ends_with_exit_code_2(drive, tmp_path, capsys, arguments, says):
    arguments = [drive if argument == "DRIVE" else argument for argument in arguments]
    try:
        code = run(*arguments, "--out", tmp_path / "out")
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out" / "trajectory.tum").exists()


def test_images_without_intrinsics_ask_for_them(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((96, 160), np.uint8))
    assert run(tmp_path, "--out", tmp_path / "out") == 2
    assert "give --camera fx fy cx cy" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made(drive, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert run(drive, "--out", tmp_path / "file" / "out") == 2
    assert "cannot be made" in capsys.readouterr().err


def estimate_with_depth(depth: np.ndarray, T_odom_camera: np.ndarray, camera: PinholeCamera) -> Estimate:
    scale = Scale(value=1.0, spread=0.01, source="camera_height", is_metric=True, ok=True)
    nothing = np.zeros((0, 2), np.float32)
    return Estimate(
        stamp_ns=5_000_000_001,
        state=State.TRACKING,
        reason='a "quoted", reason',
        model="essential",
        T_odom_camera=T_odom_camera,
        T_previous_current=np.eye(4),
        dt=0.1,
        motion_covariance=np.eye(6),
        pose_covariance=np.eye(6),
        has_pose=True,
        scale=scale,
        matches=10,
        inliers=9,
        parallax_px=1.0,
        camera=camera,
        depth=depth,
        points_1=nothing,
        points_2=nothing,
        inlier_mask=np.zeros(0, bool),
        flow=None,
        timings_ms={"flow": 3.0},
    )


def test_depth_images_and_cloud(tmp_path):
    """A wall at 4 m seen by a turned and moved camera: 16-bit depth with its factor, and the wall in the cloud."""
    camera = PinholeCamera(32, 24, 30.0, 30.0, 15.5, 11.5)
    T = make_pose(so3_exp(np.array([0.1, -0.3, 0.2])), np.array([1.0, 2.0, 3.0]))
    depth = np.full((24, 32), 4.0, np.float32)
    depth[0, :4] = (np.nan, np.inf, 300.0, 0.001)  # unknown, beyond what 16 bit hold, too near to be held
    image = np.full((96, 128, 3), (10, 20, 30), np.uint8)
    frame = Frame(5_000_000_001, image, image[..., 0], camera.resized(128, 96))
    results = Results(tmp_path, save_depth=True, save_cloud=True, total=1)
    results.add(frame, estimate_with_depth(depth, T, camera), {"flow": 3.0}, 5.0)
    results.write(results.summary())

    stored = cv2.imread(str(tmp_path / "depth" / "000000.png"), cv2.IMREAD_UNCHANGED)
    told = yaml.safe_load((tmp_path / "depth" / "depth.yaml").read_text())
    assert stored.dtype == np.uint16 and stored[0, :4].tolist() == [0, 0, 0, 0]
    assert (stored[1:] / told["factor"] == 4.0).all()
    assert told["unit"] == "metre" and told["intrinsics"] == [30.0, 30.0, 15.5, 11.5]

    _, data = (tmp_path / "cloud.ply").read_bytes().split(b"end_header\n")
    vertices = np.frombuffer(data, [("xyz", "<f4", 3), ("rgb", "u1", 3)])
    wall = vertices["xyz"][3:] @ inverse(T)[:3, :3].T + inverse(T)[:3, 3]
    assert np.median(np.abs(wall[:, 2] - 4.0)) < 1e-5
    assert np.allclose(camera.project(wall[-1:]), [31, 23], atol=1e-3)
    assert (vertices["rgb"] == (30, 20, 10)).all()

    row = next(csv.DictReader((tmp_path / "frames.csv").open()))
    assert row["stamp"] == "5.000000001" and row["reason"] == 'a "quoted", reason' and row["flow_ms"] == "3.00"


@pytest.mark.parametrize("name", ["kitti06_f000-050", "ros2bag_kitti06_mcap"])
@pytest.mark.usefixtures("without_networks")
def test_the_real_drive(name, tmp_path, shared_data):
    """Frame-to-frame motion of a real car, from a folder and from a bag; its truth itself is off by 0.1 deg here."""
    if "bag" in name:
        pytest.importorskip("rosbags")
    options = ("--scale-source", "none", "--max-frames", 6, "--size", "640x192")
    assert run(shared_data / name, "--out", tmp_path, *options) == 0
    truth = json.loads((tmp_path / "summary.json").read_text())["truth"]
    assert truth["pairs"] == 5 and truth["rotation"] < 0.2 and truth["direction"] < 1


@pytest.mark.parametrize(("chosen", "expected"), [(None, "1"), ("3", "3")])
def test_numpy_multiplies_in_one_thread_unless_the_user_chose(monkeypatch, chosen, expected):
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", chosen)
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert os.environ["OPENBLAS_NUM_THREADS"] == expected
