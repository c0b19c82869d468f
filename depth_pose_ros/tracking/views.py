"""What the odometry knows of one frame, and of two."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines.engine import FlowEstimator, FlowField
from depth_pose_ros.geometry.appearance import Look
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.motion import Motion
from depth_pose_ros.geometry.scale import ScaleFit


@dataclass
class View:
    """What is kept of a frame that later ones are compared with. :meth:`VisualOdometry.see` makes it.

    The poses and ``points_depth`` are for the odometry alone, which sets them when it solves the view.
    """

    stamp_ns: int
    camera: PinholeCamera  # of ``gray`` and of the matches' pixels
    unusable: str = ""  # why nothing can be matched in it, in a sentence; features and depth are then not set
    timings_ms: dict[str, float] = field(default_factory=dict)
    network: FlowEstimator | None = None  # that made the features and compares them
    features: Any = None
    gray: np.ndarray | None = None
    mask: np.ndarray | None = None  # see Frame
    look: Look | None = None
    network_depth: np.ndarray | None = None  # (h, w) in the network's unit, NaN where masked
    points_depth: np.ndarray | None = None  # (h, w), coarse, of triangulated points, in the raw unit
    T_odom_camera: np.ndarray | None = None
    pose_covariance: np.ndarray | None = None  # (7, 7), see covariance.along_path
    since: tuple[int, np.ndarray] | None = None  # stamp of the frame it was compared with; covariance (6, 6) from there
    at_rest: bool = False  # the camera stood still when this was taken
    is_clear: bool = False  # nothing but the world is seen
    world: np.ndarray | None = None  # (C,) bool, the tiles of the image that moved with the world; None where unknown


@dataclass(frozen=True)
class Pair:
    """What the reference frame and the current one say of the motion between them.

    The raw unit is the one that the triangulated points carry from pair to pair. It starts as the depth network's, or
    without one as the first baseline, and drifts slowly (see unit.Unit).
    """

    matches: Matches
    flow: FlowField | None = None
    failure: str = ""  # why there is no motion, in a sentence; what follows is then not set
    motion: Motion | None = None
    length: float = 1.0  # raw units in one unit of motion.t
    points_scale: ScaleFit | None = None  # what the length was measured with; None where it was not
    network_scale: ScaleFit | None = None  # network units in one unit of motion.t; None where it was not measured
    depth_2: np.ndarray | None = None  # (N,) raw units, triangulated, in the current frame; NaN where it says nothing
    parallax_px: np.ndarray | None = None  # (N,) angle between the rays
    distance: float = 1.0  # raw units, median depth of the matches as far as it is known
    is_guess: bool = False  # nothing shows the length: it is that of the last frame
    resting: str = ""  # why this is no motion of the camera although most of the image moves, in a sentence
    is_crowded: bool = False  # something else moves
    doubt: float = 1.0  # factor on the covariance of the motion
