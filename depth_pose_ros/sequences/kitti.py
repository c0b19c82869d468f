"""KITTI: a sequence of the odometry benchmark, or a drive of the raw data (Geiger et al., CVPR 2012, IJRR 2013)."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory, read_kitti, seconds_to_ns
from depth_pose_ros.geometry.se3 import make_pose
from depth_pose_ros.images import read_image
from depth_pose_ros.sequences.sequence import (
    ImageFiles,
    Options,
    camera_of_folder,
    image_files,
    regular_stamps,
    truth_of_folder,
)
from depth_pose_ros.sequences.truth_images import DepthImages

CAMERAS = ("image_2", "image_02", "image_0", "image_00", "image_3", "image_03", "image_1", "image_01")
"""Folders of the cameras, best first: colour before gray, left before right."""

FPS = 10.0


def matches(path: Path) -> bool:
    """A folder with a KITTI camera in it, or that camera's folder."""
    if path.name in CAMERAS and _has_images(path):
        return True
    return path.is_dir() and any(_has_images(path / name) for name in CAMERAS)


def load(path: Path, options: Options) -> ImageFiles:
    """Images, stamps, rectified camera and, for the odometry benchmark, the poses of its camera."""
    root, name = path, options.topic
    if path.name in CAMERAS and _has_images(path):
        root, name = path.parent, path.name
    found = [camera for camera in CAMERAS if _has_images(root / camera)]
    if name is not None and name not in found:
        raise SequenceError(f"{root} has no images of '{name}'; it has {', '.join(found)}")
    folder = root / (name or found[0])
    number = int(folder.name.removeprefix("image_"))
    files = image_files(folder) or image_files(folder / "data")
    stamps = _stamps(root, folder, len(files), options)
    P = _projections(root)
    camera, truth = camera_of_folder(root), truth_of_folder(root, stamps)
    if number in P:
        height, width = read_image(files[0]).shape[:2]
        camera = CameraModel(width, height, P[number][:, :3], P=P[number])
        truth = truth or _benchmark_poses(root, stamps)
        if truth is not None:
            truth = _seen_from(truth, P[number])
    is_raw = folder.name.startswith("image_0") and len(folder.name) == len("image_00")
    name = "KITTI raw" if is_raw else "KITTI odometry"
    return ImageFiles(root, name, files, stamps, options, camera, truth, _depth(root, folder.name, files))


def _depth(root: Path, camera: str, files: list[Path]) -> DepthImages | None:
    """proj_depth/groundtruth/image_0X of the depth benchmark, which names each file as its image."""
    folder = root / "proj_depth" / "groundtruth" / camera
    depths = [path if (path := folder / f"{file.stem}.png").is_file() else None for file in files]
    return DepthImages(depths, 256.0) if any(depths) else None


def _has_images(folder: Path) -> bool:
    return bool(image_files(folder) or image_files(folder / "data"))


def _stamps(root: Path, folder: Path, count: int, options: Options) -> np.ndarray:
    """times.txt (seconds), timestamps.txt (date and time), or 10 Hz."""
    if options.fps is not None:
        return regular_stamps(count, options.fps)
    if (root / "times.txt").is_file():
        lines = (root / "times.txt").read_text().split()
        stamps = [seconds_to_ns(text, f"{root / 'times.txt'}, line {i}") for i, text in enumerate(lines, 1)]
        if len(stamps) < count:
            raise SequenceError(f"{root / 'times.txt'} has {len(stamps)} stamps for {count} images")
        return np.array(stamps[:count], np.int64)
    if (folder / "timestamps.txt").is_file():
        lines = (folder / "timestamps.txt").read_text().splitlines()
        return np.array([_date_to_ns(line, folder / "timestamps.txt") for line in lines if line.strip()], np.int64)
    return regular_stamps(count, FPS)


def _date_to_ns(text: str, path: Path) -> int:
    """``2011-09-26 13:02:25.964389445`` -> ns, the time of day taken as UTC."""
    date, _, fraction = text.strip().partition(".")
    try:
        whole = datetime.strptime(date, "%Y-%m-%d %H:%M:%S").replace(tzinfo=timezone.utc)
        return int(whole.timestamp()) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])
    except ValueError as error:
        raise SequenceError(f"{path}: '{text.strip()}' is not a date and time") from error


def _projections(root: Path) -> dict[int, np.ndarray]:
    """(3, 4) projection of each rectified camera from calib.txt, or calib_cam_to_cam.txt here or one folder up."""
    P = {}
    for path in (root / "calib.txt", root / "calib_cam_to_cam.txt", root.parent / "calib_cam_to_cam.txt"):
        if not path.is_file():
            continue
        for line in path.read_text().splitlines():
            found = re.match(r"P(?:_rect_0)?([0-3]):(.*)", line)
            if found is None:
                continue
            try:
                P[int(found[1])] = np.array([float(value) for value in found[2].split()]).reshape(3, 4)
            except ValueError as error:
                raise SequenceError(f"{path}: '{line.strip()}' is not a 3 x 4 projection: {error}") from error
    return P


def _benchmark_poses(root: Path, stamps: np.ndarray) -> Trajectory | None:
    """poses/NN.txt of the benchmark, which lies beside sequences/NN."""
    path = root.resolve().parent.parent / "poses" / f"{root.resolve().name}.txt"
    return read_kitti(path, stamps) if path.is_file() else None


def _seen_from(truth: Trajectory, P: np.ndarray) -> Trajectory:
    """KITTI's poses are those of camera 0; P = K [I | t] tells where this camera sits beside it."""
    T_camera_0 = make_pose(np.eye(3), np.linalg.solve(P[:, :3], P[:, 3]))
    return Trajectory(truth.stamps_ns, truth.poses @ np.linalg.inv(T_camera_0))
