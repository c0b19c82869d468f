"""What every camera sequence is, and the pieces that several formats share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depth_pose_ros.camera import CameraModel, PinholeCamera
from depth_pose_ros.errors import CameraError, SequenceError
from depth_pose_ros.evaluation.flow import read_flow
from depth_pose_ros.evaluation.trajectory import Trajectory, read_kitti, read_tum
from depth_pose_ros.images import read_image
from depth_pose_ros.sequences.truth_images import DepthImages

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Options:
    """What the user may say about a sequence.

    fps:       frames per second where the format has no stamps; None for the format's usual rate.
    topic:     image topic of a bag, or image folder of a format with several cameras (image_0, cam1, ...).
    keep_gray: give gray images as (H, W) instead of three equal channels.
    """

    fps: float | None = None
    topic: str | None = None
    keep_gray: bool = False


class Sequence(ABC):
    """Images of one camera in the order of time, read when they are asked for.

    ``sequence[i]`` and iteration give (stamp_ns, image): integer nanoseconds and (H, W, 3) uint8 BGR, or (H, W) for a
    gray image with keep_gray. Reading one frame may raise ImageError; iteration can go on after it with the next.
    """

    name: str
    format: str
    """In words, e.g. ``KITTI odometry``."""
    camera: CameraModel | None = None
    """None when the data tell no intrinsics; ``camera_problem`` then says why, if there is a reason."""
    camera_problem: str = ""
    ground_truth: Trajectory | None = None
    """T_world_camera of the optical frame, with stamps like the images'."""

    has_true_depth = False
    has_true_flow = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of frames (as the container tells, for a video)."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        """Frame ``index`` (negative: from the end); IndexError beyond the end."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        return Frames(self)

    def true_depth(self, index: int) -> np.ndarray | None:
        """(H, W) float32 true depth of frame ``index`` along Z in m, NaN where unknown; None where there is none."""
        return None

    def true_flow(self, index: int) -> np.ndarray | None:
        """(H, W, 2) float32 true flow from frame ``index`` to the next in pixels, NaN where unknown; None likewise."""
        return None

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of a sequence of {len(self)}")
        return index % len(self)


class Frames:
    """Iteration by index that can go on after a frame that could not be read."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._index = -1

    def __iter__(self) -> Frames:
        return self

    def __next__(self) -> tuple[int, np.ndarray]:
        self._index += 1
        if self._index >= len(self._sequence):
            raise StopIteration
        return self._sequence[self._index]


class ImageFiles(Sequence):
    """A sequence of image files with a stamp each."""

    def __init__(
        self,
        path: Path,
        format: str,
        files: list[Path],
        stamps_ns: Iterable[int],
        options: Options,
        camera: CameraModel | None = None,
        ground_truth: Trajectory | None = None,
        depth: DepthImages | None = None,
        flow: list[Path | None] = (),
    ) -> None:
        self.name = path.resolve().name
        self.format = format
        self.files = files
        self.stamps_ns = np.asarray(stamps_ns, np.int64)
        self.camera = camera
        self.ground_truth = ground_truth
        self.has_true_depth = depth is not None
        self.has_true_flow = bool(flow)
        self._depth = depth
        self._flow = flow
        self._keep_gray = options.keep_gray
        if not files:
            raise SequenceError(f"{path} ({format}) has no images; expected {', '.join(IMAGE_SUFFIXES)}")
        if len(files) != len(self.stamps_ns):
            raise SequenceError(f"{path} ({format}) has {len(files)} images and {len(self.stamps_ns)} stamps")
        back = np.flatnonzero(np.diff(self.stamps_ns) <= 0)
        if len(back):
            raise SequenceError(
                f"{path} ({format}): the stamp of {files[back[0] + 1].name} is not after the one before"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray]:
        index = self._checked(index)
        return int(self.stamps_ns[index]), read_image(self.files[index], self._keep_gray)

    def true_depth(self, index: int) -> np.ndarray | None:
        """See Sequence."""
        return None if self._depth is None else self._depth.read(self._checked(index))

    def true_flow(self, index: int) -> np.ndarray | None:
        """See Sequence."""
        path = self._flow[self._checked(index)] if self._flow else None
        return None if path is None else read_flow(path)


def image_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Image files of one folder in natural order: frame_2 before frame_10."""
    try:
        files = [p for p in folder.glob(pattern) if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    except OSError as error:
        raise SequenceError(f"cannot list {folder}: {error}") from error
    return sorted(files, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", p.name)])


def regular_stamps(count: int, fps: float) -> np.ndarray:
    """(count,) int64 ns from 0 at a constant rate."""
    if not 0 < fps < 1e6:
        raise SequenceError(f"fps = {fps:g}; expected frames per second above 0")
    return np.rint(np.arange(count) * (1e9 / fps)).astype(np.int64)


def camera_of_folder(folder: Path) -> CameraModel | None:
    """The camera that a folder tells, in camera_info.yaml, camera.yaml or intrinsics.txt; None without any."""
    for name in ("camera_info.yaml", "camera.yaml"):
        if (folder / name).is_file():
            return CameraModel.from_yaml(folder / name)
    if (folder / "intrinsics.txt").is_file():
        return camera_of_intrinsics(folder / "intrinsics.txt")
    return None


def camera_of_intrinsics(path: Path) -> CameraModel:
    """A text file with ``fx fy cx cy width height [k1 k2 p1 p2 [k3]]`` in pixels on its first line; # comments."""
    try:
        lines = [line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines()]
        values = [float(value) for value in next((line for line in lines if line), [])]
    except (OSError, ValueError) as error:
        raise CameraError(f"cannot read intrinsics from {path}: {error}") from error
    if len(values) not in (6, 10, 11):
        raise CameraError(f"{path} has {len(values)} values; expected fx fy cx cy width height [k1 k2 p1 p2 [k3]]")
    fx, fy, cx, cy, width, height = values[:6]
    return CameraModel.from_pinhole(PinholeCamera(int(width), int(height), fx, fy, cx, cy), values[6:])


def truth_of_folder(folder: Path, stamps_ns: np.ndarray) -> Trajectory | None:
    """Ground truth that lies in a folder: groundtruth_tum.txt, or poses_kitti.txt with a line for each frame."""
    if (folder / "groundtruth_tum.txt").is_file():
        return read_tum(folder / "groundtruth_tum.txt")
    if (folder / "poses_kitti.txt").is_file():
        return read_kitti(folder / "poses_kitti.txt", stamps_ns)
    return None
