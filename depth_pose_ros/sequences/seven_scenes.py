"""Microsoft 7-Scenes: frame-NNNNNN.color.* with .pose.txt (Shotton et al., CVPR 2013)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depth_pose_ros.camera import CameraModel, PinholeCamera
from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory
from depth_pose_ros.geometry.se3 import make_pose, orthonormal
from depth_pose_ros.sequences.sequence import (
    ImageFiles,
    Options,
    camera_of_folder,
    image_files,
    regular_stamps,
    truth_of_folder,
)
from depth_pose_ros.sequences.truth_images import DepthImages

FPS = 30.0
"""Nominal: the data have no stamps."""

DEPTH_CAMERA = PinholeCamera(640, 480, 585.0, 585.0, 320.0, 240.0)
"""As the data set tells it."""

LARGEST_DEPTH = 20_000
"""mm; 65535 and whatever no Kinect reaches is unknown."""


def matches(path: Path) -> bool:
    """A folder of frames, or one with a folder ``frames`` in it."""
    return _frames(path) is not None


def load(path: Path, options: Options) -> ImageFiles:
    """Colour images at 30 Hz and the poses beside them.

    The poses are those of the depth camera, about 25 mm beside the colour camera; their rotations are made orthonormal.
    The data tell no intrinsics of the colour camera: give them in intrinsics.txt or by hand (about 525 525 320 240).
    """
    folder = _frames(path)
    path = folder.parent if folder.name == "frames" else folder
    files = image_files(folder, "frame-*.color.*")
    stamps = regular_stamps(len(files), FPS if options.fps is None else options.fps)
    truth = truth_of_folder(path, stamps) if options.fps is None else None
    truth = truth or _truth(files, stamps)
    camera = camera_of_folder(path)
    return ImageFiles(path, "7-Scenes", files, stamps, options, camera, truth, _depth(files, camera))


def _frames(path: Path) -> Path | None:
    for folder in (path, path / "frames"):
        if next(folder.glob("frame-*.color.*"), None) is not None:
            return folder
    return None


def _depth(files: list[Path], camera: CameraModel | None) -> DepthImages | None:
    """The Kinect's depth in mm as the colour camera sees it, about: it stands 25 mm beside the depth camera."""
    depths = [file.with_name(file.name.split(".")[0] + ".depth.png") for file in files]
    depths = [path if path.is_file() else None for path in depths]
    if camera is None or not any(depths):
        return None
    return DepthImages(depths, 1000.0, LARGEST_DEPTH, DEPTH_CAMERA, camera.pinhole)


def _truth(files: list[Path], stamps: np.ndarray) -> Trajectory | None:
    """Frames without a pose, or with one that is not finite (tracking was lost), are left out."""
    kept, poses = [], []
    for file, stamp in zip(files, stamps):
        path = file.with_name(file.name.split(".")[0] + ".pose.txt")
        if not path.is_file():
            continue
        try:
            pose = np.array([float(value) for value in path.read_text().split()]).reshape(4, 4)
        except ValueError as error:
            raise SequenceError(f"{path} is not a 4 x 4 pose: {error}") from error
        if np.isfinite(pose).all():
            kept.append(stamp)
            poses.append(make_pose(orthonormal(pose[:3, :3]), pose[:3, 3]))
    return Trajectory(kept, poses) if poses else None
