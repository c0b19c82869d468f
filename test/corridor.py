"""A rendered corridor with exact truth, and a lorry that drives across it, for the tests of the odometry.

Flow is OpenCV's DIS, a real estimator with real errors that needs no network file; depth is the scene's own, with the
errors of a network.
"""

import cv2
import numpy as np

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.config import OdometryConfig
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.geometry import se3
from depth_pose_ros.odometry import Frame, VisualOdometry

CAMERA = PinholeCamera(480, 240, 300.0, 310.0, 238.0, 118.0)
SMALL = (320, 160)
GROUND = 1.65  # m below the camera
WALLS = [  # point and normal of each plane of a corridor, in the frame of the first camera
    ((0, GROUND, 0), (0, 1, 0)),
    ((0, -3.0, 0), (0, -1, 0)),
    ((-4.0, 0, 0), (-1, 0, 0)),
    ((5.0, 0, 0), (1, 0, 0)),
    ((0, 0, 30.0), (0, 0, 1)),
]


def texture(seed):
    rng = np.random.default_rng(seed)
    noise = [cv2.resize(rng.normal(0, s**0.7, (1024 // s,) * 2), (1024, 1024), interpolation=2) for s in (2, 4, 8, 32)]
    return cv2.normalize(cv2.GaussianBlur(sum(noise), (0, 0), 0.8), None, 0, 255, cv2.NORM_MINMAX).astype(np.float32)


TEXTURES = [texture(seed) for seed in range(len(WALLS))]


def render(T_world_camera):
    """Gray image (H, W) uint8 and depth (H, W) of the corridor, seen by CAMERA."""
    shape = (CAMERA.height, CAMERA.width)
    v, u = np.indices(shape)
    rays = CAMERA.rays(np.stack([u.ravel(), v.ravel()], 1)) @ T_world_camera[:3, :3].T
    origin = T_world_camera[:3, 3]
    depth, gray = np.full(shape, np.inf, np.float32), np.zeros(shape, np.float32)
    for (point, normal), image in zip(WALLS, TEXTURES):
        facing = rays @ np.array(normal, float)
        z = ((np.array(point, float) - origin) @ normal) / np.where(facing > 1e-6, facing, np.nan)
        X = origin + rays * z[:, None]
        axes = [i for i in range(3) if normal[i] == 0]
        place = ((X[:, axes] * 60.0 + 3000.0) % 1023).astype(np.float32).reshape(*shape, 2)
        z = z.reshape(shape)
        nearer = (z > 0) & (z < depth)
        depth[nearer] = z[nearer]
        gray[nearer] = cv2.remap(image, np.nan_to_num(place), None, cv2.INTER_LINEAR)[nearer]
    return np.clip(gray, 0, 255).astype(np.uint8), depth


class DISFlow:
    """OpenCV's dense flow behind the protocol of a flow network, with its coarse grid."""

    backend = "cv2.DISOpticalFlow"
    stride = 4

    def __init__(self, width, height):
        self.width, self.height = width, height
        self._dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def features(self, image):
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)

    def flow(self, features_1, features_2):
        size = (self.width // self.stride, self.height // self.stride)
        pair = ((features_1, features_2), (features_2, features_1))
        there, back = (cv2.resize(self._dis.calc(a, b, None), size, interpolation=cv2.INTER_AREA) for a, b in pair)
        return FlowField(there, back, None, self.stride)


class SceneDepth:
    """The depth of the frame that is being looked at, as a network would give it: in its own unit, with errors."""

    width, height = SMALL
    backend = "the scene"

    def __init__(self, unit=1.0, spread=0.1):
        self.unit, self.spread, self.of_image = unit, spread, {}

    def depth(self, image, fx=None):
        depth = cv2.resize(self.of_image[image.tobytes()], (160, 80), interpolation=cv2.INTER_NEAREST)
        rng = np.random.default_rng(int(depth[40, 80] * 1e4))
        patches = cv2.resize(rng.normal(0, self.spread, (6, 12)), (160, 80), interpolation=cv2.INTER_NEAREST)
        return (self.unit * depth * np.exp(patches)).astype(np.float32)


class Lorry:
    """A textured side of 14 m x 4.65 m, 6 m ahead of the corridor's start, that drives across it."""

    TEXTURE = texture(77)
    DISTANCE, LENGTH = 6.0, 14.0

    def __init__(self, x, speed):
        """x: of its rear in m, at time 0; speed: m/s to the right."""
        self._x, self._speed = x, speed

    def hide(self, gray, depth, T_world_camera, time):
        """Draw it over an image and its depth, in place."""
        v, u = np.indices(gray.shape)
        rays = CAMERA.rays(np.stack([u.ravel(), v.ravel()], 1)) @ T_world_camera[:3, :3].T
        z = (self.DISTANCE - T_world_camera[2, 3]) / rays[:, 2]
        x, y, _ = (T_world_camera[:3, 3] + rays * z[:, None]).T
        x = x - (self._x + self._speed * time)
        on = (z > 0) & (x > 0) & (x < self.LENGTH) & (y > -3.0) & (y < GROUND)
        on = on.reshape(gray.shape) & (z.reshape(gray.shape) < depth)
        place = (((p * 60.0 + 500.0) % 1023).astype(np.float32).reshape(gray.shape) for p in (x, y))
        gray[on] = cv2.remap(self.TEXTURE, *place, cv2.INTER_LINEAR)[on]
        depth[on] = z.reshape(gray.shape)[on]


class Corridor:
    """An odometry with what it is fed: ``see(T)`` is a frame 0.1 s after the last, from the pose ``T``."""

    def __init__(self, depth=None, lorry=None, **config):
        self.depth, self.lorry = depth, lorry
        self.odometry = VisualOdometry(DISFlow(*SMALL), depth, OdometryConfig(**config))
        self.time_ns = 0

    def frame(self, T, change=None):
        """What ``see`` is given; ``change`` makes another image of the gray one."""
        self.time_ns += 100_000_000
        gray, depth = render(T)
        if self.lorry is not None:
            self.lorry.hide(gray, depth, T, self.time_ns * 1e-9)
        gray = gray if change is None else change(gray)
        image = cv2.cvtColor(cv2.resize(gray, SMALL, interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
        if self.depth is not None:
            self.depth.of_image[image.tobytes()] = depth
        return Frame(self.time_ns, image, gray, CAMERA)

    def see(self, T, change=None):
        return self.odometry.process(self.frame(T, change))


def pose(x=0.0, y=0.0, z=0.0, pitch=0.0, yaw=0.0, roll=0.0):
    return se3.make_pose(se3.so3_exp(np.radians([pitch, yaw, roll])), np.array([x, y, z]))


DRIVE = [pose(z=0.4 * i, x=0.02 * i * i, yaw=1.2 * i, pitch=0.3 * np.sin(i)) for i in range(6)]


def turn_deg(A, B):
    return np.degrees(se3.rotation_angle(A[:3, :3].T @ B[:3, :3]))
