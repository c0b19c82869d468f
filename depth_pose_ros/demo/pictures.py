"""Pictures of what a demo recorded: the trajectory, a strip of frames, the cloud from two views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

INK, MUTED, FAINT = "#1f2933", "#616e7c", "#e4e7eb"
TRUTH, ESTIMATE = "#9aa5b1", "#d1495b"
BACKGROUND = np.array([250, 251, 252], np.uint8)
UNKNOWN = "#d5dbe1"  # depth that is not known


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
    _dress(above, "Path from above", f"forward [{unit}]", f"left [{unit}]")
    steps.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(integer=True))
    _dress(steps, "Step from frame to frame", "frame", f"length [{unit}]")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    _save(figure, path)


def frames_picture(
    path: Path,
    images: Sequence[np.ndarray],
    flows: Sequence[np.ndarray | None],
    depths: Sequence[np.ndarray],
    labels: Sequence[str],
    unit: str,
) -> None:
    """One column per frame: the image, the flow to it and its depth.

    images, flows: (H, W, 3) uint8 BGR; a flow may be None. depths: (h, w) float32 with NaN where unknown, in ``unit``.
    """
    rows = [("image", images), ("flow", flows), ("depth", depths)]
    height, width = images[0].shape[:2]
    cell = 12.0 / len(images)
    figure = Figure(figsize=(13.2, cell * height / width * len(rows) + 0.45), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(len(rows), len(images), squeeze=False)
    known = np.concatenate([depth[np.isfinite(depth)] for depth in depths])
    near, far = np.percentile(known, [1, 97]) if known.size else (1.0, 10.0)
    colours = matplotlib.colormaps["turbo_r"].with_extremes(bad=UNKNOWN)
    scale = matplotlib.colors.LogNorm(max(near, 1e-3), max(far, near * 1.01))
    drawn = None
    for axes, (name, pictures) in zip(grid, rows, strict=True):
        for column, (axis, picture) in enumerate(zip(axes, pictures, strict=True)):
            axis.set(xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            if name == "image":
                axis.set_title(labels[column], fontsize=9, color=MUTED)
            if column == 0:
                axis.set_ylabel(name, fontsize=11, color=INK)
            if picture is None:
                axis.text(0.5, 0.5, "not recorded", ha="center", va="center", color=MUTED, transform=axis.transAxes)
                axis.set_box_aspect(height / width)
            elif name == "depth":
                drawn = axis.imshow(picture, cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
                axis.set_box_aspect(height / width)
            else:
                axis.imshow(_rgb(picture), aspect="auto")
                axis.set_box_aspect(height / width)
    bar = figure.colorbar(drawn, ax=grid[-1, :].tolist(), pad=0.005, aspect=12, fraction=0.02)
    bar.set_label(unit, color=MUTED, fontsize=8)
    bar.ax.tick_params(labelsize=8, colors=MUTED, which="both")
    ticks = [step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5)]
    bar.set_ticks([tick for tick in ticks if scale.vmin <= tick <= scale.vmax], minor=False)
    bar.set_ticks([], minor=True)
    bar.ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    bar.outline.set_visible(False)
    _save(figure, path)


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
    _dress(above, "From above", f"right [{unit}]", f"forward [{unit}]")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK)
    _save(figure, path)


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
    _splat(image, pixels[keep], distance[keep], cloud.colours[keep, ::-1], radius)
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
    _splat(image, pixels, cloud.points[:, 1], cloud.colours[:, ::-1], radius)
    return image


def _splat(image: np.ndarray, pixels: np.ndarray, order: np.ndarray, colours: np.ndarray, radius: np.ndarray) -> None:
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


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def _dress(axes: matplotlib.axes.Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=MUTED, fontsize=9)
    axes.set_ylabel(y, color=MUTED, fontsize=9)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#cbd2d9")


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, facecolor="white")
