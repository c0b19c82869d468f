"""True depth and true flow that lie beside a sequence's images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.errors import SequenceError


@dataclass(frozen=True)
class DepthImages:
    """A 16-bit depth image for each frame, or for some.

    files:   one per frame, None where a frame has none.
    factor:  value of one metre; 0 is unknown.
    largest: values above are unknown too.
    camera:  of the depth images where it is another than the colour camera (7-Scenes); then they are mapped to
             ``seen_by``, the two being taken to stand in one place. None when they are aligned.
    """

    files: list[Path | None]
    factor: float
    largest: int = 65535
    camera: PinholeCamera | None = None
    seen_by: PinholeCamera | None = None

    def read(self, index: int) -> np.ndarray | None:
        """(H, W) float32 m along Z of frame ``index``, NaN where unknown; None without a file."""
        path = self.files[index]
        if path is None:
            return None
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint16 or image.ndim != 2:
            raise SequenceError(f"{path} is not a depth image; expected a PNG of 16 bits and one channel")
        if self.camera is not None and self.seen_by is not None:
            view = (self.seen_by.K @ self.camera.K_inv)[:2]
            size = (self.seen_by.width, self.seen_by.height)
            image = cv2.warpAffine(image, view, size, flags=cv2.INTER_NEAREST)
        depth = image.astype(np.float32) / self.factor
        depth[(image == 0) | (image > self.largest)] = np.nan
        return depth


def depth_of_folder(folder: Path, images: list[Path]) -> DepthImages | None:
    """``depth/`` beside the images: PNGs of the same names, or as many in order, and the factor in depth/depth.yaml.

    This is what ``depth_pose run --save-depth`` writes.
    """
    import yaml

    told = folder / "depth" / "depth.yaml"
    if not told.is_file():
        return None
    try:
        factor = float(yaml.safe_load(told.read_text())["factor"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise SequenceError(f"{told}: {error}; expected 'factor: 256', the value of one metre") from error
    by_name = {path.stem: path for path in sorted((folder / "depth").glob("*.png"))}
    files = [by_name.get(path.stem) for path in images]
    if not any(files) and len(by_name) == len(images):
        files = list(by_name.values())
    return DepthImages(files, factor) if any(files) else None


def flow_of_folder(folder: Path, images: list[Path]) -> list[Path | None]:
    """Flow from each image to the next: ``flow/`` or *.flo beside the images, in order, one fewer than images.

    .flo files as Middlebury has them, 16-bit PNGs in ``flow/`` as KITTI does. Empty without any.
    """
    files = sorted((folder / "flow").glob("*.flo")) or sorted((folder / "flow").glob("*.png"))
    files = files or sorted(folder.glob("*.flo"))
    if len(files) not in (0, len(images) - 1, len(images)):
        raise SequenceError(
            f"{folder} has {len(files)} files of flow for {len(images)} images; expected one for each pair"
        )
    return [*files[: len(images) - 1], None] if files else []
