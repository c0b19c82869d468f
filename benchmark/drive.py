"""What everything is measured on: a camera sequence in memory (the drive that comes with the package, or any other)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from depth_pose_ros.camera import CameraModel, FrameRectifier
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.engines import load_depth, load_flow
from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.trajectory import Trajectory
from depth_pose_ros.odometry import Frame, VisualOdometry
from depth_pose_ros.sequences.arguments import chosen_frames, open_chosen
from depth_pose_ros.share import share_path

STREET_DRIVE = "demo/street_drive"
SIZES = ((640, 192), (320, 96), (512, 160), (832, 256))
"""Of the networks' input; the first is the one that is measured where one is enough."""


@dataclass(frozen=True)
class Drive:
    """Images of one camera: stamps in ns, (H, W, 3) BGR or (H, W) gray uint8, and the true path where it is known."""

    name: str
    camera: CameraModel
    stamps_ns: list[int]
    images: list[np.ndarray]
    truth: Trajectory | None

    def __len__(self) -> int:
        return len(self.images)

    def to_and_fro(self, count: int) -> Iterator[int]:
        """So many indices: to the last frame, back to the first, and again; the motion never jumps."""
        last = len(self) - 1
        for i in range(count):
            yield last - abs(last - i % (2 * last))

    def settings(self) -> dict:
        """What names these frames in a result."""
        size = f"{self.camera.image_width}x{self.camera.image_height}"
        return {"sequence": self.name, "frames": len(self), "image_size": size}


def load_drive(options: argparse.Namespace) -> Drive:
    """The frames that the options choose. SequenceError when there are fewer than three."""
    source = options.input or share_path(STREET_DRIVE)
    if source is None:
        raise SequenceError(f"{STREET_DRIVE} was not installed; name a folder of images, a video file or a bag")
    sequence = open_chosen(str(source), options, keep_gray=True)
    frames = [(stamp, image) for _, stamp, image in chosen_frames(sequence, options) if stamp is not None]
    if len(frames) < 3:
        raise SequenceError(f"{source} has {len(frames)} usable frames; the benchmark needs at least three")
    stamps, images = zip(*frames)
    return Drive(sequence.name, sequence.camera, list(stamps), list(images), sequence.ground_truth)


def frames_at(drive: Drive, size: tuple[int, int]) -> list[Frame]:
    """All frames, rectified and resized."""
    rectifier = FrameRectifier(drive.camera, size)
    prepared = [rectifier(image) for image in drive.images]
    return [Frame(s, image, gray, rectifier.camera) for s, (image, gray) in zip(drive.stamps_ns, prepared)]


def load_odometry(
    size: tuple[int, int], options: argparse.Namespace, config: OdometryConfig | None = None
) -> VisualOdometry:
    """The odometry with its networks."""
    flow = load_flow(options.flow_model, *size, options.backend, options.threads)
    depth = load_depth(options.depth_model, *size, options.backend, options.threads)
    return VisualOdometry(flow, depth, config)
