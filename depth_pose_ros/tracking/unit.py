"""The unit of translation and depth: where it comes from, and how well it is known."""

import math

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.estimate import Scale
from depth_pose_ros.geometry import covariance, depth_map
from depth_pose_ros.geometry.ground_plane import find_ground
from depth_pose_ros.geometry.scale import ScaleFilter
from depth_pose_ros.tracking.views import Pair, View

POINTS_DRIFT = 0.005  # relative, from frame to frame, of the unit that the triangulated points carry on
NETWORK_SPREAD = 0.25  # relative, of the scale of a depth network, from one view to another of the same scene
NETWORK_SHARED = 0.2  # likewise, in common to all frames of one way: it does not average out
POINTS_NOISE = 0.015  # relative, of a single length, beside what its points show: it does not add up
WANDER = 0.5  # of the spread of the unit: by so much it may be on its way to another
GROUND_SPREAD = 0.03  # likewise of the camera's height above uneven ground
GUESS_SPREAD = 0.5  # likewise of a length that nothing shows, and that is taken over from the last frame


class Unit:
    """From the raw unit, which drifts, to that of ``config.scale_source``: filtered, as each look at it is noisy."""

    def __init__(self) -> None:
        self.network_per_raw = ScaleFilter(POINTS_DRIFT)
        self._per_raw = ScaleFilter(POINTS_DRIFT)  # of ``camera_height``; of ``none``, which is never corrected
        self._per_raw_by_median = 1.0  # of ``median_depth``
        self._source = ""
        self._network_middle = math.nan  # network units, of the depth seen last, for as long as nothing has moved
        self.own_spread = 0.0
        """Relative, of the last length beside the next one: what of the scale's spread is not shared by all frames."""
        self._is_measured = False  # in this frame

    def measure(self, config: OdometryConfig, view: View, pair: Pair) -> None:
        """Look at the scale in a frame that has moved."""
        self._choose(config, view)
        self.own_spread = GUESS_SPREAD if pair.is_guess else 0.0
        if pair.points_scale is not None:
            self.own_spread = pair.points_scale.spread
        elif pair.motion.model == "pnp":  # the length is the depth's
            self.own_spread = NETWORK_SPREAD
        if pair.network_scale is None:
            self.network_per_raw.drift_by(self.own_spread)
            self._guess_network(config, pair)
        else:
            variance = pair.network_scale.spread**2 + NETWORK_SPREAD**2
            if pair.points_scale is None:  # the length is the network's, and the unit of the points begins anew with it
                self.own_spread, self._is_measured = math.sqrt(variance), True
                self.network_per_raw.restart(variance)
            else:
                self.network_per_raw.drift_by(self.own_spread)
                self._is_measured = self.network_per_raw.update(pair.network_scale.value / pair.length, variance)
        self._per_raw.drift_by(self.own_spread)
        if self._source == "camera_height":
            self._is_measured = self._look_for_ground(config.camera_height, view.camera, pair)
        elif self._source == "none":
            self._is_measured = not self._per_raw.is_known
            if self._is_measured:
                self._per_raw.update(1.0 / (pair.length * float(np.linalg.norm(pair.motion.t))), 0.0)

    @property
    def wander(self) -> float:
        """Relative, of the unit of a frame beside that of the frames around it."""
        way = self._per_raw if self._source in ("camera_height", "none") else self.network_per_raw
        return math.hypot(WANDER * math.sqrt(way.variance), POINTS_NOISE) if way.is_known else POINTS_NOISE

    def scale(self, config: OdometryConfig, view: View, pair: Pair) -> tuple[float, Scale]:
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
                if math.isfinite(middle):  # else nothing is known of this frame's depth: as before
                    self._per_raw_by_median = config.median_depth / middle
            factor = self._per_raw_by_median
        shared = NETWORK_SHARED if way is self.network_per_raw and way.is_known else 0.0
        spread = math.sqrt(self.own_spread**2 + (way.variance if way.is_known else 0.0) + shared**2)
        is_metric = self._source == "camera_height" and way.is_known
        ok, self._is_measured = self._is_measured and pair.motion is not None, False
        value = factor * raw_per_network if view.network_depth is not None else 1.0
        return factor, Scale(value, spread, self._source, is_metric, ok)

    def _choose(self, config: OdometryConfig, view: View) -> None:
        if not self.network_per_raw.is_known and view.network_depth is not None:
            middle = depth_map.middle(view.network_depth)
            self._network_middle = middle if middle > 0 else self._network_middle
        source = config.scale_source
        has_network = self.network_per_raw.is_known or self._network_middle > 0
        if source in ("network", "median_depth") and not has_network:
            source = "none"
        if source != self._source:
            self._source, self._per_raw = source, ScaleFilter(POINTS_DRIFT)

    def _guess_network(self, config: OdometryConfig, pair: Pair) -> None:
        """Of a first motion without depth of either frame: its points lie about as far as what depth was seen before.

        As when depth comes for every third frame only, and the camera has stood still till now.
        """
        middle = depth_map.middle(pair.depth_2)
        if not self.network_per_raw.is_known and middle > 0 and self._network_middle > 0:
            self.network_per_raw.update(self._network_middle / middle, GUESS_SPREAD**2)
            self._per_raw_by_median = config.median_depth / middle

    def _look_for_ground(self, camera_height: float, camera: PinholeCamera, pair: Pair) -> bool:
        if pair.depth_2 is None:
            return False
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
