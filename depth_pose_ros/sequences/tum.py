"""TUM RGB-D: rgb.txt with a stamp and a file on each line (Sturm et al., IROS 2012)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import read_tum, seconds_to_ns
from depth_pose_ros.sequences.sequence import ImageFiles, Options, camera_of_folder, truth_of_folder
from depth_pose_ros.sequences.truth_images import DepthImages

# fx fy cx cy and k1 k2 p1 p2 k3 of the colour cameras at 640 x 480, as the benchmark publishes them. The images of
# freiburg3 are undistorted.
CALIBRATIONS = {
    "freiburg1": (517.306408, 516.469215, 318.643040, 255.313989, 0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    "freiburg2": (520.908620, 521.007327, 325.141442, 249.701764, 0.231222, -0.784899, -0.003257, -0.000105, 0.917205),
    "freiburg3": (535.4, 539.2, 320.1, 247.6, 0.0, 0.0, 0.0, 0.0, 0.0),
}

DEPTH_FACTOR = 5000
"""Value of one metre in the depth images, 0 is unknown."""


def matches(path: Path) -> bool:
    """A folder with rgb.txt."""
    return (path / "rgb.txt").is_file()


def load(path: Path, options: Options) -> ImageFiles:
    """Images of rgb.txt, groundtruth.txt, and the camera by the name of the folder (freiburg1, 2, 3)."""
    stamps, files = _listed(path / "rgb.txt")
    camera = camera_of_folder(path)
    if camera is None:
        known = next((values for key, values in CALIBRATIONS.items() if key in path.resolve().name), None)
        if known is not None:
            fx, fy, cx, cy, *D = known
            camera = CameraModel(640, 480, [fx, 0, cx, 0, fy, cy, 0, 0, 1], D)
    truth = truth_of_folder(path, stamps)
    if truth is None and (path / "groundtruth.txt").is_file():
        truth = read_tum(path / "groundtruth.txt")
    return ImageFiles(path, "TUM RGB-D", files, stamps, options, camera, truth, _depth(path, stamps))


def _listed(path: Path) -> tuple[list[int], list[Path]]:
    """Stamps in ns and files of rgb.txt or depth.txt."""
    stamps, files = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        stamp, _, name = line.strip().partition(" ")
        if not name:
            raise SequenceError(f"{path}, line {number}: '{line}'; expected a stamp and a file")
        stamps.append(seconds_to_ns(stamp, f"{path}, line {number}"))
        files.append(path.parent / name.strip())
    return stamps, files


def _depth(path: Path, stamps: list[int]) -> DepthImages | None:
    """Depth images of depth.txt, which are aligned with the colour images; the nearest in time to each."""
    if not (path / "depth.txt").is_file():
        return None
    depth_stamps, files = (np.array(values) for values in _listed(path / "depth.txt"))
    if not len(files):
        return None
    nearest = [int(np.argmin(np.abs(depth_stamps - stamp))) for stamp in stamps]
    near = [abs(int(depth_stamps[i]) - stamp) <= 20_000_000 for i, stamp in zip(nearest, stamps)]
    return DepthImages([files[i] if ok else None for i, ok in zip(nearest, near)], DEPTH_FACTOR)
