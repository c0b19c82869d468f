"""A plain folder of images, in the natural order of their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import seconds_to_ns
from depth_pose_ros.sequences.sequence import (
    ImageFiles,
    Options,
    camera_of_folder,
    image_files,
    regular_stamps,
    truth_of_folder,
)
from depth_pose_ros.sequences.truth_images import depth_of_folder, flow_of_folder

FPS = 30.0


def matches(path: Path) -> bool:
    """A folder with images in it, or in a folder ``images``."""
    return path.is_dir() and bool(image_files(path) or image_files(path / "images"))


def load(path: Path, options: Options) -> ImageFiles:
    """All images; stamps of times.txt (seconds, one for each) or at a constant rate; camera and truth beside them."""
    files = image_files(path) or image_files(path / "images")
    times = path / "times.txt"
    if options.fps is None and times.is_file():
        lines = times.read_text().split()
        if len(lines) != len(files):
            raise SequenceError(f"{times} has {len(lines)} stamps for {len(files)} images; expected one for each")
        stamps = np.array([seconds_to_ns(text, f"{times}, line {i}") for i, text in enumerate(lines, 1)], np.int64)
    else:
        stamps = regular_stamps(len(files), FPS if options.fps is None else options.fps)
    truth = truth_of_folder(path, stamps)
    depth, flow = depth_of_folder(path, files), flow_of_folder(path, files)
    return ImageFiles(path, "images", files, stamps, options, camera_of_folder(path), truth, depth, flow)
