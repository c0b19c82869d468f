"""Camera sequences: folders of the known data sets, plain folders, videos and ROS bags, behind one interface."""

from __future__ import annotations

from collections.abc import Sequence as List
from pathlib import Path

from depth_pose_ros.camera import CameraModel, PinholeCamera
from depth_pose_ros.errors import CameraError, SequenceError
from depth_pose_ros.sequences import bag, euroc, folder, kitti, seven_scenes, tum, video
from depth_pose_ros.sequences.sequence import Options, Sequence

FORMATS = (bag, video, tum, euroc, kitti, seven_scenes, folder)
"""In the order in which they are tried: a plain folder is what is left."""

__all__ = ["Sequence", "given_camera", "open_sequence"]


def open_sequence(
    path: str | Path,
    camera: CameraModel | PinholeCamera | str | Path | List[str | float] | None = None,
    fps: float | None = None,
    topic: str | None = None,
    keep_gray: bool = False,
) -> Sequence:
    """Open a folder, video file or ROS bag as a sequence of images; the format is found from what is there.

    camera:    instead of what the data tell: a model, (fx, fy, cx, cy) in pixels of the images, or a camera_info YAML.
    fps:       instead of the stamps of the data, for folders and videos.
    topic:     image topic of a bag; or folder of the camera (image_0, cam1) in formats with several.
    keep_gray: gray images stay (H, W).

    Raises SequenceError when there is nothing that can be read, CameraError when the camera cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise SequenceError(f"{path} does not exist")
    for format in FORMATS:
        if format.matches(path):
            break
    else:
        raise SequenceError(
            f"{path} is not a camera sequence; expected a folder of images (plain, KITTI, TUM RGB-D, EuRoC, 7-Scenes), "
            "a video file or a ROS bag"
        )
    try:
        sequence = format.load(path, Options(fps, topic, keep_gray))
    except (OSError, UnicodeDecodeError) as error:
        raise SequenceError(f"{path} cannot be read: {error}") from error
    if camera is not None:
        sequence.camera = given_camera(camera, sequence)
    return sequence


def given_camera(
    camera: CameraModel | PinholeCamera | str | Path | List[str | float], sequence: Sequence
) -> CameraModel:
    """What a user gave as camera -> CameraModel; (fx, fy, cx, cy) is taken for the size of the first image."""
    if isinstance(camera, CameraModel):
        return camera
    if isinstance(camera, PinholeCamera):
        return CameraModel.from_pinhole(camera)
    if isinstance(camera, str | Path):
        return CameraModel.from_yaml(camera)
    if len(camera) == 1:
        return CameraModel.from_yaml(str(camera[0]))
    try:
        fx, fy, cx, cy = (float(value) for value in camera)
    except ValueError as error:
        given = " ".join(str(value) for value in camera)
        raise CameraError(f"camera '{given}'; expected fx fy cx cy in pixels, or a camera_info YAML") from error
    _, image = next(iter(sequence))
    return CameraModel.from_pinhole(PinholeCamera(image.shape[1], image.shape[0], fx, fy, cx, cy))
