"""A video file, through OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import SequenceError
from depth_pose_ros.sequences.sequence import Options, Sequence

SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts", ".mjpeg", ".mjpg")


def matches(path: Path) -> bool:
    """A file whose name ends like a video."""
    return path.is_file() and path.suffix.lower() in SUFFIXES


def load(path: Path, options: Options) -> Video:
    """Frames with the container's stamps, or at ``options.fps``; the camera of a camera_info YAML of the same name."""
    return Video(path, options)


class Video(Sequence):
    """Decoded while it is iterated; single frames by their number cost a seek."""

    format = "video"

    def __init__(self, path: Path, options: Options) -> None:
        self.name = path.stem
        self._path = path
        self._fps = options.fps
        if options.fps is not None and not 0 < options.fps < 1e6:
            raise SequenceError(f"fps = {options.fps:g}; expected frames per second above 0")
        capture = self._open()
        rate = capture.get(cv2.CAP_PROP_FPS)
        self._nominal_fps = rate if 0 < rate < 1e4 else 30.0
        self._count = max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        if not capture.read()[0]:
            raise SequenceError(f"{path}: no frame of this video can be decoded; convert it to H.264 (ffmpeg)")
        capture.release()
        sidecar = path.with_suffix(".yaml")
        self.camera = CameraModel.from_yaml(sidecar) if sidecar.is_file() else None

    def _open(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            raise SequenceError(f"{self._path} cannot be opened as a video; is the file whole, and a video?")
        return capture

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        capture = self._open()
        index, last = 0, -1
        while True:
            read, image = capture.read()
            if not read:
                return
            last = self._stamp(capture, index, last)
            yield last, image
            index += 1

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        index = self._checked(index)
        capture = self._open()
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        read, image = capture.read()
        if not read:
            raise IndexError(f"frame {index} of {self._path} cannot be decoded")
        return self._stamp(capture, index, -1), image

    def _stamp(self, capture: cv2.VideoCapture, index: int, last: int) -> int:
        """Of the frame just read; the nominal rate carries on where the container's stamps do not go forward."""
        if self._fps is not None:
            return round(index * 1e9 / self._fps)
        stamp = round(capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if index == 0 or stamp > last:
            return max(stamp, 0)
        return last + round(1e9 / self._nominal_fps)
