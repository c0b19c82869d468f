"""Visual odometry: a frame goes in, an Estimate of the camera's motion, its scale and the scene's depth comes out."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator, FlowField
from depth_pose_ros.geometry import correspondences, covariance, depth_map, se3
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.ground_plane import find_ground
from depth_pose_ros.geometry.motion import Motion, estimate_motion, parallax
from depth_pose_ros.geometry.refine import MIN_CONTRAST, contrast, refine
from depth_pose_ros.geometry.scale import ScaleFilter, ScaleFit, align_scale
from depth_pose_ros.geometry.triangulation import triangulate

MAX_NOISE_PX = 5.0  # of an image 1000 pixels wide: matches that agree no better are not of one rigid scene
MIN_INLIER_SHARE = 0.2
KEEP_PX = 8.0  # of an image 1000 pixels wide: up to this parallax a reference is kept; longer baselines drift less
MAX_SHIFT = 0.1  # of the image's width: a reference frame that has moved further is given up
MAX_VIEWS = 32  # that process_matches remembers, for matches that name an older reference frame
POINTS_DRIFT = 0.005  # relative, from frame to frame, of the unit that the triangulated points carry on
MAX_POINTS_SPREAD = 0.1  # relative: a length that shared points give no better is taken from elsewhere
NETWORK_SPREAD = 0.05  # relative, of the scale of a depth network in one frame, beside what its points show
GROUND_SPREAD = 0.03  # likewise of the camera's height above uneven ground


@dataclass(frozen=True)
class Frame:
    """One rectified camera image at the two sizes that are needed of it.

    stamp_ns: integer nanoseconds.
    image:    (h, w, 3) uint8 BGR at the networks' input size; its camera is ``camera.resized(w, h)``.
    gray:     (H, W) uint8, the same view at full (or reduced) resolution, for the sub-pixel refinement.
    camera:   of ``gray``.
    """

    stamp_ns: int
    image: np.ndarray
    gray: np.ndarray
    camera: PinholeCamera

    @property
    def image_camera(self) -> PinholeCamera:
        """The camera of ``image``."""
        return self.camera.resized(self.image.shape[1], self.image.shape[0])


class State(str, Enum):
    """What the odometry is doing."""

    INITIALISING = "initialising"  # no pair of frames yet
    TRACKING = "tracking"
    STATIONARY = "stationary"  # the camera stands still: the pose is held exactly
    LOST = "lost"  # no motion could be found: the pose is held, its covariance grows


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
    T_previous_current: np.ndarray  # (4, 4) pose of this frame in the previous one
    dt: float  # s since the previous frame, 0 for the first
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
    network_depth: np.ndarray | None = None  # (h, w) in the network's unit
    points_depth: np.ndarray | None = None  # (h, w), coarse, of triangulated points, in the raw unit
    T_odom_camera: np.ndarray | None = None
    pose_covariance: np.ndarray | None = None


@dataclass(frozen=True)
class _Pair:
    """What the reference frame and the current one say of the motion between them.

    The raw unit is the one that the triangulated points carry from pair to pair. It starts as the depth network's, or
    without one as the first baseline, and drifts slowly (see _Unit).
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


class VisualOdometry:
    """Flow and depth from two networks, the motion from geometry (Zhao et al., CVPR 2020; Zhan et al., ICRA 2020).

    Each frame is compared with a reference frame: the one before it, or an older one for as long as too little parallax
    has gathered since. So slow motion is neither lost nor made of noise, and a camera at rest does not drift.

    The unit of translation and depth, by ``config.scale_source``:
      network        the depth network's own: the same from frame to frame, not metric.
      median_depth   the one in which the median depth of every frame is ``config.median_depth``.
      camera_height  metres, from the ground that is found in the triangulated points and lies ``config.camera_height``
                     below the camera; carried on where no ground is seen, and not metric before it is seen once.
      none           the length of the first baseline, carried on by the points that consecutive pairs of frames share:
                     it drifts.
    From frame to frame all of them follow those shared points, which are far steadier than the scale of a network in a
    single frame; the source corrects them slowly. Without a depth network ``network`` and ``median_depth`` cannot be
    had: then ``none`` is what is given and reported.
    """

    def __init__(self, flow: FlowEstimator | None, depth: DepthEstimator | None, config: OdometryConfig | None = None):
        """``flow`` may be None if only :meth:`process_matches` is used; ``depth`` if there is no depth network."""
        self.flow = flow
        self.depth = depth
        self.config = config or OdometryConfig()
        self._beside = ThreadPoolExecutor(1, "depth")
        self.reset()

    def reset(self, T_odom_camera: np.ndarray | None = None) -> None:
        """Forget everything; the next frame is the first, at ``T_odom_camera`` (4, 4), identity when None."""
        self._pose = np.eye(4) if T_odom_camera is None else np.array(T_odom_camera, np.float64)
        self._pose_covariance = np.zeros((6, 6))
        self._reference: View | None = None
        self._last: View | None = None  # the last frame, where that is not the reference
        self._seen: dict[int, View] = {}  # by stamp, for matches that name the frame they start from
        self._stamp_ns: int | None = None  # of the last frame
        self._tracked_ns: int | None = None  # of the last frame that was not lost
        self._step = np.eye(4)  # T_previous_current of the last frame: a guess for the next
        self._baseline = 1.0  # raw units, length of the last translation
        self._unit = _Unit()

    # ------------------------------------------------------------------------------------------------- one frame
    def process(self, frame: Frame) -> Estimate:
        """Motion and depth of the next frame. Never raises on what an image shows: see ``state`` and ``reason``."""
        return self.solve(self.see(frame))

    def see(self, frame: Frame) -> View:
        """The first half of :meth:`process`: what the networks make of this frame alone, both at the same time.

        Reads and keeps no state: another thread may see the next frame while this one is being solved.
        """
        view = View(frame.stamp_ns, frame.camera, network=self.flow, gray=frame.gray)
        levels = contrast(frame.gray)
        if levels < MIN_CONTRAST:
            view.unusable = f"the image is almost uniform ({levels:.1f} grey levels of contrast): nothing to track"
            return view
        depth = self._beside.submit(self._see_depth, frame, view.timings_ms)
        with _timed(view.timings_ms, "flow"):
            view.features = self.flow.features(frame.image)
        view.network_depth = depth.result()
        return view

    def _see_depth(self, frame: Frame, timings: dict[str, float]) -> np.ndarray | None:
        if self.depth is None:
            return None
        with _timed(timings, "depth"):
            return self.depth.depth(frame.image, frame.image_camera.fx)

    def solve(self, view: View) -> Estimate:
        """The second half of :meth:`process`: matches with the reference frame, and geometry.

        Once for each view, in the order of their frames.
        """
        if view.unusable:
            return self._lose(view, _Pair(Matches.empty(), failure=view.unusable))
        if restart := self._why_restart(view):
            return self._start(view, restart)

        pair = self._compare(self._reference, view)
        if pair.failure and self._last is not None:
            # The reference may have gone out of sight: what does the last frame have in common with this one?
            second = self._compare(self._last, view)
            if not second.failure:
                self._reference, pair = self._last, second
        return self._lose(view, pair) if pair.failure else self._follow(view, pair)

    def process_matches(
        self,
        stamp_ns: int,
        camera: PinholeCamera,
        reference_stamp_ns: int | None,
        points_1: np.ndarray,
        points_2: np.ndarray,
        scores: np.ndarray,
        depth: np.ndarray | None,
    ) -> Estimate:
        """The part of :meth:`process` after the networks, for matches and depth that come from other processes.

        stamp_ns:           of the current frame.
        camera:             of the pixels of the matches.
        reference_stamp_ns: of the frame that ``points_1`` lie in (:func:`keeps_reference` says which one to take);
                            None with no matches: the frame is a first one.
        points_1, points_2: (N, 2) pixels in the reference frame and in the current one, already refined.
        scores:             (N,) positive, larger is better.
        depth:              (h, w) of the current frame in the network's unit, same view, any size; None without one.
        """
        view = View(stamp_ns, camera, network_depth=depth)
        restart = self._why_restart(view)
        reference = self._seen.get(reference_stamp_ns)
        if reference is None and not restart:
            restart = "the frame that these matches start from was not received; going on from the last pose"
        if restart:
            self._seen.clear()
            estimate = self._start(view, restart)
        else:
            self._reference = reference
            usable = np.isfinite(points_1).all(1) & np.isfinite(points_2).all(1) & np.isfinite(scores) & (scores > 0)
            pair = self._solve(reference, view, Matches(points_1[usable], points_2[usable], scores[usable]))
            estimate = self._lose(view, pair) if pair.failure else self._follow(view, pair)
        self._seen[stamp_ns] = view
        while len(self._seen) > MAX_VIEWS:
            del self._seen[next(iter(self._seen))]
        return estimate

    def _why_restart(self, view: View) -> str:
        """Why this frame is not compared with an earlier one, in a sentence; "" if it is."""
        if self._reference is None:
            return "the first frame: a motion takes two"
        if view.stamp_ns <= self._stamp_ns:
            back = (self._stamp_ns - view.stamp_ns) * 1e-9
            return f"the stamp went back by {back:.3f} s; going on from the last pose"
        gap = (view.stamp_ns - self._tracked_ns) * 1e-9
        if gap > self.config.max_gap:
            return f"{gap:.2f} s since the last tracked frame, more than max_gap; going on from the last pose"
        if view.camera != self._reference.camera:
            return "the camera's size or intrinsics changed; going on from the last pose"
        if view.network is not self._reference.network:
            return "the flow network was loaded anew; going on from the last pose"
        return ""

    # ------------------------------------------------------------------------------------------------ two frames
    def _compare(self, reference: View, view: View) -> _Pair:
        """Flow, matches and motion between a reference frame and the current one."""
        with _timed(view.timings_ms, "flow"):
            flow = view.network.flow(reference.features, view.features)
        with _timed(view.timings_ms, "correspondences"):
            matches = correspondences.select(flow, self.config.max_matches)
            matches = matches.resized(view.camera.width / self.flow.width, view.camera.height / self.flow.height)
        if self.config.refine:
            with _timed(view.timings_ms, "refine"):
                matches = refine(reference.gray, view.gray, matches)
        return replace(self._solve(reference, view, matches), flow=flow)

    def _solve(self, reference: View, view: View, matches: Matches) -> _Pair:
        """Motion from matches, and its length from depth."""
        camera, focal = view.camera, _focal(view.camera)
        if len(matches) < self.config.min_matches:
            least = f"at least {self.config.min_matches} are needed"
            return _Pair(matches, failure=f"only {len(matches)} matches agree in both directions; {least}")
        rays_1 = np.ascontiguousarray(camera.rays(matches.points_1).T)
        rays_2 = np.ascontiguousarray(camera.rays(matches.points_2).T)
        regions = covariance.tiles(matches.points_1, camera.width, camera.height)
        points_1 = depth_map.sample(reference.points_depth, matches.points_1, camera)
        network_1 = depth_map.sample(reference.network_depth, matches.points_1, camera)
        network_2 = depth_map.sample(view.network_depth, matches.points_2, camera)
        depth_1 = np.where(np.isfinite(points_1), points_1, network_1 / self._unit.network_per_raw.value)
        with _timed(view.timings_ms, "pose"):
            guess = se3.inverse(se3.inverse(reference.T_odom_camera) @ self._pose @ self._step)
            motion = estimate_motion(
                rays_1,
                rays_2,
                matches.scores.astype(np.float64),
                focal,
                regions,
                depth_1,
                guesses=((guess[:3, :3], guess[:3, 3]),),
                min_parallax_px=self._still_px(camera),
            )
        agreeing, limit = int(np.count_nonzero(motion.inliers)), MAX_NOISE_PX * camera.width / 1000.0
        if motion.noise_px > limit:
            failure = f"the matches fit no single motion: off by {motion.noise_px:.1f} px, above {limit:.1f} px"
            return _Pair(matches, failure=failure)
        if agreeing < max(self.config.min_matches, MIN_INLIER_SHARE * len(matches)):
            return _Pair(matches, failure=f"only {agreeing} of {len(matches)} matches agree on one motion")
        distance = depth_map.middle(depth_1)
        distance = distance if math.isfinite(distance) else 1.0
        if motion.model != "essential":
            return _Pair(matches, motion=motion, distance=distance)

        with _timed(view.timings_ms, "triangulation"):
            points = triangulate(motion.R, motion.t, rays_1, rays_2)
            parallax_px = np.maximum(points.angle * focal, 1e-6)
            variance = (motion.noise_px / parallax_px) ** 2  # of the log of a depth; above 1/4 it says nothing
            unclear = ~(points.ok & motion.inliers & (variance < 0.25))
            points.depth_1[unclear] = points.depth_2[unclear] = np.nan
        with _timed(view.timings_ms, "scale"):
            points_scale = align_scale(points.depth_1, points_1, variance, regions)
            network_scale = align_scale(
                np.concatenate([points.depth_1, points.depth_2]),
                np.concatenate([network_1, network_2]),
                np.tile(variance, 2),
                np.tile(regions, 2),
            )
            if points_scale is not None and points_scale.spread < MAX_POINTS_SPREAD:
                length = points_scale.value
            elif network_scale is not None:
                length, points_scale = network_scale.value / self._unit.network_per_raw.value, None
            else:
                length, points_scale = self._baseline, None  # as far as last time, and 1 the first time
        return _Pair(
            matches,
            motion=motion,
            length=length,
            points_scale=points_scale,
            network_scale=network_scale,
            depth_2=length * points.depth_2,
            parallax_px=parallax_px,
            distance=distance,
        )

    # ------------------------------------------------------------------------------------------------ conclusions
    def _follow(self, view: View, pair: _Pair) -> Estimate:
        """The estimate from a pair that shows a motion or a rest, and what is kept of it for the next frame."""
        reference, motion = self._reference, pair.motion
        focal, still_px = _focal(view.camera), self._still_px(view.camera)
        state, model, reason = State.TRACKING, motion.model, ""
        R, t, C = motion.R, motion.t * pair.length, motion.covariance
        if motion.parallax_px < still_px and motion.flow_px < still_px:
            state, model, R, t = State.STATIONARY, "stationary", np.eye(3), np.zeros(3)
            reason = f"standing still: the image moves by {motion.flow_px:.2f} px, less than {still_px:.2f} px"
            C = np.diag([0.0] * 3 + [(motion.flow_px / focal) ** 2] * 3)
        elif model == "rotation":
            reason = f"rotation only: {motion.parallax_px:.2f} px of parallax are too little to see a translation"
        moved = bool(t.any())
        view.points_depth = _carry_on(reference, view.camera, R, t, pair)
        if moved:
            self._baseline = float(np.linalg.norm(t))
            with _timed(view.timings_ms, "unit"):
                self._unit.measure(self.config, view, pair)
        factor, scale = self._unit.scale(self.config, view, pair)

        unit = np.diag([pair.length * factor] * 3 + [1.0] * 3)
        C = covariance.of_pose_in_first_view(R, factor * t, unit @ C @ unit, scale.spread if moved else 0.0)
        if not moved:  # but what would be too small to be seen
            C[:3, :3] = (factor * pair.distance * motion.parallax_px / focal) ** 2 * np.eye(3)
        # What all matches of a frame may have in common does not show in how far they differ.
        shared = self.config.shared_error_px * view.camera.width / 1000.0 / focal
        C += np.diag([(factor * pair.distance * shared) ** 2] * 3 + [shared**2] * 3)
        T_reference_current = se3.make_pose(R.T, -R.T @ t * factor)
        view.T_odom_camera = reference.T_odom_camera @ T_reference_current
        view.pose_covariance = covariance.along_path(
            reference.T_odom_camera, reference.pose_covariance, T_reference_current, C
        )
        # In the axes of the previous frame; with the errors of both where that one too hangs on an older reference.
        turn = np.kron(np.eye(2), self._pose[:3, :3].T @ reference.T_odom_camera[:3, :3])
        C = turn @ C @ turn.T * (1.0 if reference.stamp_ns == self._stamp_ns else 2.0)
        estimate = self._estimate(view, state, reason, model, C, scale, pair)
        self._step = estimate.T_previous_current
        self._tracked_ns = view.stamp_ns
        if _is_kept(motion.parallax_px, motion.flow_px, view.camera, self.config):
            self._last = view
        else:
            self._reference, self._last = view, None
        return estimate

    def _lose(self, view: View, pair: _Pair) -> Estimate:
        """Hold the pose. The reference is kept, because the next frame may show its place again."""
        factor, scale = self._unit.scale(self.config, view, pair)
        unseen = np.linalg.norm(self._step[:3, 3]) + 0.5 * self._baseline * factor
        turned = se3.rotation_angle(self._step[:3, :3]) + math.radians(2.0)
        C = np.diag([unseen**2] * 3 + [turned**2] * 3)  # it may have gone on as before, or turned back
        view.T_odom_camera = self._pose
        view.pose_covariance = covariance.along_path(self._pose, self._pose_covariance, np.eye(4), C)
        estimate = self._estimate(view, State.LOST, pair.failure, "none", C, scale, pair)
        self._last = view if view.features is not None else self._last
        return estimate

    def _start(self, view: View, reason: str) -> Estimate:
        """A frame that is compared with no earlier one, at the pose so far."""
        view.T_odom_camera, view.pose_covariance = self._pose, self._pose_covariance
        pair = _Pair(Matches.empty())
        _, scale = self._unit.scale(self.config, view, pair)
        estimate = self._estimate(view, State.INITIALISING, reason, "none", np.zeros((6, 6)), scale, pair)
        self._reference, self._last = view, None
        self._tracked_ns = view.stamp_ns
        self._step = np.eye(4)
        return replace(estimate, dt=0.0)

    def _estimate(
        self,
        view: View,
        state: State,
        reason: str,
        model: str,
        motion_covariance: np.ndarray,
        scale: Scale,
        pair: _Pair,
    ) -> Estimate:
        """Put an Estimate together, and make ``view`` the last frame."""
        motion, matches = pair.motion, pair.matches
        depth = view.network_depth * np.float32(scale.value) if view.network_depth is not None else None
        at_rest = np.array_equal(view.T_odom_camera, self._pose)
        estimate = Estimate(
            stamp_ns=view.stamp_ns,
            state=state,
            reason=reason,
            model=model,
            T_odom_camera=view.T_odom_camera,
            T_previous_current=np.eye(4) if at_rest else se3.inverse(self._pose) @ view.T_odom_camera,
            dt=0.0 if self._stamp_ns is None else (view.stamp_ns - self._stamp_ns) * 1e-9,
            motion_covariance=motion_covariance,
            pose_covariance=view.pose_covariance,
            scale=scale,
            matches=len(matches),
            inliers=int(np.count_nonzero(motion.inliers)) if motion else 0,
            parallax_px=motion.parallax_px if motion else 0.0,
            camera=view.camera.resized(depth.shape[1], depth.shape[0]) if depth is not None else None,
            depth=depth,
            points_1=matches.points_1,
            points_2=matches.points_2,
            inlier_mask=motion.inliers if motion else np.zeros(len(matches), bool),
            flow=pair.flow,
            timings_ms=view.timings_ms,
        )
        self._pose, self._pose_covariance, self._stamp_ns = view.T_odom_camera, view.pose_covariance, view.stamp_ns
        return estimate

    def _still_px(self, camera: PinholeCamera) -> float:
        return self.config.stationary_px * camera.width / 1000.0


class _Unit:
    """From the raw unit, which drifts, to that of ``config.scale_source``: filtered, as each look at it is noisy."""

    def __init__(self) -> None:
        self.network_per_raw = ScaleFilter(POINTS_DRIFT)
        self._per_raw = ScaleFilter(POINTS_DRIFT)  # of ``camera_height``; of ``none``, which is never corrected
        self._per_raw_by_median = 1.0  # of ``median_depth``
        self._source = ""
        self._points_spread = 0.0  # of the last length
        self._is_measured = False  # in this frame

    def measure(self, config: OdometryConfig, view: View, pair: _Pair) -> None:
        """Look at the scale in a frame that has moved."""
        self._choose(config, view)
        self._points_spread = pair.points_scale.spread if pair.points_scale else 0.0
        self.network_per_raw.drift_by(self._points_spread)
        self._per_raw.drift_by(self._points_spread)
        if pair.network_scale is not None:
            variance = pair.network_scale.spread**2 + NETWORK_SPREAD**2
            self._is_measured = self.network_per_raw.update(pair.network_scale.value / pair.length, variance)
        if self._source == "camera_height":
            self._is_measured = self._look_for_ground(config.camera_height, view.camera, pair)
        elif self._source == "none":
            self._is_measured = not self._per_raw.is_known
            if self._is_measured:
                self._per_raw.update(1.0 / (pair.length * float(np.linalg.norm(pair.motion.t))), 0.0)

    def scale(self, config: OdometryConfig, view: View, pair: _Pair) -> tuple[float, Scale]:
        """The factor from the raw unit to that of this frame's estimate, and what is to be said of it."""
        self._choose(config, view)
        # The network's depth of this frame in the raw unit: by its own points, else as it is on average.
        raw_per_network = 1.0 / self.network_per_raw.value
        if pair.network_scale is not None:
            raw_per_network = pair.length / pair.network_scale.value
        way = self._per_raw if self._source in ("camera_height", "none") else self.network_per_raw
        factor = way.value
        if self._source == "median_depth":
            if view.network_depth is not None:
                middle = raw_per_network * depth_map.middle(view.network_depth)
                self._per_raw_by_median = config.median_depth / middle
            factor = self._per_raw_by_median
        spread = math.sqrt(self._points_spread**2 + (way.variance if way.is_known else 0.0))
        is_metric = self._source == "camera_height" and way.is_known
        ok, self._is_measured = self._is_measured and pair.motion is not None, False
        value = factor * raw_per_network if view.network_depth is not None else 1.0
        return factor, Scale(value, spread, self._source, is_metric, ok)

    def _choose(self, config: OdometryConfig, view: View) -> None:
        source = config.scale_source
        has_network = view.network_depth is not None or self.network_per_raw.is_known
        if source in ("network", "median_depth") and not has_network:
            source = "none"
        if source != self._source:
            self._source, self._per_raw = source, ScaleFilter(POINTS_DRIFT)

    def _look_for_ground(self, camera_height: float, camera: PinholeCamera, pair: _Pair) -> bool:
        good = np.isfinite(pair.depth_2)
        points, depth, scores = pair.matches.points_2[good], pair.depth_2[good], pair.matches.scores[good]
        ground = find_ground(
            camera.rays(points).T,
            1.0 / depth,
            pair.parallax_px[good] * depth * np.minimum(scores / np.median(pair.matches.scores), 5.0),
            -pair.motion.t / np.linalg.norm(pair.motion.t),
            covariance.tiles(points, camera.width, camera.height),
        )
        if ground is None:
            return False
        return self._per_raw.update(camera_height / ground.height, ground.spread**2 + GROUND_SPREAD**2)


def keeps_reference(matches: Matches, camera: PinholeCamera, config: OdometryConfig) -> bool:
    """Whether the next frame should again be compared with the frame that ``matches.points_1`` lie in.

    For whoever makes the matches in another process than :class:`VisualOdometry` (see process_matches): as long as a
    camera has hardly moved, an older reference shows its motion better. The same rule as inside ``process``.
    """
    if len(matches) < config.min_matches:
        return False
    rays_1, rays_2 = camera.rays(matches.points_1).T, camera.rays(matches.points_2).T
    parallax_px, flow_px = parallax(rays_1, rays_2, matches.scores.astype(np.float64), _focal(camera))
    return _is_kept(parallax_px, flow_px, camera, config)


def _is_kept(parallax_px: float, flow_px: float, camera: PinholeCamera, config: OdometryConfig) -> bool:
    limit_px = max(KEEP_PX, config.stationary_px) * camera.width / 1000.0
    return parallax_px < limit_px and flow_px < MAX_SHIFT * camera.width


def _carry_on(reference: View, camera: PinholeCamera, R: np.ndarray, t: np.ndarray, pair: _Pair) -> np.ndarray | None:
    """Coarse depth of the current frame in the raw unit: what was triangulated, else what was known before, moved."""
    matches = pair.matches
    before = depth_map.sample(reference.points_depth, matches.points_1, camera)
    moved = before * (R[2] @ camera.rays(matches.points_1).T) + t[2]
    depth = np.where(pair.motion.inliers, moved, np.nan)
    if pair.depth_2 is not None:
        depth = np.where(np.isfinite(pair.depth_2), pair.depth_2, depth)
    if not np.isfinite(depth).any():
        return None
    return depth_map.gather(depth, matches.points_2, camera)


def _focal(camera: PinholeCamera) -> float:
    return math.sqrt(camera.fx * camera.fy)


@contextmanager
def _timed(timings: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    timings[stage] = timings.get(stage, 0.0) + 1e3 * (time.perf_counter() - start)
