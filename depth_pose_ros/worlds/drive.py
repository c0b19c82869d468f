"""A coherent drive through one street, frame by frame, with exact depth, poses and intrinsics."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .motions import T_BODY_OPTICAL, body, euler
from .render import develop, exposure_for, render
from .street import street


@dataclass(frozen=True)
class DriveFrame:
    """One frame of a drive. Pixel centres are at integer coordinates.

    stamp_ns: time; image: (H, W, 3) uint8 BGR; depth: (H, W) float32 m along Z, inf is sky; moving: (H, W) bool;
    T_world_camera: (4, 4) float64 pose of the optical frame; K: (3, 3) float64.
    """

    stamp_ns: int
    image: np.ndarray
    depth: np.ndarray
    moving: np.ndarray
    T_world_camera: np.ndarray
    K: np.ndarray


def render_drive(
    seed: int = 7,
    frames: int = 80,
    width: int = 640,
    height: int = 192,
    rate_hz: float = 10.0,
    speed: float = 7.5,
    camera_height: float = 1.5,
    field_of_view_deg: float = 80.0,
    device: str = "cpu",
) -> Iterator[DriveFrame]:
    """Drive along a street with a bend, parked cars and one car ahead.

    The camera sits ``camera_height`` m above the road and looks along it with a little nodding and swaying. It sets off
    at walking pace and reaches ``speed`` m/s after two seconds. Deterministic by ``seed``.
    """
    length = 70.0 + speed * frames / rate_hz
    scene = street(seed, device=device, length=length + 60.0, curved=True, calm=True)
    course, lane = scene.outlook["course"], -scene.outlook["half"] + 0.5 * scene.outlook["lane"]
    fx = 0.5 * width / np.tan(np.deg2rad(field_of_view_deg) / 2)
    K = np.array([[fx, 0, (width - 1) / 2], [0, fx, (height - 1) / 2], [0, 0, 1.0]])
    rng = np.random.default_rng([int(seed), 0xD417E])
    phases, exposure, s = rng.uniform(0, 2 * np.pi, 4), None, 0.0
    for index in range(frames):
        t = index / rate_hz
        sway = 0.12 * np.sin(0.5 * t + phases[0])
        yaw = np.deg2rad(0.8) * np.sin(0.7 * t + phases[1])
        pitch = np.deg2rad(0.35) * np.sin(2.6 * t + phases[2])
        roll = np.deg2rad(0.4) * np.sin(1.7 * t + phases[3])
        T_world_body = course.pose(s, lane + sway, camera_height) @ body(np.zeros(3), euler(yaw, pitch, roll))
        T_world_camera = T_world_body @ T_BODY_OPTICAL
        rendering, _ = render(scene, T_world_camera, K, width, height, t)
        wanted = exposure_for(rendering.radiance, 0.42)
        # Automatic exposure follows slowly.
        exposure = wanted if exposure is None else exposure * (wanted / exposure) ** 0.1
        yield DriveFrame(
            stamp_ns=round(t * 1e9),
            image=np.ascontiguousarray(develop(rendering.radiance, exposure).permute(1, 2, 0).cpu().numpy()),
            depth=rendering.depth.float().cpu().numpy(),
            moving=(rendering.object > 0).cpu().numpy(),
            T_world_camera=T_world_camera,
            K=K,
        )
        s += min(speed, 1.5 + t * speed / 2) / rate_hz
