"""Visual odometry: a frame goes in, an Estimate of the camera's motion, its scale and the scene's depth comes out."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator
from depth_pose_ros.estimate import Estimate, Frame, Scale, State
from depth_pose_ros.geometry import correspondences, covariance, depth_correction, depth_map, rigidity, se3
from depth_pose_ros.geometry.appearance import MIN_CONTRAST, Look
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.motion import estimate_motion, parallax
from depth_pose_ros.geometry.planar import planar
from depth_pose_ros.geometry.refine import refine
from depth_pose_ros.geometry.scale import align_scale
from depth_pose_ros.geometry.triangulation import triangulate
from depth_pose_ros.tracking.coasting import Coasting
from depth_pose_ros.tracking.crowd import Crowd, Mover
from depth_pose_ros.tracking.standard import Standard
from depth_pose_ros.tracking.unit import Unit
from depth_pose_ros.tracking.views import Pair, View

MAX_NOISE_PX = 5.0  # of an image 1000 pixels wide: matches that agree no better are not of one rigid scene
MIN_INLIER_SHARE = 0.2
KEEP_PX = 8.0  # of an image 1000 pixels wide: up to this parallax a reference is kept; longer baselines drift less
MAX_SHIFT = 0.1  # of the image's width: a reference frame that has moved further is given up
MAX_VIEWS = 32  # that process_matches remembers, for matches that name an older reference frame
MAX_POINTS_SPREAD = 0.1  # relative: a length that shared points give no better is taken from elsewhere
UP = np.array([0.0, -1.0, 0.0])  # of a camera that is mounted level
SHORT_STEP = 0.15  # s between frames, above which a camera need not go on as before: a hand turns around in a third
DOUBTED = 1.4  # times the standard deviation, above which a motion is believed only if it is one the camera can make
FEW = 0.15  # of all the matches that are asked for: fewer do not tell what else is in the view
MANY = 0.6  # likewise: with so many the view is neither dark nor blurred
HALF = 0.5  # of the usual matches, that go back to a frame that showed the world alone: it is seen again
REST_FACTOR = 2.0  # on the threshold of standing still, for turning: what stands still may shake
UNIT_MEMORY = 2.0  # s, in which what is wrong with the unit becomes something else
REST_NOISE = 3.0  # times the noise of the matches: of a camera at rest so much parallax is that noise


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
        self.up: np.ndarray | None = UP
        """(3,) unit vector in the optical frame, normal of the plane that config.planar keeps the camera on. None while
        that is not known: then no motion is taken to be planar."""
        self.reset()

    def reset(self, T_odom_camera: np.ndarray | None = None) -> None:
        """Forget everything; the next frame is the first, at ``T_odom_camera`` (4, 4), identity when None."""
        self._pose = np.eye(4) if T_odom_camera is None else np.array(T_odom_camera, np.float64)
        self._pose_covariance = covariance.of_start()
        self._reference: View | None = None
        self._last: View | None = None  # the last frame, where that is not the reference
        self._clear: View | None = None  # the last tracked frame in which nothing but the world was seen
        self._seen: dict[int, View] = {}  # by stamp, for matches that name the frame they start from
        self._stamp_ns: int | None = None  # of the last frame
        self._tracked: View | None = None  # the last frame that was not lost
        self._lost: View | None = None  # the last frame, where that is lost
        self._coasting = Coasting()
        self._crowd = Crowd()
        self._standard = Standard()
        self._baseline = 0.0  # raw units, length of the last translation
        self._unit = Unit()
        self._factor = 1.0  # from the raw unit to that of the last estimate

    # ------------------------------------------------------------------------------------------------- one frame
    def process(self, frame: Frame) -> Estimate:
        """Motion and depth of the next frame. Never raises on what an image shows: see ``state`` and ``reason``."""
        return self.solve(self.see(frame))

    def see(self, frame: Frame) -> View:
        """The first half of :meth:`process`: what the networks make of this frame alone, both at the same time.

        Reads and keeps no state: another thread may see the next frame while this one is being solved.
        """
        view = View(
            frame.stamp_ns, frame.camera, network=self.flow, gray=frame.gray, mask=frame.mask, look=Look.of(frame.gray)
        )
        levels = view.look.contrast
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
            return depth_map.masked(self.depth.depth(frame.image, frame.image_camera.fx), frame.mask)

    def solve(self, view: View) -> Estimate:
        """The second half of :meth:`process`: matches with the reference frame, and geometry.

        Once for each view, in the order of their frames.
        """
        if view.unusable:
            return self._lose(view, Pair(Matches.empty(), failure=view.unusable), 0)
        if restart := self._why_restart(view):
            return self._start(view, restart)

        pair = self._compare(self._reference, view)
        most = len(pair.matches)
        # The reference may have gone out of sight, or something may hide the view in it: what have others in common
        # with this frame?
        for other in (self._last, self._clear if self._crowd.since_ns is not None else None):
            if not pair.failure:
                break
            if other is not None and other is not self._reference:
                second = self._compare(other, view)
                most = max(most, len(second.matches))
                if not second.failure:
                    self._reference, pair = other, second
        return self._lose(view, pair, most) if pair.failure else self._follow(view, pair)

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
        if restart:  # whoever makes the matches may keep its reference all the same, e.g. over a gap
            self._seen = {t: seen for t, seen in self._seen.items() if t < stamp_ns and seen.camera == camera}
            estimate = self._start(view, restart)
        else:
            self._reference = reference
            usable = np.isfinite(points_1).all(1) & np.isfinite(points_2).all(1) & np.isfinite(scores) & (scores > 0)
            pair = self._solve(reference, view, Matches(points_1[usable], points_2[usable], scores[usable]))
            estimate = self._lose(view, pair, len(pair.matches)) if pair.failure else self._follow(view, pair)
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
        gap = (view.stamp_ns - self._tracked.stamp_ns) * 1e-9
        if gap > (self.config.max_gap if self._crowd.since_ns is None else self.config.lost_time):
            return (
                f"{gap:.2f} s since the last frame that was tracked, too long to compare; going on from the last pose"
            )
        if view.camera != self._reference.camera:
            return "the camera's size or intrinsics changed; going on from the last pose"
        if view.network is not self._reference.network:
            return "the flow network was loaded anew; going on from the last pose"
        return ""

    # ------------------------------------------------------------------------------------------------ two frames
    def _compare(self, reference: View, view: View) -> Pair:
        """Flow, matches and motion between a reference frame and the current one."""
        with _timed(view.timings_ms, "flow"):
            flow = view.network.flow(reference.features, view.features)
        with _timed(view.timings_ms, "correspondences"):
            matches = correspondences.select(flow, self.config.max_matches, view.mask)
            matches = matches.resized(view.camera.width / self.flow.width, view.camera.height / self.flow.height)
        if self.config.refine:
            with _timed(view.timings_ms, "refine"):
                matches = refine(reference.gray, view.gray, matches)
        return replace(self._solve(reference, view, matches), flow=flow)

    def _solve(self, reference: View, view: View, matches: Matches) -> Pair:
        """The motion of the camera between two frames, from matches."""
        size = view.camera.width, view.camera.height
        suspect = np.zeros(len(matches), bool)  # from where the world was not seen before
        if reference.world is not None:
            suspect = ~reference.world[covariance.tiles(matches.points_1, *size)]
        used = np.ones(len(matches), bool)
        if self._crowd.since_ns is not None and len(matches) and np.mean(suspect) > rigidity.MIN_SHARE:
            used = ~suspect
        pair = self._fit(reference, view, matches[used])
        if pair.failure and not used.all():
            used[:] = True
            pair = self._fit(reference, view, matches)
        if pair.failure:
            return pair
        with _timed(view.timings_ms, "rigidity"):
            pair = self._question(reference, view, matches, suspect, used, pair)
        return pair if pair.failure else self._weigh(reference, view, pair)

    def _weigh(self, reference: View, view: View, pair: Pair) -> Pair:
        """How far a motion is to be believed, where fewer matches than usual or blurred images show it."""
        inliers = int(np.count_nonzero(pair.motion.inliers))
        doubt = self._standard.doubt(inliers, reference.look, view.look)
        if doubt > DOUBTED and not pair.resting and self._coasting.knows:
            seconds = (view.stamp_ns - self._tracked.stamp_ns) * 1e-9
            motion = se3.inverse(se3.make_pose(pair.motion.R, pair.motion.t * pair.length * self._factor))
            off = motion @ self._expected(reference, view)
            spread = np.sqrt(np.diag(self._coasting.doubt(seconds, goes_on=True)))
            if np.linalg.norm(off[:3, 3]) > 3.0 * spread[0] or se3.rotation_angle(off[:3, :3]) > 3.0 * spread[3]:
                why = f"the {inliers} matches that agree, fewer than usual or in blurred images, show a motion"
                is_crowded = pair.is_crowded or self._are_many(pair.matches)
                return Pair(pair.matches, failure=f"{why} that the camera cannot have made", is_crowded=is_crowded)
        return replace(pair, doubt=pair.doubt * doubt**2)

    def _question(
        self, reference: View, view: View, matches: Matches, suspect: np.ndarray, used: np.ndarray, pair: Pair
    ) -> Pair:
        """Whether what most matches agree on is the motion of the camera, or of something in front of it."""
        still_px, size = self._still_px(view.camera), (view.camera.width, view.camera.height)
        scene = self._scene(reference, view, matches, pair)
        if np.median(scene.flow_px) < still_px:
            rests = scene.flow_px < still_px
            view.world = rigidity.world_tiles(matches.points_2, rests, *size)
            view.is_clear = bool(np.mean(rests) > 1.0 - rigidity.MIN_SHARE)
            return pair
        is_short = self._stamp_ns is not None and (view.stamp_ns - self._stamp_ns) * 1e-9 <= SHORT_STEP
        expected = None
        if self._coasting.knows and (is_short or self._crowd.since_ns is not None):
            expected = self._expected(reference, view)
            expected[:3, 3] /= self._factor
        inliers = np.zeros(len(matches), bool)
        inliers[used] = pair.motion.inliers
        agreeing = np.count_nonzero(inliers)
        if agreeing < FEW * self.config.max_matches and self._crowd.since_ns is None and not reference.at_rest:
            return pair
        support = self._standard.support(agreeing)
        verdict = self._crowd.judge(scene, _found(pair), inliers, expected, reference.at_rest, suspect)
        view.world = rigidity.world_tiles(matches.points_2, verdict.world, *size)
        if verdict.mover is Mover.CAMERA:
            hidden = self._crowd.since_ns is not None or np.mean(suspect) > rigidity.MIN_SHARE
            view.is_clear = not hidden and support > 1.0 - rigidity.MIN_SHARE
            return replace(pair, doubt=self._doubt(verdict.world)) if hidden else pair
        seconds = self._crowd.seconds(view.stamp_ns)
        if verdict.mover is Mover.OTHERS:
            reference.world = rigidity.world_tiles(matches.points_1, verdict.world, *size)
            why = f"{100 * np.mean(verdict.world):.0f} % of the image rests, and the rest moves together"
            if seconds < self.config.lost_time:
                return replace(pair, resting=f"standing still: {why}", is_crowded=True)
            why += f" for {seconds:.0f} s; if what rests is the robot's own body, give a mask"
            return Pair(matches, failure=why, is_crowded=True)
        second = self._fit(reference, view, matches[verdict.world])
        if not second.failure:
            part = self._scene(reference, view, second.matches, second)
            if part.shift(expected).allows(second.motion.inliers):
                world = ~scene.shift(_found(second)).contradicts
                view.world = rigidity.world_tiles(matches.points_2, world, *size)
                return replace(second, is_crowded=True, doubt=self._doubt(world))
        if seconds > self.config.lost_time:
            return pair
        if reference.is_clear and support > HALF:
            # What fills the view by itself was not in a frame that showed the world alone.
            world = ~scene.shift(_found(pair)).contradicts
            view.world = rigidity.world_tiles(matches.points_2, world, *size)
            return replace(pair, doubt=self._doubt(world))
        view.world = np.zeros(rigidity.tile_count(*size), bool)
        why = "something that moves by itself fills the view, or else too little is seen"
        return Pair(matches, failure=why, is_crowded=True)

    def _are_many(self, matches: Matches) -> bool:
        """Whether it is not for want of matches that they show no motion of the camera: then something else moves."""
        return len(matches) > MANY * self.config.max_matches

    def _doubt(self, world: np.ndarray) -> float:
        """Factor on the variance of a motion that so little of the world shows, with something else among it."""
        return float(np.clip(2.0 * np.count_nonzero(world) / self.config.max_matches, 0.1, 1.0)) ** -2

    def _scene(self, reference: View, view: View, matches: Matches, pair: Pair) -> rigidity.Scene:
        rays_1, rays_2 = (view.camera.rays(points).T for points in (matches.points_1, matches.points_2))
        depth_1 = self._known_depth(reference, matches, view.camera)
        far = rigidity.FAR * pair.distance
        return rigidity.Scene(rays_1, rays_2, depth_1, far, _focal(view.camera), self._still_px(view.camera))

    def _known_depth(self, reference: View, matches: Matches, camera: PinholeCamera) -> np.ndarray:
        """(N,) raw units, depth of the matches in the reference frame as far as it was known before; else NaN."""
        points = depth_map.sample(reference.points_depth, matches.points_1, camera)
        network = depth_map.sample(reference.network_depth, matches.points_1, camera)
        return np.where(np.isfinite(points), points, network / self._unit.network_per_raw.value)

    def _expected(self, reference: View, view: View) -> np.ndarray:
        """(4, 4) T_current_reference if the camera goes on as it did before."""
        if reference.stamp_ns > self._tracked.stamp_ns:  # a lost one: where it was is not known, but how long ago
            return se3.inverse(self._coasting.motion((view.stamp_ns - reference.stamp_ns) * 1e-9))
        seconds = (view.stamp_ns - self._tracked.stamp_ns) * 1e-9
        now = self._tracked.T_odom_camera @ self._coasting.motion(seconds)
        return se3.inverse(now) @ reference.T_odom_camera

    def _fit(self, reference: View, view: View, matches: Matches) -> Pair:
        """The motion on which most matches agree, and its length from depth."""
        camera, focal = view.camera, _focal(view.camera)
        if len(matches) < self.config.min_matches:
            least = f"at least {self.config.min_matches} are needed"
            return Pair(matches, failure=f"only {len(matches)} matches agree in both directions; {least}")
        rays_1 = np.ascontiguousarray(camera.rays(matches.points_1).T)
        rays_2 = np.ascontiguousarray(camera.rays(matches.points_2).T)
        regions = covariance.tiles(matches.points_1, camera.width, camera.height)
        points_1 = depth_map.sample(reference.points_depth, matches.points_1, camera)
        network_1 = depth_map.sample(reference.network_depth, matches.points_1, camera)
        network_2 = depth_map.sample(view.network_depth, matches.points_2, camera)
        depth_1 = np.where(np.isfinite(points_1), points_1, network_1 / self._unit.network_per_raw.value)
        with _timed(view.timings_ms, "pose"):
            guess = self._expected(reference, view)
            motion = estimate_motion(
                rays_1,
                rays_2,
                matches.scores.astype(np.float64),
                focal,
                regions,
                depth_1,
                guesses=((guess[:3, :3], guess[:3, 3]),),
                min_parallax_px=self._still_px(camera),
                shared_px=self.config.shared_error_px * camera.width / 1000.0,
            )
        agreeing, limit = int(np.count_nonzero(motion.inliers)), MAX_NOISE_PX * camera.width / 1000.0
        if motion.noise_px > limit:
            failure = f"the matches fit no single motion: off by {motion.noise_px:.1f} px, above {limit:.1f} px"
            return Pair(matches, failure=failure, is_crowded=self._are_many(matches))
        if agreeing < max(self.config.min_matches, MIN_INLIER_SHARE * len(matches)):
            failure = f"only {agreeing} of {len(matches)} matches agree on one motion"
            return Pair(matches, failure=failure, is_crowded=self._are_many(matches))
        distance = depth_map.middle(depth_1)
        if motion.model != "essential":
            return Pair(matches, motion=motion, distance=distance if math.isfinite(distance) else 1.0)

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
                length, points_scale = self._baseline or 1.0, None  # as far as last time, and 1 the first time
        if not math.isfinite(distance):
            distance = length * depth_map.middle(points.depth_1)
        return Pair(
            matches,
            motion=motion,
            length=length,
            points_scale=points_scale,
            network_scale=network_scale,
            depth_2=length * points.depth_2,
            parallax_px=parallax_px,
            distance=distance if math.isfinite(distance) else 1.0,
            is_guess=points_scale is None and network_scale is None and self._baseline > 0,
        )

    # ------------------------------------------------------------------------------------------------ conclusions
    def _follow(self, view: View, pair: Pair) -> Estimate:
        """The estimate from a pair that shows a motion or a rest, and what is kept of it for the next frame."""
        reference, motion = self._reference, pair.motion
        focal, still_px = _focal(view.camera), self._still_px(view.camera)
        state, model, reason = State.TRACKING, motion.model, ""
        R, t, C = motion.R, motion.t * pair.length, motion.covariance
        if reference.at_rest:
            still_px = max(still_px, REST_NOISE * motion.noise_px)
        turn_px = still_px * (REST_FACTOR if reference.at_rest else 1.0)
        if pair.resting or (motion.parallax_px < still_px and motion.flow_px < turn_px):
            state, model, R, t = State.STATIONARY, "stationary", np.eye(3), np.zeros(3)
            reason = f"standing still: the image moves by {motion.flow_px:.2f} px, less than {turn_px:.2f} px"
            reason = pair.resting or reason
            C = np.diag([0.0] * 3 + [(min(motion.flow_px, still_px) / focal) ** 2] * 3)
        elif model == "rotation" or (reference.at_rest and motion.parallax_px < still_px):
            model, t = "rotation", np.zeros(3)
            reason = f"rotation only: {motion.parallax_px:.2f} px of parallax are too little to see a translation"
        elif pair.is_crowded:
            reason = "most of what moves in the image is not the world: following the matches that go on as before"
        elif pair.is_guess:
            reason = "the scale is lost: too few points are seen in depth, so the length is that of the last motion"
        moved = bool(t.any())
        view.points_depth = reference.points_depth if pair.resting else _carry_on(reference, view.camera, R, t, pair)
        if moved:
            self._baseline = float(np.linalg.norm(t))
            with _timed(view.timings_ms, "unit"):
                self._unit.measure(self.config, view, pair)
        factor, scale = self._unit.scale(self.config, view, pair)

        raw = pair.distance if motion.model == "rotation" else pair.length
        unit = np.diag([raw * factor] * 3 + [1.0] * 3)
        C = covariance.of_pose_in_first_view(R, factor * t, unit @ C @ unit)
        if not moved:  # but what would be too small to be seen
            unseen_px = min(motion.parallax_px, still_px)
            C[:3, :3] += (factor * pair.distance * unseen_px / focal) ** 2 * np.eye(3)
        # What all matches of a frame may have in common does not show in how far they differ.
        shared = self.config.shared_error_px * view.camera.width / 1000.0 / focal
        C += np.diag([(factor * pair.distance * shared) ** 2] * 3 + [shared**2] * 3)
        T_reference_current = se3.make_pose(R.T, -R.T @ t * factor)
        own_spread = self._unit.own_spread if moved else 0.0
        C = pair.doubt * covariance.with_scale(C, T_reference_current[:3, 3], own_spread)
        spread = math.sqrt(pair.doubt * (scale.spread**2 - own_spread**2))  # of the unit
        if self.config.planar and self.up is not None:
            T_reference_current, C = planar(T_reference_current, C, self.up)
        view.T_odom_camera = reference.T_odom_camera @ T_reference_current
        if state is not State.STATIONARY:  # products of many rotations stay rotations
            view.T_odom_camera[:3, :3] = se3.orthonormal(view.T_odom_camera[:3, :3])
        before = reference.T_odom_camera, reference.pose_covariance
        kept = math.exp(-1e-9 * (view.stamp_ns - reference.stamp_ns) / UNIT_MEMORY)
        view.pose_covariance = covariance.along_path(*before, T_reference_current, C, spread, kept)
        view.at_rest = state is State.STATIONARY
        if view.at_rest and reference.network_depth is None:
            reference.network_depth = view.network_depth  # of the same view; depth_node may skip frames
        reference.at_rest |= view.at_rest
        view.since = reference.stamp_ns, C
        # In the axes of the previous frame; with the errors of both where that one too hangs on an older reference.
        previous = max(reference, self._tracked, key=lambda one: one.stamp_ns)
        way = reference.T_odom_camera[:3, :3].T @ (view.T_odom_camera - previous.T_odom_camera)[:3, 3]
        if reference is not previous:
            hangs = previous.since is not None and previous.since[0] == reference.stamp_ns
            C = covariance.of_difference(C, previous.since[1] if hangs else C, way)
        if scale.source in ("network", "none"):  # their unit is what it is now
            spread = math.sqrt(pair.doubt) * self._unit.wander
        C = covariance.with_scale(C, way, spread)
        turn = np.kron(np.eye(2), previous.T_odom_camera[:3, :3].T @ reference.T_odom_camera[:3, :3])
        C = turn @ C @ turn.T
        estimate = self._estimate(view, previous, state, reason, model, C, scale, pair)
        self._coasting.see(estimate.T_previous_current, estimate.dt, factor * pair.distance)
        self._standard.see(estimate.inliers, view.look, estimate.dt)
        self._tracked, self._factor = view, factor
        self._clear = view if view.is_clear else self._clear
        self._crowd.note(view.stamp_ns, pair.is_crowded, view.is_clear)
        is_good = pair.doubt <= DOUBTED**2  # else the reference, too, may show little of the scene
        if view.at_rest or (is_good and _is_kept(motion.parallax_px, motion.flow_px, view.camera, self.config)):
            self._last = view
        else:
            self._reference, self._last = view, None
        return estimate

    def _lose(self, view: View, pair: Pair, most: int) -> Estimate:
        """A frame that shows no motion, and has at most so many matches with another.

        The reference is kept, because the next one may show its place again.
        """
        _, scale = self._unit.scale(self.config, view, pair)
        if self._tracked is None:  # nothing can be lost yet
            view.T_odom_camera, view.pose_covariance = self._pose, self._pose_covariance
            return self._estimate(view, None, State.INITIALISING, pair.failure, "none", np.zeros((6, 6)), scale, pair)
        why = view.look.why_unlike(self._reference.look) if view.look and not view.unusable else ""
        reason = f"{pair.failure}: {why}" if why and not pair.is_crowded else pair.failure
        seconds = self._coast(view)
        goes_on = self.config.lost_policy == "predict"
        dt = max(view.stamp_ns - self._stamp_ns, 0) * 1e-9
        C = self._coasting.doubt(dt, goes_on)
        estimate = self._estimate(view, self._lost or self._tracked, State.LOST, reason, "none", C, scale, pair)
        self._lost = view
        if pair.is_crowded:
            self._crowd.note(view.stamp_ns, True)
        elif self._crowd.since_ns is None or most < self.config.min_matches:
            # With no frame has it anything in common: that is light, darkness, blur, a turn, and not what passes.
            self._crowd = Crowd()
            self._crowd.lose()
        if self._crowd.since_ns is not None and (view.world is None or not pair.is_crowded):
            view.world = np.zeros(rigidity.tile_count(view.camera.width, view.camera.height), bool)
        self._last = view if view.features is not None else self._last
        given_up = self.config.lost_policy == "stop" or seconds > self.config.lost_time
        return replace(estimate, has_pose=not given_up)

    def _coast(self, view: View) -> float:
        """Give a frame that shows no motion its pose, by config.lost_policy; seconds since the last one that did."""
        tracked = self._tracked
        seconds = max(view.stamp_ns - tracked.stamp_ns, 0) * 1e-9
        goes_on = self.config.lost_policy == "predict"
        step = self._coasting.motion(min(seconds, self.config.lost_time)) if goes_on else np.eye(4)
        view.T_odom_camera = tracked.T_odom_camera @ step
        if goes_on:
            view.T_odom_camera[:3, :3] = se3.orthonormal(view.T_odom_camera[:3, :3])
        C = self._coasting.doubt(seconds, goes_on)
        if self.config.planar and self.up is not None:
            step, C = planar(step, C, self.up)
        view.pose_covariance = covariance.along_path(tracked.T_odom_camera, tracked.pose_covariance, step, C)
        return seconds

    def _start(self, view: View, reason: str) -> Estimate:
        """A frame that is compared with no earlier one, at the pose so far."""
        view.T_odom_camera, view.pose_covariance = self._pose, self._pose_covariance
        if self._tracked is not None:
            self._coast(view)
        pair = Pair(Matches.empty())
        _, scale = self._unit.scale(self.config, view, pair)
        estimate = self._estimate(view, None, State.INITIALISING, reason, "none", np.zeros((6, 6)), scale, pair)
        self._reference, self._tracked, self._last, self._clear = view, view, None, None
        self._crowd = Crowd()
        self._coasting.stop()
        return estimate

    def _estimate(
        self,
        view: View,
        previous: View | None,
        state: State,
        reason: str,
        model: str,
        motion_covariance: np.ndarray,
        scale: Scale,
        pair: Pair,
    ) -> Estimate:
        """Put an Estimate together, and make ``view`` the last frame. Its motion is the one since ``previous``."""
        motion, matches = pair.motion, pair.matches
        depth = view.network_depth
        if depth is not None:
            if self.config.correct_depth:
                with _timed(view.timings_ms, "correction"):
                    depth = depth_correction.corrected(depth, view.points_depth)
            depth = depth * np.float32(scale.value)
        step, dt = np.eye(4), 0.0
        if previous is not None:
            dt = max(view.stamp_ns - previous.stamp_ns, 0) * 1e-9
            if not np.array_equal(view.T_odom_camera, previous.T_odom_camera):
                step = se3.inverse(previous.T_odom_camera) @ view.T_odom_camera
        estimate = Estimate(
            stamp_ns=view.stamp_ns,
            state=state,
            reason=reason,
            model=model,
            T_odom_camera=view.T_odom_camera,
            has_pose=True,
            T_previous_current=step,
            dt=dt,
            motion_covariance=motion_covariance,
            pose_covariance=view.pose_covariance[:6, :6],
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
        self._lost = None
        return estimate

    def _still_px(self, camera: PinholeCamera) -> float:
        return self.config.stationary_px * camera.width / 1000.0


def _found(pair: Pair) -> np.ndarray:
    """(4, 4) T_2_1 in the raw unit."""
    return se3.make_pose(pair.motion.R, pair.motion.t * pair.length)


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


def _carry_on(reference: View, camera: PinholeCamera, R: np.ndarray, t: np.ndarray, pair: Pair) -> np.ndarray | None:
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
