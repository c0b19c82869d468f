"""What the odometry needs of a network: flow between two images, and depth of one image.

The odometry knows these two protocols and nothing of ONNX Runtime or TensorRT behind them.
Both are made for one input size by ``load_flow`` and ``load_depth`` in ``depth_pose_ros.engines``.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class FlowField:
    """Optical flow between image 1 and image 2 on the network's native grid (1/stride of its input size).

    Cell (i, j) stands for the input pixel ``((j + 0.5) * stride - 0.5, (i + 0.5) * stride - 0.5)``,
    pixel centres at integer coordinates.

    forward:  (h, w, 2) float32, image 1 -> image 2, (x, y) in pixels of the network's input size.
    backward: (h, w, 2) float32, image 2 -> image 1, likewise.
    sigma:    (h, w) float32 or None, the network's own estimate of the end-point error of ``forward`` in pixels.
    stride:   input pixels per cell.
    """

    forward: np.ndarray
    backward: np.ndarray
    sigma: np.ndarray | None
    stride: int


class FlowEstimator(Protocol):
    """Flow between two images of one camera."""

    width: int
    height: int
    backend: str
    """What runs it, in words, e.g. ``onnxruntime CPUExecutionProvider``."""

    def features(self, image: np.ndarray) -> Any:
        """What is kept of one (height, width, 3) uint8 BGR image; computed once per frame, used for several pairs."""

    def flow(self, features_1: Any, features_2: Any) -> FlowField:
        """Flow both ways between two images, given what ``features`` kept of each."""


class DepthEstimator(Protocol):
    """Depth of one image."""

    width: int
    height: int
    backend: str

    def depth(self, image: np.ndarray, fx: float | None = None) -> np.ndarray:
        """(height, width, 3) uint8 BGR -> (h, w) float32 depth along Z at the network's native size.

        fx: focal length of the camera in pixels of ``image``. One image tells depth over focal length only; with fx the
        result is near the unit that the network was trained in, without it the unit differs from camera to camera.

        All values are finite and positive. The unit is the network's own: consistent from frame to frame, not metric.
        """
