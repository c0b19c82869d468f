"""Short sequences through rendered scenes, by type of motion, with exact truth: what the covariances are checked on.

Each has a scene, a camera, a speed and sensor noise of its own; all are drawn from its seed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from depth_pose_ros.geometry import se3
from depth_pose_ros.worlds.motions import draw_views
from depth_pose_ros.worlds.render import Scene, develop, exposure_for, render
from depth_pose_ros.worlds.scenes import make_scene

MOTIONS = ("forward", "sideways", "rotating", "hand-held", "standing")
SCENES = {
    "forward": (("street", 0.6), ("corridor", 0.3), ("room", 0.1)),
    "sideways": (("street", 0.5), ("room", 0.4), ("rubble", 0.1)),
    "rotating": (("street", 0.4), ("room", 0.4), ("rubble", 0.2)),
    "hand-held": (("room", 0.6), ("corridor", 0.2), ("rubble", 0.2)),
    "standing": (("street", 0.4), ("room", 0.4), ("corridor", 0.2)),
}
SIZES = {"street": (640, 192), "room": (400, 304), "corridor": (400, 304), "rubble": (480, 256)}
RATE_HZ = 10.0


@dataclass(frozen=True)
class WorldSequence:
    """Frames of one camera. Pixel centres are at integer coordinates.

    images: (F, H, W, 3) uint8 BGR. T_world_camera: (F, 4, 4) poses of the optical frame, m. K: (3, 3).
    """

    motion: str
    scene: str
    seed: int
    images: np.ndarray
    T_world_camera: np.ndarray
    K: np.ndarray


def render_sequence(motion: str, seed: int, frames: int = 16) -> WorldSequence:
    """The sequence of a type of motion and a seed; torch draws it on the CPU in a quarter of a second a frame."""
    kind, scene, start, K, rng = _start(motion, seed)
    width, height = SIZES[kind]
    poses = start @ path_of(motion, scene, start, K, (width, height), frames, rng)
    read, shot = 10 ** rng.uniform(-2.6, -1.8), 10 ** rng.uniform(-2.6, -1.9)
    quality = int(rng.integers(70, 98))
    images, exposure = [], None
    for index, pose in enumerate(poses):
        rendering, _ = render(scene, pose, K, width, height, index / RATE_HZ)
        wanted = exposure_for(rendering.radiance, 0.42)
        exposure = wanted if exposure is None else exposure * (wanted / exposure) ** 0.1
        image = develop(rendering.radiance, exposure).permute(1, 2, 0).numpy().astype(np.float32)
        grain = rng.standard_normal(image.shape, np.float32) * np.sqrt(read**2 + shot**2 * image / 255)
        image = np.clip(image + 255 * grain + 0.5, 0, 255).astype(np.uint8)
        images.append(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], 1))
    return WorldSequence(motion, kind, seed, np.stack(images), poses, K)


def first_depth(motion: str, seed: int) -> np.ndarray:
    """(h, w) m along Z in the first frame of :func:`render_sequence`, a quarter as large; infinite in the sky."""
    kind, scene, start, K, _ = _start(motion, seed)
    width, height = SIZES[kind]
    return render(scene, start, np.diag([0.25, 0.25, 1.0]) @ K, width // 4, height // 4)[0].depth.numpy()


def _start(motion: str, seed: int) -> tuple[str, Scene, np.ndarray, np.ndarray, np.random.Generator]:
    """The kind of scene, the scene, the first pose of the camera in it, its matrix, and what draws the rest."""
    rng = np.random.default_rng([seed, MOTIONS.index(motion), 0x5E9])
    kinds, shares = zip(*SCENES[motion], strict=True)
    kind = str(rng.choice(kinds, p=shares))
    views = None
    while views is None:
        scene = make_scene(kind, int(rng.integers(2**31)))
        views = draw_views(scene, rng, *SIZES[kind])
    return kind, scene, views.T_world_camera_1, views.K, rng


def cached_sequence(motion: str, seed: int, frames: int, folder: Path | None) -> WorldSequence:
    """:func:`render_sequence`, kept in ``folder`` for the next time."""
    if folder is None:
        return render_sequence(motion, seed, frames)
    path = folder / f"{motion}_{seed}_{frames}.npz"
    if path.exists():
        with np.load(path) as file:
            arrays = {name: file[name] for name in ("images", "T_world_camera", "K")}
            return WorldSequence(motion, str(file["scene"]), seed, **arrays)
    made = render_sequence(motion, seed, frames)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    with open(temporary, "wb") as file:
        np.savez_compressed(
            file, images=made.images, T_world_camera=made.T_world_camera, K=made.K, scene=np.array(made.scene)
        )
    os.replace(temporary, path)
    return made


def path_of(
    motion: str,
    scene: Scene,
    start: np.ndarray,
    K: np.ndarray,
    size: tuple[int, int],
    frames: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(F, 4, 4) poses of the camera in its first one."""
    t = np.arange(frames) / RATE_HZ
    poses = np.tile(np.eye(4), (frames, 1, 1))
    if motion == "standing":
        return poses
    up = -start[2, :3]  # in the axes of the camera, whose y points down where it stands upright
    room = _depth(scene, start, K, size)
    if motion == "rotating":
        rate = np.radians(rng.choice([-1, 1]) * rng.uniform(6, 60)) * _speed(t, rng)
        turn, behind = np.cumsum(rate) / RATE_HZ, rng.choice([0.0, rng.uniform(0.02, 0.25)])
        for pose, angle in zip(poses, turn - turn[0], strict=True):
            pose[:3, :3] = se3.so3_exp(-angle * up)
            arm = np.array([0.0, 0.0, behind])  # from the axle to the camera
            pose[:3, 3] = pose[:3, :3] @ arm - arm
        return poses
    wobble = np.stack([_waves(t, rng) for _ in range(3)], 1)
    if motion == "hand-held":
        shift = np.stack([_waves(t, rng) for _ in range(3)], 1) * (1.0, 0.7, 1.0)
        length = np.median(np.linalg.norm(np.diff(shift, axis=0), axis=1))
        step = float(np.median(room)) * 10 ** rng.uniform(-2.3, -1.2)
        shift *= min(step / length, 0.4 * float(room.min()) / np.abs(shift - shift[0]).max())
        angles = wobble * np.radians(10 ** rng.uniform(-0.3, 0.9))
    else:
        ahead = np.array([0.0, 0.0, 1.0]) if motion == "forward" else np.array([rng.choice([-1.0, 1.0]), 0.0, 0.0])
        ahead -= (ahead @ up) * up
        ahead /= np.linalg.norm(ahead)
        free = 0.6 * _clearance(scene, start, ahead, up)
        step = min(float(np.median(room)) * 10 ** rng.uniform(-2.3, -0.9), free / frames)
        shift = np.cumsum(step * _speed(t, rng))[:, None] * ahead
        shift += 0.02 * step * frames * wobble
        angles = wobble * np.radians(10 ** rng.uniform(-0.5, 0.3))
    for pose, position, vector in zip(poses, shift - shift[0], angles - angles[0], strict=True):
        pose[:3, :3], pose[:3, 3] = se3.so3_exp(vector), position
    return poses


def _waves(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(F,) smooth, of amplitude about one, as a hand sways and a road rocks."""
    frequency = rng.uniform(0.2, 1.5, 3)
    return (np.sin(2 * np.pi * frequency * t[:, None] + rng.uniform(0, 2 * np.pi, 3)) / np.sqrt(1.5)).sum(1) / 1.4


def _speed(t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(F,) about one, and never negative."""
    return 1.0 + 0.3 * np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * t + rng.uniform(0, 2 * np.pi))


def _depth(scene: Scene, pose: np.ndarray, K: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depths (N,) that a camera sees, coarsely, without the sky."""
    width, height = 64, round(64 * size[1] / size[0])
    scaled = K * np.array([[width / size[0]], [height / size[1]], [1.0]])
    depth = render(scene, pose, scaled, width, height)[0].depth.numpy().ravel()
    depth = depth[np.isfinite(depth)]
    return depth if len(depth) else np.array([50.0])


def _clearance(scene: Scene, pose: np.ndarray, ahead: np.ndarray, up: np.ndarray) -> float:
    """Distance in m to the first thing in the way; ``ahead`` and ``up`` in the axes of the camera."""
    look = np.eye(4)
    look[:3, :3] = np.stack([np.cross(-up, ahead), -up, ahead], 1)
    K = np.array([[60.0, 0, 15.5], [0, 60.0, 15.5], [0, 0, 1]])
    return float(min(_depth(scene, pose @ look, K, (64, 64)).min(), 40.0))


def main() -> None:
    """Render sequences beforehand, e.g. several of these side by side."""
    import argparse

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=6000)
    parser.add_argument("--count", type=int, default=10, help="sequences of each motion")
    parser.add_argument("--frames", type=int, default=16)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for index in range(options.count):
        for motion in MOTIONS:
            made = cached_sequence(motion, options.seed + index, options.frames, options.folder)
            print(motion, made.scene, made.seed, flush=True)


if __name__ == "__main__":
    main()
