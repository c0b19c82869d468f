"""Pictures of what a demo recorded: the trajectory, and the cloud from two views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from depth_pose_ros.evaluation.figures import ESTIMATE, INK, TRUTH, dress, save

BACKGROUND = np.array([250, 251, 252], np.uint8)


def trajectory_picture(
    path: Path,
    estimate: np.ndarray,
    truth: np.ndarray | None,
    unit: str,
    title: str,
) -> None:
    """The path from above and the length of each step, with the truth where it is known.

    estimate: (N, 3) positions of the camera in a frame whose axes are optical: x right, y down, z forward.
    truth:    (N, 3) of the same frames in the same axes, or None.
    unit:     of both, e.g. ``m``.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    above, steps = figure.subplots(1, 2, width_ratios=[1.5, 1])
    curves = [] if truth is None else [(truth, "truth", TRUTH, 5.0)]
    curves.append((estimate, "estimate", ESTIMATE, 1.8))
    for positions, label, colour, width in curves:
        style = dict(color=colour, linewidth=width, solid_capstyle="round")
        above.plot(positions[:, 2], -positions[:, 0], label=label, **style)
        steps.plot(np.arange(1, len(positions)), np.linalg.norm(np.diff(positions, axis=0), axis=1), **style)
    above.plot(estimate[0, 2], -estimate[0, 0], "o", color=INK, markersize=6, label="start")
    above.set_aspect("equal", adjustable="datalim")
    above.legend(frameon=False, fontsize=9, labelcolor=INK)
    steps.set_ylim(bottom=0)
    dress(above, "Path from above", f"forward [{unit}]", f"left [{unit}]")
    steps.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    dress(steps, "Step from frame to frame", "frame", f"length [{unit}]")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    save(figure, path)


@dataclass(frozen=True)
class Cloud:
    """Coloured points in one frame, for drawing.

    points:  (N, 3) in a frame whose axes are optical and whose origin is the first camera.
    colours: (N, 3) uint8 BGR.
    sizes:   (N,) distance to the neighbours, in the unit of the points.
    """

    points: np.ndarray
    colours: np.ndarray
    sizes: np.ndarray


def placed_cloud(points: np.ndarray, colours: np.ndarray, T_first_camera: np.ndarray) -> Cloud:
    """The cloud of one frame, (N, 3) in its optical frame, as seen from the first camera.

    The farthest quarter is left out: depth is least certain there, and it would hide the rest.
    """
    near = points[:, 2] <= np.percentile(points[:, 2], 75)
    directions = points[:, :2] / points[:, 2:]
    spacing = np.sqrt(np.prod(np.ptp(directions, axis=0)) / len(points))
    points, colours = points[near], colours[near]
    return Cloud(points @ T_first_camera[:3, :3].T + T_first_camera[:3, 3], colours, spacing * points[:, 2])


def cloud_picture(path: Path, clouds: Sequence[Cloud], cameras: np.ndarray, unit: str, title: str) -> None:
    """Coloured clouds seen from behind the camera and from above.

    cameras: (M, 3) positions of the camera along its path, in the frame of the clouds.
    """
    cloud = Cloud(*(np.concatenate([getattr(c, f.name) for c in clouds]) for f in fields(Cloud)))
    figure = Figure(figsize=(12, 4.9), layout="constrained")
    behind, above = figure.subplots(1, 2, width_ratios=[1.9, 1])
    reach = float(np.percentile(cloud.points[:, 2], 95))
    behind.imshow(_perspective_view(cloud, cameras, reach), aspect="equal")
    behind.set(xticks=[], yticks=[])
    for spine in behind.spines.values():
        spine.set_visible(False)
    behind.set_title("From behind and above the camera", loc="left", fontsize=11, color=INK)

    low, high = np.percentile(cloud.points[:, [0, 2]], [2, 98], axis=0)
    low, high = np.minimum(low, cameras[:, [0, 2]].min(axis=0)), np.maximum(high, cameras[:, [0, 2]].max(axis=0))
    low, high = low - 0.04 * (high - low), high + 0.04 * (high - low)
    extent = (low[0], high[0], low[1], high[1])
    above.imshow(_top_view(cloud, low, high), extent=extent, aspect="equal", origin="lower")
    above.plot(cameras[:, 0], cameras[:, 2], color=ESTIMATE, linewidth=2.0)
    above.plot(cameras[0, 0], cameras[0, 2], "o", color=INK, markersize=5)
    dress(above, "From above", f"right [{unit}]", f"forward [{unit}]")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    save(figure, path)


def _perspective_view(cloud: Cloud, cameras: np.ndarray, reach: float) -> np.ndarray:
    """(560, 1050, 3) uint8 RGB: the cloud from a point behind and above the first camera, nearer points in front."""
    width, height, focal = 1050, 560, 800.0
    eye = reach * np.array([-0.06, -0.16, -0.16])
    target = reach * np.array([0.0, -0.01, 0.45])
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    R_view_world = np.stack([right, np.cross(forward, right), forward])

    def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen = (points - eye) @ R_view_world.T
        return seen[:, :2] / seen[:, 2:] * focal + (width / 2, height / 2), seen[:, 2]

    pixels, distance = project(cloud.points)
    keep = distance > 0.02 * reach
    radius = np.clip(np.ceil(cloud.sizes[keep] / distance[keep] * focal), 1, 8).astype(int)
    image = np.tile(BACKGROUND, (height, width, 1))
    splat(image, pixels[keep], distance[keep], cloud.colours[keep, ::-1], radius)
    pixels, distance = project(cameras)
    line = np.round(pixels[distance > 0.02 * reach] * 16).astype(np.int32)
    colour = tuple(int(ESTIMATE[i : i + 2], 16) for i in (1, 3, 5))
    return cv2.polylines(image, [line.reshape(-1, 1, 2)], False, colour, 3, cv2.LINE_AA, shift=4)


def _top_view(cloud: Cloud, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of the region between (x, z) low and high, row 0 at low z; higher points in front."""
    per_unit = 700 / (high - low).max()
    width, height = np.ceil((high - low) * per_unit).astype(int)
    pixels = (cloud.points[:, [0, 2]] - low) * per_unit
    radius = np.clip(np.ceil(0.8 * cloud.sizes * per_unit), 1, 4).astype(int)
    image = np.tile(BACKGROUND, (height, width, 1))
    splat(image, pixels, cloud.points[:, 1], cloud.colours[:, ::-1], radius)
    return image


def splat(image: np.ndarray, pixels: np.ndarray, order: np.ndarray, colours: np.ndarray, radius: np.ndarray) -> None:
    """Paint points as squares of 2 * radius - 1 pixels; those with a small ``order`` lie in front."""
    height, width = image.shape[:2]
    back_to_front = np.argsort(-order, kind="stable")
    pixels, colours, radius = np.round(pixels[back_to_front]), colours[back_to_front], radius[back_to_front]
    largest = int(radius.max(initial=1))
    # Squares are painted offset by offset, so keep for each pixel the rank of its front-most point.
    front = np.full(height * width, -1)
    for dy in range(1 - largest, largest):
        for dx in range(1 - largest, largest):
            x, y = pixels[:, 0] + dx, pixels[:, 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (radius > max(abs(dx), abs(dy)))
            rank = np.flatnonzero(inside)
            np.maximum.at(front, (y[inside] * width + x[inside]).astype(int), rank)
    image.reshape(-1, 3)[front >= 0] = colours[front[front >= 0]]
