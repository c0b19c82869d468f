"""The live viewer: what the odometry sees and finds, in rerun (https://rerun.io), on a screen or in a file.

``depth_pose run --view`` fills it from estimates, ``view_node`` from ROS topics.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.geometry.point_cloud import PointCloud
from depth_pose_ros.geometry.se3 import quaternion_from_matrix
from depth_pose_ros.images import INLIER, OUTLIER, flow_picture
from depth_pose_ros.share import install_extra

if TYPE_CHECKING:
    from depth_pose_ros.odometry import Estimate, Frame

PATH = (209, 73, 91)  # RGB
LEVELS = {"lost": "ERROR", "initialising": "WARN"}
MATCHES = 400  # drawn of each frame
POINTS = 40_000  # of each cloud
JPEG = 80
SIGMAS = 2.0  # of the ellipsoid of the position's covariance


def has_screen() -> bool:
    """Whether a window can be opened here."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Viewer:
    """One recording. Poses are T_world_camera with optical camera axes; lengths in the odometry's unit.

    Entities: world/camera (pose), world/camera/image with matches, world/camera/depth, world/camera/points, world/path,
    world/covariance, flow, matches, state and plots/*; the timeline is ``stamp``.
    """

    def __init__(
        self, name: str, file: Path, say: Callable[[str], object], of_topics: bool = False, live: bool | None = None
    ) -> None:
        """Open a window, or without a screen record to ``file``; ``say`` is told which.

        of_topics: the world has x forward, y left, z up as ROS has it, instead of the optical axes of the first camera,
                   and matches come as a picture of their own, ``matches``, instead of lines in the image.
        live:      False records although there is a screen.
        ConfigError without rerun.
        """
        try:
            import rerun as rr
        except ImportError as error:
            raise ConfigError(f"the viewer needs rerun ({error}): {install_extra('rerun')}") from error
        self._rr = rr
        self._stream = rr.RecordingStream(f"depth_pose {name}")
        self._path: list[np.ndarray] = []
        self._level = ""
        if has_screen() if live is None else live:
            rr.spawn(connect=False)
            self._stream.connect_grpc(default_blueprint=self._blueprint(of_topics))
            say("Showing in rerun")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._stream.save(file, default_blueprint=self._blueprint(of_topics))
            say(f"Recording what --view shows to {file}; look at it with: rerun {file}")
        axes = rr.ViewCoordinates.FLU if of_topics else rr.ViewCoordinates.RDF
        self._stream.log("world", axes, static=True)

    def _blueprint(self, of_topics: bool):
        import rerun.blueprint as rrb

        plots = rrb.Vertical(
            rrb.TimeSeriesView(origin="plots/scale", name="scale"),
            rrb.TimeSeriesView(origin="plots/matches", name="matches and inliers"),
            rrb.TimeSeriesView(origin="plots/ms", name="time of each stage [ms]"),
            rrb.TextLogView(origin="state", name="state"),
        )
        matches = [rrb.Spatial2DView(origin="matches", name="matches: green where they agree with the motion")]
        pictures = rrb.Vertical(
            rrb.Spatial2DView(origin="world/camera/image", name="image" if of_topics else "image and matches"),
            *(matches if of_topics else []),
            rrb.Spatial2DView(origin="world/camera/depth", name="depth"),
            rrb.Spatial2DView(origin="flow", name="flow"),
        )
        seen = ["$origin/**", "- $origin/camera/depth/**"]  # the cloud is the same in the image's colours
        world = rrb.Spatial3DView(origin="world", name="path and cloud", contents=seen)
        return rrb.Blueprint(rrb.Horizontal(world, pictures, plots, column_shares=[3, 2, 2]), collapse_panels=True)

    # ------------------------------------------------------------------------------------------------- one estimate
    def show(self, frame: Frame, estimate: Estimate) -> None:
        """Everything of one frame."""
        camera = frame.image_camera
        self.at(estimate.stamp_ns)
        self.pose(estimate.T_odom_camera, estimate.pose_covariance)
        self.image(frame.image, camera)
        scale = camera.width / frame.camera.width
        self.matches(estimate.points_1 * scale, estimate.points_2 * scale, estimate.inlier_mask)
        if estimate.flow is not None:
            self.picture("flow", flow_picture(estimate.flow.forward))
        if estimate.depth is not None:
            self.depth(estimate.depth, estimate.camera)
            cloud = PointCloud(estimate.camera).xyz(estimate.depth).reshape(-1, 3)
            small = cv2.resize(frame.image, estimate.depth.shape[::-1], interpolation=cv2.INTER_AREA)
            self.points(cloud, small.reshape(-1, 3))
        self.state(estimate.state.value, estimate.reason)
        self.numbers("scale", {"scale": estimate.scale.value, "spread": estimate.scale.spread})
        self.numbers("matches", {"matches": estimate.matches, "inliers": estimate.inliers})
        self.numbers("ms", estimate.timings_ms)

    # ---------------------------------------------------------------------------------------------------- its parts
    def at(self, stamp_ns: int) -> None:
        """The time of all that follows."""
        self._stream.set_time("stamp", timestamp=np.datetime64(stamp_ns, "ns"))

    def image(self, image: np.ndarray, camera: PinholeCamera | None) -> None:
        """(H, W, 3) uint8 BGR or (H, W) gray; ``camera`` places it in the world."""
        rr = self._rr
        if camera is not None:
            self._pinhole("world/camera/image", camera)
        colours = "L" if image.ndim == 2 else "BGR"
        self._stream.log("world/camera/image", rr.Image(image, color_model=colours).compress(jpeg_quality=JPEG))

    def matches(self, points_1: np.ndarray, points_2: np.ndarray, inliers: np.ndarray) -> None:
        """(N, 2) pixels of the last image and of this one; green where they agree with the motion."""
        every = max(1, -(-len(points_2) // MATCHES))
        lines = np.stack([points_1[::every], points_2[::every]], axis=1)
        colours = np.where(inliers[::every, None], INLIER, OUTLIER).astype(np.uint8)
        self._stream.log("world/camera/image/matches", self._rr.LineStrips2D(lines, colors=colours, radii=0.6))

    def picture(self, entity: str, picture: np.ndarray) -> None:
        """(H, W, 3) uint8 BGR, for ``flow`` and ``matches``."""
        self._stream.log(entity, self._rr.Image(picture, color_model="BGR").compress(jpeg_quality=JPEG))

    def depth(self, depth: np.ndarray, camera: PinholeCamera) -> None:
        """(H, W) float32 along Z, NaN where unknown."""
        self._pinhole("world/camera/depth", camera)
        known = np.nan_to_num(depth.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        self._stream.log("world/camera/depth", self._rr.DepthImage(known, meter=1.0, colormap="Turbo"))

    def points(self, xyz: np.ndarray, bgr: np.ndarray) -> None:
        """(N, 3) in the camera's optical frame, and (N, 3) uint8."""
        known = np.flatnonzero(np.isfinite(xyz).all(axis=1))
        known = known[:: max(1, -(-len(known) // POINTS))]
        cloud = self._rr.Points3D(xyz[known], colors=bgr[known, ::-1])
        self._stream.log("world/camera/points", cloud)

    def pose(self, T_world_camera: np.ndarray, covariance: np.ndarray | None = None) -> None:
        """Where the camera is, the path up to here, and how sure that is: (6, 6) of x y z rx ry rz in world axes."""
        rr, position = self._rr, T_world_camera[:3, 3]
        self._stream.log("world/camera", rr.Transform3D(translation=position, mat3x3=T_world_camera[:3, :3]))
        self._path.append(position.copy())
        # A path is sent whole: the longer it is, the more seldom.
        if len(self._path) > 1 and len(self._path) % (1 + len(self._path) // 200) == 0:
            self._stream.log("world/path", rr.LineStrips3D([np.array(self._path)], colors=PATH))
        if covariance is not None and np.isfinite(covariance[:3, :3]).all():
            variances, axes = np.linalg.eigh(covariance[:3, :3])
            if np.linalg.det(axes) < 0:
                axes[:, 0] *= -1
            sizes = SIGMAS * np.sqrt(np.maximum(variances, 1e-12))
            ellipsoid = rr.Ellipsoids3D(
                half_sizes=[sizes], centers=[position], quaternions=[quaternion_from_matrix(axes)], colors=PATH
            )
            self._stream.log("world/covariance", ellipsoid)

    def state(self, state: str, reason: str) -> None:
        """Told when it changes."""
        text = f"{state}: {reason}" if reason else state
        if text != self._level:
            self._level = text
            self._stream.log("state", self._rr.TextLog(text, level=LEVELS.get(state, "INFO")))

    def numbers(self, plot: str, values: Mapping[str, float]) -> None:
        """One point of every curve of a plot."""
        for name, value in values.items():
            if np.isfinite(value):
                self._stream.log(f"plots/{plot}/{name}", self._rr.Scalars(float(value)))

    def _pinhole(self, entity: str, camera: PinholeCamera) -> None:
        size = [camera.width, camera.height]
        self._stream.log(entity, self._rr.Pinhole(image_from_camera=camera.K, resolution=size))

    def close(self) -> None:
        """Write what is still on its way."""
        self._stream.flush()
        self._stream.disconnect()
