"""What the odometry takes and what it gives: Frame and Estimate."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines.engine import FlowField


@dataclass(frozen=True)
class Frame:
    """One rectified camera image at the two sizes that are needed of it.

    stamp_ns: integer nanoseconds.
    image:    (h, w, 3) uint8 BGR at the networks' input size; its camera is ``camera.resized(w, h)``.
    gray:     (H, W) uint8, the same view at full (or reduced) resolution, for the sub-pixel refinement.
    camera:   of ``gray``.
    mask:     (H, W) bool of ``gray``, False where the image is not to be used, e.g. the robot's own body; None for all.
    """

    stamp_ns: int
    image: np.ndarray
    gray: np.ndarray
    camera: PinholeCamera
    mask: np.ndarray | None = None

    @property
    def image_camera(self) -> PinholeCamera:
        """The camera of ``image``."""
        return self.camera.resized(self.image.shape[1], self.image.shape[0])


class State(str, Enum):
    """What the odometry is doing."""

    INITIALISING = "initialising"  # no pair of frames yet
    TRACKING = "tracking"
    STATIONARY = "stationary"  # the camera stands still: the pose is held exactly
    LOST = "lost"  # no motion could be found: the pose follows config.lost_policy, its covariance grows


@dataclass(frozen=True)
class Scale:
    """What one unit of translation and depth is, and how well it is known.

    value:     by what the network's depth was multiplied to have the unit of the translation, 1 without such depth.
    spread:    relative standard deviation of the scale of this frame's translation.
    source:    ``network``, ``median_depth``, ``camera_height`` or ``none``.
    is_metric: True only where the unit is the metre.
    ok:        the scale was measured in this frame; False where it was carried over from earlier ones.
    """

    value: float
    spread: float
    source: str
    is_metric: bool
    ok: bool


@dataclass(frozen=True)
class Estimate:
    """The camera's motion up to one frame, and the scene's depth in it.

    ``T_a_b`` maps coordinates in b to a. Frames are optical: x right, y down, z forward.
    Covariances are 6x6, in the order x y z rx ry rz, in the unit of the translation and rad, and stand for a small
    error expressed in the axes of the *parent* frame, as ROS messages have it: ``T = (trans(dx) * rot(dr)) applied in
    parent axes about the child's origin``.
    """

    stamp_ns: int
    state: State
    reason: str  # one clear sentence, "" when tracking well
    model: str  # "essential", "pnp", "rotation", "stationary" or "none"
    T_odom_camera: np.ndarray  # (4, 4) of this frame in the odometry's origin: the first frame, or what reset set
    has_pose: bool  # False while lost, once config.lost_policy gives the pose up
    T_previous_current: np.ndarray  # (4, 4) pose of this frame in the previous one; after a loss, in the one before it
    dt: float  # s since that frame, 0 where there is none to compare with
    motion_covariance: np.ndarray  # (6, 6) of T_previous_current, in the axes of the previous frame
    pose_covariance: np.ndarray  # (6, 6) of T_odom_camera, accumulated along the path, in the axes of odom
    scale: Scale
    matches: int  # that were given to the pose
    inliers: int  # that agree with the motion
    parallax_px: float  # median length of the flow that no rotation explains, in pixels of Frame.gray
    camera: PinholeCamera | None  # of ``depth``
    depth: np.ndarray | None  # (h, w) float32 along Z, in the unit of the translation
    points_1: np.ndarray  # (N, 2) float32 matches in the reference frame, in pixels of Frame.gray
    points_2: np.ndarray  # (N, 2) float32 and in this one
    inlier_mask: np.ndarray  # (N,) bool
    flow: FlowField | None  # from the reference frame (normally the previous one) to this one
    timings_ms: dict[str, float] = field(default_factory=dict)
