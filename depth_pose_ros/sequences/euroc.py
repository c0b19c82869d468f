"""EuRoC MAV (ASL format): cam0/data.csv, cam0/sensor.yaml (Burri et al., IJRR 2016)."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import CameraError, SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory
from depth_pose_ros.geometry.se3 import make_pose, matrix_from_quaternion, orthonormal
from depth_pose_ros.sequences.sequence import ImageFiles, Options, camera_of_folder, truth_of_folder

DISTORTION_MODELS = {"radial-tangential": "plumb_bob", "equidistant": "equidistant", "none": "plumb_bob"}


def matches(path: Path) -> bool:
    """The sequence's folder, its mav0, or one of its cameras."""
    return _root(path) is not None


def load(path: Path, options: Options) -> ImageFiles:
    """Images of data.csv, the camera of sensor.yaml, and the state estimate moved to the camera where it is there."""
    root = _root(path)
    name = path.name if root == path.parent and path.name.startswith("cam") else options.topic or "cam0"
    folder = root / name
    if not (folder / "data.csv").is_file():
        known = ", ".join(sorted(p.parent.name for p in root.glob("cam*/data.csv")))
        raise SequenceError(f"{root} has no camera '{name}'; it has {known}")
    stamps, files = [], []
    for row in _rows(folder / "data.csv", columns=2):
        stamps.append(int(row[0]))
        files.append(folder / "data" / row[1].strip())
    camera, T_body_camera = _sensor(folder / "sensor.yaml")
    camera = camera or camera_of_folder(root)
    truth = truth_of_folder(root, stamps)
    states = root / "state_groundtruth_estimate0" / "data.csv"
    if truth is None and states.is_file():
        truth = _truth(states, T_body_camera)
    sequence = ImageFiles(path if path.name not in ("mav0", name) else path.parent, "EuRoC", files, stamps, options)
    sequence.camera, sequence.ground_truth = camera, truth
    return sequence


def _root(path: Path) -> Path | None:
    """The folder that holds the cameras."""
    for root in (path / "mav0", path, path.parent):
        camera = path if root == path.parent else root / "cam0"
        if camera.name.startswith("cam") and (camera / "data.csv").is_file():
            return root
    return None


def _rows(path: Path, columns: int) -> list[list[str]]:
    rows = [row for row in csv.reader(path.read_text().splitlines()) if row and not row[0].startswith("#")]
    for row in rows:
        if len(row) < columns or not row[0].strip().isdigit():
            raise SequenceError(f"{path}: '{','.join(row)}'; expected {columns} columns, first a stamp in ns")
    return rows


def _sensor(path: Path) -> tuple[CameraModel | None, np.ndarray]:
    """The camera, and T_body_camera (4, 4), of a sensor.yaml."""
    import yaml

    if not path.is_file():
        return None, np.eye(4)
    text = path.read_text().removeprefix("%YAML:1.0")  # OpenCV's header, which is not YAML
    try:
        sensor = yaml.safe_load(text)
        width, height = (int(value) for value in sensor["resolution"])
        fx, fy, cx, cy = (float(value) for value in sensor["intrinsics"])
        model = str(sensor.get("distortion_model", "none"))
        D = [float(value) for value in sensor.get("distortion_coefficients", ())]
        T = np.array(sensor.get("T_BS", {}).get("data", np.eye(4)), np.float64).reshape(4, 4)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise CameraError(f"{path}: {error}; expected resolution, intrinsics fu fv cu cv, distortion") from error
    camera = CameraModel(width, height, [fx, 0, cx, 0, fy, cy, 0, 0, 1], D, DISTORTION_MODELS.get(model, model))
    return camera, make_pose(orthonormal(T[:3, :3]), T[:3, 3])


def _truth(path: Path, T_body_camera: np.ndarray) -> Trajectory:
    """Columns: stamp, position, quaternion w x y z of the body in the world, and more."""
    stamps, poses = [], []
    for row in _rows(path, columns=8):
        x, y, z, qw, qx, qy, qz = (float(value) for value in row[1:8])
        stamps.append(int(row[0]))
        poses.append(make_pose(matrix_from_quaternion(np.array([qx, qy, qz, qw])), np.array([x, y, z])) @ T_body_camera)
    return Trajectory(stamps, poses)
