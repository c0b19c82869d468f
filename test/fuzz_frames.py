"""Frames of every kind for the state machine of the odometry, and what must hold for whatever it makes of them.

:class:`Frames` gives it matches, so that geometry has its share; :class:`Pairs` tells it what geometry may conclude, a
hundred times as fast. test_fuzz.py takes some hundred frames of each, soak.py as many as it is told.
"""

import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.geometry import se3
from depth_pose_ros.geometry.appearance import Look
from depth_pose_ros.geometry.correspondences import Matches
from depth_pose_ros.geometry.motion import Motion
from depth_pose_ros.geometry.scale import ScaleFit
from depth_pose_ros.odometry import State, VisualOdometry
from depth_pose_ros.tracking.views import Pair, View

CAMERA = PinholeCamera(320, 192, 200.0, 200.0, 159.5, 95.5)
OTHER = PinholeCamera(256, 160, 170.0, 170.0, 127.5, 79.5)
POINTS = np.random.default_rng(0).uniform((-6, -3, 4), (6, 3, 20), (400, 3))
FRAME_NS = 33 * 10**6
FRAMES = {
    "good": 70, "rest": 10, "few": 3, "noise": 3, "nan": 3, "gap": 2, "back": 1, "same": 2, "lost": 3, "huge": 3,
}  # fmt: skip
PAIRS = {
    # what two frames show
    "essential": 440, "pnp": 60, "rotation": 60, "still": 80, "resting": 20, "crowded": 20, "guess": 30, "wild": 30,
    "open": 20, "certain": 20, "few": 40, "failure": 80, "failure, crowded": 20,
    # what is wrong with an image
    "unusable": 30, "blurred": 20, "no depth": 10,
    # what is wrong with its stamp or its source
    "gap": 8, "back": 4, "same": 4, "camera": 2, "network": 2,
}  # fmt: skip
"""Kinds of frames and of pairs of them, and how often each comes."""
HELD = (State.LOST, State.INITIALISING)
"""States in which the pose stays where it was, but for a prediction."""


class Invariants:
    """What must hold from estimate to estimate."""

    def __init__(self, config):
        self.states = dict.fromkeys(State, 0)
        self._config = config
        self._before = None  # the estimate before
        self._tracked_ns = None  # stamp of the last frame from which the pose goes on

    def check(self, estimate, reference):
        """An estimate, and where the frame was (4, 4) that it is compared with; None where that is not known."""
        before, self._before = self._before, estimate
        self.states[estimate.state] += 1
        T, C, step = estimate.T_odom_camera, estimate.pose_covariance, estimate.motion_covariance
        assert np.isfinite(T).all() and np.isfinite(C).all() and np.isfinite(step).all() and estimate.scale.value > 0
        assert np.abs(T[:3, :3] @ T[:3, :3].T - np.eye(3)).max() < 1e-12
        for one in (C, step):
            assert np.linalg.eigvalsh(0.5 * (one + one.T)).min() > -1e-9 * max(1e-12, np.abs(one).max())
        assert estimate.reason or estimate.state is State.TRACKING
        if estimate.state is not State.LOST:
            self._tracked_ns = estimate.stamp_ns
            assert estimate.has_pose
        if before is None:
            return
        assert (estimate.dt > 0.0) == (estimate.state is not State.INITIALISING), (estimate.dt, estimate.state)
        is_predicted = self._config.lost_policy == "predict"
        if estimate.state in HELD and not is_predicted:
            assert np.abs(T - before.T_odom_camera).max() < 1e-9, "a pose that is held has moved"
        if estimate.state is State.STATIONARY and reference is not None:
            assert np.abs(T - reference).max() < 1e-9, "a camera that stands still has moved"
        if estimate.state is State.LOST:
            seconds = 1e-9 * (estimate.stamp_ns - self._tracked_ns)
            assert estimate.has_pose == (self._config.lost_policy != "stop" and seconds <= self._config.lost_time)
            if before.state is State.LOST:
                grown = C - before.pose_covariance
                if is_predicted:
                    grown = grown[3:, 3:]
                assert np.linalg.eigvalsh(grown).min() > -1e-9 * np.abs(C).max(), "lost, and yet more certain"


# ------------------------------------------------------------------------------------------------------- with geometry
class Frames:
    """Frame after frame of matches for an odometry, most of them of a camera that moves, the others of everything else.

    What must hold for each estimate is checked.
    """

    def __init__(self, seed, **config):
        self.odometry = VisualOdometry(None, None, OdometryConfig(min_matches=20, **config))
        self._invariants = Invariants(self.odometry.config)
        self._rng = np.random.default_rng(seed)
        self._stamp = 10**18
        self._reference = None  # stamp, true position of the camera, and the pose that was found
        self._position, self._velocity = np.zeros(3), np.zeros(3)

    @property
    def states(self):
        return self._invariants.states

    def step(self):
        rng = self._rng
        kind = _any_of(FRAMES, rng)
        self._stamp += {"gap": 3 * 10**9, "back": -(10**10), "same": 0}.get(kind, FRAME_NS)
        if kind != "rest":
            self._velocity = 0.9 * self._velocity + 0.02 * rng.standard_normal(3)
            self._position = np.clip(self._position + self._velocity, -2.0, 2.0)
        reference = self._reference if kind != "lost" else (self._stamp - 12345, np.zeros(3), None)
        if reference is None:
            points = np.zeros((2, 0, 2), np.float32)
        else:
            views = [CAMERA.project(POINTS - position) for position in (reference[1], self._position)]
            seen = np.all([(v > 0).all(1) & (v < (320, 192)).all(1) for v in views], axis=0)
            chosen = np.flatnonzero(seen)[: 10 if kind == "few" else 60]
            points = np.stack([view[chosen] for view in views]).astype(np.float32)
            points[1] += rng.normal(0, 0.2, points[1].shape)
        if kind == "noise":
            points[1] = rng.uniform(0, 192, points[1].shape)
        elif kind == "nan":
            points[1][rng.random(points[1].shape) < 0.5] = np.nan
        elif kind == "huge":
            points[1] *= 1e20
        scores = rng.uniform(0.1, 5, points.shape[1]).astype(np.float32)
        if kind == "nan":
            scores[::3] = (np.nan, np.inf, -1.0)[rng.integers(3)]
        depth = [None, np.full((12, 20), 8.0, np.float32), np.full((12, 20), np.nan, np.float32)][rng.integers(3)]
        estimate = self.odometry.process_matches(
            self._stamp, CAMERA, reference and reference[0], points[0], points[1], scores, depth
        )
        self._invariants.check(estimate, self._reference and self._reference[2])
        if estimate.state is not State.LOST or rng.random() < 0.5:
            self._reference = self._stamp, self._position.copy(), estimate.T_odom_camera


# ---------------------------------------------------------------------------------------------------- without geometry
class _Told(VisualOdometry):
    """The odometry, told what two frames show: networks, matching and geometry are left out, and nothing else."""

    told: Pair

    def _compare(self, reference, view):
        self.compared = reference
        return self.told if self.told.failure else self._weigh(reference, view, self.told)


class Pairs:
    """Frame after frame of what geometry may conclude from two frames, each kind of it, and of what stamps may do."""

    def __init__(self, seed, **config):
        self.odometry = _Told(None, None, OdometryConfig(**config))
        self._invariants = Invariants(self.odometry.config)
        self._rng = np.random.default_rng(seed)
        self._stamp, self._camera, self._network = 10**18, CAMERA, None
        rays = self._rng.uniform((10, 10), (246, 150), (24, 2)).astype(np.float32)
        self._matches = Matches(rays, rays + 3.0, np.ones(24, np.float32))
        self._depth = self._rng.uniform(2.0, 20.0, (6, 10)).astype(np.float32)
        self._looks = [Look(40.0, 110.0, 0.0, 0.0, (sharp, sharp)) for sharp in (0.6, 0.35)]
        self._bout = ("essential", 0)  # what goes on for some frames, as in life

    @property
    def states(self):
        return self._invariants.states

    def step(self):
        rng, odometry = self._rng, self.odometry
        kind, left = self._bout
        if left <= 0:
            kind, left = _any_of(PAIRS, rng), int(rng.geometric(0.3))
        self._bout = kind, left - 1
        self._stamp += {"gap": 3 * 10**9, "back": -(10**10), "same": 0}.get(kind, FRAME_NS)
        if kind == "camera":
            self._camera = OTHER if self._camera is CAMERA else CAMERA
        elif kind == "network":
            self._network = object()
        view = View(self._stamp, self._camera, network=self._network, features=self._stamp)
        view.look = self._looks[kind == "blurred"]
        view.network_depth = self._depth if kind != "no depth" else np.full((6, 10), np.nan, np.float32)
        if kind == "unusable":
            view.unusable, view.features, view.network_depth = "the image is almost uniform", None, None
        odometry.told, odometry.compared = self._pair(kind), None
        estimate = odometry.solve(view)
        self._invariants.check(estimate, odometry.compared and odometry.compared.T_odom_camera)
        if estimate.state is State.TRACKING and not odometry.config.planar:
            step = se3.inverse(odometry.compared.T_odom_camera) @ estimate.T_odom_camera
            motion, length = odometry.told.motion, odometry.told.length * odometry._factor
            far = np.linalg.norm(motion.t) * length
            assert np.linalg.norm(step[:3, 3]) < 1.000001 * far + 1e-6, "the pose went farther than what was seen"
            turned = se3.rotation_angle(motion.R @ step[:3, :3])
            assert turned < 1e-6, "the pose turned otherwise than what was seen"

    def _pair(self, kind):
        rng, matches = self._rng, self._matches
        if kind.startswith("failure"):
            return Pair(matches, failure="only 24 matches agree", is_crowded=kind.endswith("crowded"))
        model = kind if kind in ("pnp", "rotation") else "essential"
        size = 30.0 if kind == "wild" else 1.0
        R, t = se3.so3_exp(size * rng.normal(0, 0.01, 3)), rng.standard_normal(3)
        t *= {"essential": 1.0, "pnp": 0.05 * size, "rotation": 0.0}[model] / np.linalg.norm(t)
        A = rng.standard_normal((6, 6)) * {"open": 1e3, "certain": 1e-9}.get(kind, 1e-3)
        flow_px, parallax_px = rng.uniform(2, 30), rng.uniform(1.0, 12.0)
        if model == "rotation":
            parallax_px = 0.1
        if kind in ("still", "resting"):
            flow_px, parallax_px = rng.uniform(0, 0.15), rng.uniform(0, 0.1)
        inliers = np.arange(24) < (3 if kind == "few" else 20)
        motion = Motion(model, R, t, A @ A.T, inliers, rng.uniform(0.05, 1.0), parallax_px, flow_px)
        if model != "essential":
            return Pair(matches, motion=motion, distance=8.0)
        length = float(size * rng.lognormal(-1.5, 0.2))
        fits = [ScaleFit(s * np.exp(rng.normal(0, 0.1)), rng.uniform(0, 0.3), 0.3, 20) for s in (length, 2.0 * length)]
        if kind == "guess":
            fits = [None, None]
        return Pair(
            matches,
            motion=motion,
            length=length,
            points_scale=fits[0] if rng.random() < 0.8 else None,
            network_scale=fits[1] if rng.random() < 0.8 else None,
            depth_2=np.where(inliers, rng.uniform(2, 20, 24), np.nan),
            parallax_px=np.full(24, parallax_px),
            distance=8.0,
            is_guess=kind == "guess",
            resting="standing still: half of the image rests" if kind == "resting" else "",
            is_crowded=kind in ("resting", "crowded"),
            doubt=float(rng.uniform(1, 100)) if kind == "crowded" else 1.0,
        )


def _any_of(kinds, rng):
    """One of the names, each as often as its number says."""
    names, shares = list(kinds), np.cumsum(list(kinds.values()))
    return names[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
