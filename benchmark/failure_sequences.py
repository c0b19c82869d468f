"""Rendered sequences in which something goes wrong on purpose, with exact truth.

Two seconds go well, then comes what FAILURES says, then two seconds go well again. The camera moves on all the while.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from benchmark.world_sequences import RATE_HZ, SCENES, SIZES, WorldSequence, path_of
from depth_pose_ros.geometry import se3
from depth_pose_ros.worlds import props
from depth_pose_ros.worlds.motions import draw_views
from depth_pose_ros.worlds.render import Scene, develop, exposure_for, render
from depth_pose_ros.worlds.scenes import make_scene
from depth_pose_ros.worlds.surfaces import Builder

FAILURES = {
    "nothing": "the same drives, undisturbed",
    "blank wall": "a white surface before the lens for 2 s, darker towards the corners as lenses are",
    "blackout": "black but for the sensor's noise for 2 s",
    "fast turn": "half a turn on the spot at 180 degrees/s, blurred by 8 ms of exposure",
    "lorry": "something as long and high as the view passes close by, at 3 to 8 m/s",
    "exposure jump": "ten times as much light, or a tenth, for 2 s; the camera adjusts slowly",
    "blur burst": "shaken by 3 degrees at 6 Hz for 1 s, blurred by 25 ms of exposure",
}
MOTIONS = ("forward", "hand-held", "sideways", "standing")  # by turns
FRAMES, START, SECONDS = 60, 20, 2.0
EVENT = range(START, START + round(SECONDS * RATE_HZ))
TURN_RATE, TURN, TURN_SHUTTER = np.pi, np.pi, 0.008  # rad/s, rad, s
SHAKE, SHAKE_HZ, SHAKE_SECONDS, SHAKE_SHUTTER = np.radians(3.0), 6.0, 1.0, 0.025
LIGHT = 10.0  # times as much, or as little
BLUR_SAMPLES = 9


@dataclass(frozen=True)
class Place:
    """A scene, the camera in it and its sensor."""

    scene: Scene
    K: np.ndarray
    size: tuple[int, int]
    poses: np.ndarray
    read: float
    shot: float
    quality: int
    motion: str


def failure_sequences(seed: int, failures: tuple[str, ...] = tuple(FAILURES)) -> Iterator[tuple[str, WorldSequence]]:
    """By failure, the sequence of a seed: all of them in one place and with one motion."""
    place = _place(seed)
    radiance, depth = _look(place, place.poses, range(FRAMES))
    for failure in failures:
        rng = np.random.default_rng([seed, list(FAILURES).index(failure), 0xFA11])
        poses, light = place.poses, radiance
        if failure == "fast turn":
            angles, rates = _turning(rng)
            poses = _turned(poses, angles)
            light = radiance[:START] + _look(place, poses, range(START, FRAMES))[0]
            light = _blurred(light, place.K, poses, rates, TURN_SHUTTER)
        elif failure == "blur burst":
            angles, rates = _shaking()
            poses = _turned(poses, angles)
            shaken = [k for k in EVENT if angles[k] or rates[k]]
            fresh = _look(place, poses, shaken)[0]
            light = [fresh[shaken.index(k)] if k in shaken else radiance[k] for k in range(FRAMES)]
            light = _blurred(light, place.K, poses, rates, SHAKE_SHUTTER)
        elif failure == "lorry":
            light = _with_lorry(place, radiance, depth, rng)
        images = _photographed(place, light, failure, rng)
        yield failure, WorldSequence(failure, place.scene.kind, seed, images, poses, place.K)


def _place(seed: int) -> Place:
    motion = MOTIONS[seed % len(MOTIONS)]
    rng = np.random.default_rng([seed, 0xFA11])
    kinds, shares = zip(*SCENES[motion], strict=True)
    kind = str(rng.choice(kinds, p=shares))
    size = SIZES[kind]
    views = None
    while views is None:
        scene = make_scene(kind, int(rng.integers(2**31)))
        views = draw_views(scene, rng, *size)
    start, K = views.T_world_camera_1, views.K
    poses = start @ path_of(motion, scene, start, K, size, FRAMES, rng)
    read, shot = 10 ** rng.uniform(-2.6, -1.8), 10 ** rng.uniform(-2.6, -1.9)
    return Place(scene, K, size, poses, read, shot, int(rng.integers(70, 98)), motion)


def _look(place: Place, poses: np.ndarray, which) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Radiance (3, H, W) and depth (H, W) of some frames."""
    seen = [render(place.scene, poses[k], place.K, *place.size, k / RATE_HZ)[0] for k in which]
    return [one.radiance for one in seen], [one.depth for one in seen]


def _turned(poses: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Poses (F, 4, 4) turned by so many rad about the vertical through the camera."""
    out = poses.copy()
    for pose, angle in zip(out, angles, strict=True):
        up = -pose[2, :3]
        pose[:3, :3] = pose[:3, :3] @ se3.so3_exp(-angle * up)
    return out


def _turning(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(F,) angles in rad and rates in rad/s of half a turn to one side."""
    rates = np.zeros(FRAMES)
    rates[START : START + round(TURN / TURN_RATE * RATE_HZ)] = rng.choice([-1, 1]) * TURN_RATE
    return np.concatenate([[0.0], np.cumsum(0.5 * (rates[1:] + rates[:-1]))]) / RATE_HZ, rates


def _shaking() -> tuple[np.ndarray, np.ndarray]:
    """(F,) angles and rates of a burst of shakes."""
    t = (np.arange(FRAMES) - START) / RATE_HZ
    on = (t >= 0) & (t < SHAKE_SECONDS)
    phase = 2 * np.pi * SHAKE_HZ * t
    return on * SHAKE * np.sin(phase), on * SHAKE * 2 * np.pi * SHAKE_HZ * np.cos(phase)


def _blurred(
    radiance: list[torch.Tensor], K: np.ndarray, poses: np.ndarray, rates: np.ndarray, shutter: float
) -> list[torch.Tensor]:
    """As seen by a camera that turns by so many rad/s about the vertical while its shutter is open. Exact, for pure
    rotations, but at the border.
    """
    out = []
    for light, pose, rate in zip(radiance, poses, rates, strict=True):
        if rate:
            image, up = light.permute(1, 2, 0).numpy(), -pose[2, :3]
            angles = rate * shutter * np.linspace(-0.5, 0.5, BLUR_SAMPLES)
            views = [
                cv2.warpPerspective(
                    image,
                    K @ se3.so3_exp(-angle * up) @ np.linalg.inv(K),
                    (image.shape[1], image.shape[0]),
                    flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                    borderMode=cv2.BORDER_REPLICATE,
                )
                for angle in angles
            ]
            light = torch.from_numpy(np.mean(views, 0).transpose(2, 0, 1))
        out.append(light)
    return out


def _with_lorry(
    place: Place, radiance: list[torch.Tensor], depth: list[torch.Tensor], rng: np.random.Generator
) -> list[torch.Tensor]:
    """Something between the camera and the scene that goes across, and along with the camera's mean motion.

    Where the scene is small, as in a room, it is a lorry that is as much smaller and nearer.
    """
    stage = props.Stage(Builder(), np.random.default_rng(rng.integers(2**31)))
    length = props.lorry(stage)
    lorry = Scene("lorry", stage.builder, place.scene.light, (-8.0, -3.0, 8.0, 3.0), 0.05)
    poses, width, fx = place.poses, place.size[0], place.K[0, 0]
    middle = torch.cat([d[torch.isfinite(d)].flatten()[::7] for d in depth[::9]]).median()
    size = min(1.0, float(middle) / 10.0)
    ahead = poses[START, :3, 2] * (1.0, 1.0, 0.0)
    ahead /= np.linalg.norm(ahead)
    distance, speed, side = rng.uniform(4.0, 6.0), rng.uniform(3.0, 8.0), rng.choice([-1, 1])
    along = side * np.cross(ahead, [0.0, 0.0, 1.0])  # to the right of the camera, or to the left
    reach = 0.5 * width / fx * distance + 0.5 * length
    out = list(radiance)
    for k in range(START, FRAMES):
        at = reach - speed * (k - START) / RATE_HZ
        if at < -reach:
            break
        drift = poses[START, :3, 3] + (poses[EVENT[-1], :3, 3] - poses[START, :3, 3]) * (k - START) / len(EVENT)
        T = np.eye(4)  # of the lorry in the world, both in lorry's metres about the camera
        T[:3, :3] = np.stack([-along, np.cross([0.0, 0.0, 1.0], -along), [0.0, 0.0, 1.0]], 1)
        T[:3, 3] = distance * ahead + at * along - [0.0, 0.0, 1.6]
        camera = poses[k].copy()
        camera[:3, 3] = (poses[k, :3, 3] - drift) / size
        seen = render(lorry, se3.inverse(T) @ camera, place.K, *place.size)[0]
        out[k] = torch.where(size * seen.depth < depth[k], seen.radiance, radiance[k])
    return out


def _photographed(place: Place, radiance: list[torch.Tensor], failure: str, rng: np.random.Generator) -> np.ndarray:
    """(F, H, W, 3) uint8: exposed, with the sensor's noise, through JPEG."""
    width, height = place.size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    wall = torch.from_numpy((1 + rng.uniform(0.2, 0.6) * (x**2 + y**2 * (height / width) ** 2)) ** -2.0).float()
    wall = wall * rng.uniform(0.1, 0.6)
    gain = LIGHT ** float(rng.choice([-1, 1]))
    images, exposure = [], None
    for k, light in enumerate(radiance):
        if failure == "exposure jump" and k in EVENT:
            light = gain * light
        if failure == "blackout" and k in EVENT:
            light = torch.zeros_like(light)
        else:
            wanted = exposure_for(light, 0.42)
            exposure = wanted if exposure is None else exposure * (wanted / exposure) ** 0.1
        image = develop(light, exposure)
        if failure == "blank wall" and k in EVENT:
            covered = min(k - EVENT[0] + 1, EVENT[-1] - k + 1, 3) * width // 3  # it slides in, and back
            image[:, :, :covered] = develop(wall.expand(3, -1, -1), 1.0)[:, :, :covered]
        image = image.permute(1, 2, 0).numpy().astype(np.float32)
        grain = rng.standard_normal(image.shape, np.float32) * np.sqrt(place.read**2 + place.shot**2 * image / 255)
        image = np.clip(image + 255 * grain + 0.5, 0, 255).astype(np.uint8)
        images.append(cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, place.quality])[1], 1))
    return np.stack(images)
