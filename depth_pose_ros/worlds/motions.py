"""Cameras and how they move: cars, wheeled robots, drones and hands, from standing still to large steps."""

from dataclasses import dataclass

import numpy as np
import torch

from .casting import View, cast, perspective_view
from .render import Scene

T_BODY_OPTICAL = np.array([[0, 0, 1.0, 0], [-1.0, 0, 0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1.0]])
"""Optical frame (z forward, x right, y down) in a body frame (x forward, y left, z up)."""


@dataclass(frozen=True)
class ViewPair:
    """Two cameras and the times of their pictures; as ``render_pair`` takes them."""

    T_world_camera_1: np.ndarray
    T_world_camera_2: np.ndarray
    K: np.ndarray
    times: tuple[float, float]


def euler(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """(3, 3) rotation of a body: heading left, nose up, right side down, in rad."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(-pitch), np.sin(-pitch), np.cos(roll), np.sin(roll)
    Rz = np.array([[cy, -sy, 0], [sy, cy, 0], [0, 0, 1]])
    Ry = np.array([[cp, 0, sp], [0, 1, 0], [-sp, 0, cp]])
    Rx = np.array([[1, 0, 0], [0, cr, -sr], [0, sr, cr]])
    return Rz @ Ry @ Rx


def body(position: np.ndarray, R: np.ndarray) -> np.ndarray:
    """(4, 4) from position (3,) and rotation (3, 3)."""
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, position
    return T


def intrinsics(rng: np.random.Generator, width: int, height: int, typical: float) -> np.ndarray:
    """K (3, 3) of a camera with a horizontal field of view of 45 to 110 deg, mostly near ``typical``."""
    fov = np.deg2rad(np.clip(rng.normal(typical, 13), 45, 110) if rng.random() < 0.75 else rng.uniform(45, 110))
    fx = 0.5 * width / np.tan(fov / 2)
    fy = fx * (np.exp(rng.normal(0, 0.02)) if rng.random() < 0.3 else 1.0)
    cx = (width - 1) / 2 + (rng.normal(0, 0.02) * width if rng.random() < 0.6 else 0.0)
    cy = (height - 1) / 2 + (rng.normal(0, 0.03) * height if rng.random() < 0.6 else 0.0)
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])


def _shake(rng: np.random.Generator, degrees: float) -> np.ndarray:
    return euler(*np.deg2rad(rng.normal(0, degrees, 3)))


def _street_view(scene: Scene, rng: np.random.Generator, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Body pose in the world and the body's motion T_1_2 of a camera in a street."""
    o = scene.outlook
    course, half = o["course"], o["half"]
    s = rng.uniform(-5, o["end"] - 60)
    traffic = [v for v in o["traffic"] if v.speed]
    if traffic and rng.random() < 0.4:  # near some of it, or it would seldom fill much of a picture
        vehicle = traffic[rng.integers(len(traffic))]
        s = float(np.clip(vehicle.s + vehicle.speed * time - rng.uniform(6, 25), -15, o["end"] - 50))
    height = float(np.clip(rng.normal(1.6, 0.22), 0.3, 2.6) if rng.random() < 0.7 else rng.uniform(0.3, 2.5))
    rig = rng.choice(["car", "robot", "hand"], p=[0.72, 0.1, 0.18])
    if rig == "car":
        lane = int(rng.integers(max(1, o["lanes"] - o["lanes"] // 2)))
        d = -half + (lane + 0.5) * o["lane"] + rng.normal(0, 0.3)
    else:
        d = rng.uniform(-o["edges"][0] - 2.5, o["edges"][1] + 2.5)
        height = rng.uniform(0.25, 0.9) if rig == "robot" else rng.uniform(1.0, 1.9)
    if rng.random() < 0.8:
        yaw = rng.normal(0, np.deg2rad(3 if rig == "car" else 12))
    else:
        yaw = rng.uniform(-np.pi, np.pi)
    tilt = {"car": 1.2, "robot": 2.0, "hand": 6.0}[rig]
    pitch, roll = np.deg2rad(rng.normal(0, [tilt, tilt]))
    if rng.random() < 0.1:
        pitch -= np.deg2rad(rng.uniform(0, 15))
    ground = 0.13 if abs(d) > min(o["edges"]) else 0.0
    T = course.pose(s, d, height + ground)
    T = T @ body(np.zeros(3), euler(yaw, pitch, roll))
    if rig == "hand":
        motion = body(rng.normal(0, 1, 3) * 10 ** rng.uniform(-2, -0.5), _shake(rng, 10 ** rng.uniform(-0.7, 0.6)))
        return T, motion
    # Along the road whatever way the camera looks; a wheeled base turns about its axle and nods a little.
    distance = rng.uniform(0, 1.6) if rng.random() < 0.8 else rng.uniform(1.0, 3.0)
    if rig == "robot":
        distance = rng.uniform(0, 0.3)
    if rng.random() < 0.1:
        distance = -distance
    turn = np.deg2rad(rng.normal(0, 0.4) if rng.random() < 0.6 else rng.normal(0, 2.5))
    axle = np.array([distance * np.cos(turn / 2), distance * np.sin(turn / 2), 0.0])
    drive = body(axle, euler(turn, *np.deg2rad(rng.normal(0, 0.25, 2))))
    look = body(np.zeros(3), euler(yaw, pitch, roll))
    return T, np.linalg.inv(look) @ drive @ look


def _indoor_view(scene: Scene, rng: np.random.Generator, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Body pose and motion T_1_2 of a hand-held camera, a drone or a low robot indoors or among rubble."""
    o = scene.outlook
    x0, y0, x1, y1 = o["floor"]
    rig = rng.choice(["hand", "robot"], p=[0.85, 0.15])
    height = rng.uniform(0.25, 0.7) if rig == "robot" else float(np.clip(rng.normal(1.4, 0.3), 0.5, 2.0))
    height = min(height, o["height"] - 0.3)
    position = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1), 0.0])
    position[2] = o["ground"](position[0], position[1]) + height if "ground" in o else height
    yaw = rng.uniform(-np.pi, np.pi)
    if "along" in o and rng.random() < 0.7:
        yaw = o["along"] + rng.choice([0, np.pi]) + rng.normal(0, 0.35)
    if rig == "robot":
        pitch, roll = np.deg2rad(rng.normal(0, [4, 1.5]))
        turn = np.deg2rad(rng.normal(0, 3)) if rng.random() < 0.6 else 0.0
        motion = body([rng.uniform(-0.05, 0.25), 0, 0], euler(turn, *np.deg2rad(rng.normal(0, 0.2, 2))))
    else:
        pitch = np.deg2rad(rng.uniform(-50, 20) if rng.random() < 0.4 else rng.normal(-15, 11))
        roll = np.deg2rad(np.clip(rng.normal(0, 6), -20, 20))
        step = rng.normal(0, 1, 3) * np.array([1.0, 1.0, 0.6])
        step *= 10 ** rng.uniform(-2.1, -0.45) / np.linalg.norm(step)
        motion = body(step, _shake(rng, 10 ** rng.uniform(-0.8, 0.75)))
    return body(position, euler(yaw, pitch, roll)), motion


def _glance(
    scene: Scene, T_world_camera: np.ndarray, K: np.ndarray, width: int, height: int, time: float
) -> torch.Tensor | None:
    """Coarse depth (h, w) of a view, or None where the camera stands inside something or has its nose at a wall."""
    w, h = 48, max(12, round(48 * height / width))
    S = np.diag([w / width, h / height, 1.0])
    S[0, 2], S[1, 2] = 0.5 * w / width - 0.5, 0.5 * h / height - 0.5
    device = scene.device
    poses = torch.from_numpy(np.linalg.inv(T_world_camera) @ scene.poses(time)).to(device)
    view = perspective_view(scene.geometry, poses, torch.as_tensor(S @ K, device=device))
    facing = view.shown
    everything = View(view.rows, view.key, view.low, view.high, torch.ones_like(facing), view.taper, True)
    ids, key = cast(everything, w, h, scene.geometry, None)
    seen = ids >= 0
    inside = (seen & ~facing[ids.clamp_min(0)]).float().mean()
    depth = torch.where(seen, 1 / key.clamp_min(1e-6), torch.inf)
    nearest, near = float(depth.min()), float(torch.quantile(depth.clamp_max(100.0), 0.1))
    limits = (0.8, 2.0) if scene.kind == "street" else (0.25, 0.5)
    if float(inside) > 0.0 or nearest < limits[0] or near < limits[1]:
        return None
    return depth.reshape(h, w)


def _dull(depth: torch.Tensor, street: bool) -> bool:
    """A wall in the face, or little but sky: possible, but not worth many samples."""
    seen = depth[torch.isfinite(depth)]
    if len(seen) < 0.45 * depth.numel():
        return True
    near, far = torch.quantile(seen, torch.tensor([0.1, 0.9], device=depth.device)).tolist()
    return far < (8.0 if street else 1.6) or far < 1.5 * near


def _mean_flow(depth: torch.Tensor, T_2_1: np.ndarray, K: np.ndarray, width: int, height: int) -> float:
    """Mean static flow (px at the full size) that a coarse depth map predicts."""
    h, w = depth.shape
    x = (np.arange(w) + 0.5) * width / w - 0.5
    y = (np.arange(h) + 0.5) * height / h - 0.5
    x, y = np.meshgrid(x, y)
    z = np.minimum(depth.cpu().double().numpy(), 1e4)
    X = np.stack([(x - K[0, 2]) / K[0, 0] * z, (y - K[1, 2]) / K[1, 1] * z, z]).reshape(3, -1)
    X = T_2_1[:3, :3] @ X + T_2_1[:3, 3:]
    Z = np.maximum(X[2], 0.05)
    u, v = K[0, 0] * X[0] / Z + K[0, 2], K[1, 1] * X[1] / Z + K[1, 2]
    return float(np.mean(np.minimum(np.hypot(u - x.ravel(), v - y.ravel()), 3 * width)))


def draw_views(scene: Scene, rng: np.random.Generator, width: int, height: int, attempts: int = 60) -> ViewPair | None:
    """Random camera, pose and motion in a scene; None if every attempt ended inside or too close to something.

    About one pair in twelve stands exactly still. Mean flow stays below 60 px at width 320 (in proportion elsewhere).
    """
    street = scene.kind == "street"
    K = intrinsics(rng, width, height, 80 if street else 64)
    for _ in range(attempts):
        time = float(rng.uniform(0, 1.5)) if scene.objects else 0.0
        T_world_body, motion = (_street_view if street else _indoor_view)(scene, rng, time)
        first = T_world_body @ T_BODY_OPTICAL
        depth = _glance(scene, first, K, width, height, time)
        if depth is None or (_dull(depth, street) and rng.random() < 0.8):
            continue
        if rng.random() < 0.08:
            return ViewPair(first, first.copy(), K, (time, time + 0.1))
        limit = min(60.0, rng.lognormal(np.log(22), 0.6)) * width / 320
        for _ in range(12):
            second = T_world_body @ motion @ T_BODY_OPTICAL
            if _mean_flow(depth, np.linalg.inv(second) @ first, K, width, height) <= limit:
                break
            motion = _part(motion, 0.75)
        if _glance(scene, second, K, width, height, time + 0.1) is not None:
            return ViewPair(first, second, K, (time, time + 0.1))
    return None


def _part(T: np.ndarray, share: float) -> np.ndarray:
    """A share of a motion: the translation and the rotation vector scaled."""
    angle = np.arccos(np.clip((np.trace(T[:3, :3]) - 1) / 2, -1, 1))
    out = np.eye(4)
    out[:3, 3] = share * T[:3, 3]
    if angle > 1e-9:
        k = np.array([T[2, 1] - T[1, 2], T[0, 2] - T[2, 0], T[1, 0] - T[0, 1]]) / (2 * np.sin(angle))
        Kx = np.array([[0, -k[2], k[1]], [k[2], 0, -k[0]], [-k[1], k[0], 0]])
        a = share * angle
        out[:3, :3] = np.eye(3) + np.sin(a) * Kx + (1 - np.cos(a)) * Kx @ Kx
    return out
