"""The figures of the reports and of the demo, drawn with matplotlib in one style."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from depth_pose_ros.evaluation.evaluation import DepthStrip, Evaluation
from depth_pose_ros.evaluation.files import atomic_file
from depth_pose_ros.evaluation.record import Record
from depth_pose_ros.evaluation.trajectory import aligned_at_start, matched
from depth_pose_ros.geometry.se3 import inverse

INK, MUTED, FAINT = "#1f2933", "#616e7c", "#e4e7eb"
TRUTH, ESTIMATE = "#9aa5b1", "#d1495b"
RUNS = (ESTIMATE, "#2a6f97", "#e09f3e", "#3a7d44", "#7b5ea7", "#1b998b", "#8d5524", "#5c6672")
"""Colours of several runs, in order."""
UNKNOWN = "#d5dbe1"
"""Depth that is not known."""
STATES = {"tracking": "#3a7d44", "stationary": "#2a6f97", "initialising": "#cbd2d9", "lost": "#d1495b"}
OTHER_STATE = "#e09f3e"
WIDTH = 10.0
"""Inches of a figure that fills a report."""


# ---------------------------------------------------------------------------------------------------------- style
def dress(axes: matplotlib.axes.Axes, title: str, x: str, y: str) -> None:
    """Title and labels, a faint grid, and no frame."""
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(x, color=MUTED, fontsize=9)
    axes.set_ylabel(y, color=MUTED, fontsize=9)
    axes.tick_params(colors=MUTED, labelsize=9)
    axes.grid(True, color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color("#cbd2d9")


def save(figure: Figure, path: Path) -> None:
    """As PNG, atomically."""
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=120, facecolor="white")


def svg(figure: Figure) -> bytes:
    """As SVG, the same for the same figure."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "depth_pose_ros"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()


def jpeg(figure: Figure) -> bytes:
    """As JPEG, for figures that are photographs."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=130, facecolor="white", pil_kwargs={"quality": 88})
    return buffer.getvalue()


def legend(axes: matplotlib.axes.Axes, **more) -> None:
    """Without a frame, where it covers least."""
    axes.legend(**{"frameon": False, "fontsize": 9, "labelcolor": INK} | more)


# --------------------------------------------------------------------------------------------------- trajectories
def _positions(evaluation: Evaluation, metric: bool) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Estimated and true positions in the optical axes of the first true camera, and how they were aligned: by SE(3) if
    ``metric``, else by Sim(3).
    """
    record = evaluation.record
    if record.truth is None:
        first = inverse(record.estimate.poses[0])
        return (first @ record.estimate.poses)[:, :3, 3], None, ""
    _, theirs = matched(record.estimate, record.truth)
    name = "se3" if metric else "sim3"
    if name not in evaluation.aligned:
        ours, truth = aligned_at_start(record.estimate, record.truth)
        return ours, truth, "first pose and scale made equal"
    T = inverse(record.truth.poses[theirs[0]])
    ours, truth = (
        p @ T[:3, :3].T + T[:3, 3] for p in (evaluation.aligned[name].positions, record.truth.poses[theirs][:, :3, 3])
    )
    return ours, truth, "aligned by SE(3)" if metric else "aligned by Sim(3)"


def trajectory(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Figure:
    """The paths from above and from the side, in the axes of the first camera."""
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    above, side = figure.subplots(1, 2, width_ratios=[1.6, 1])
    how, truth, metric = "", None, all(e.record.metric for e in evaluations)
    for evaluation, name, colour in zip(evaluations, names, RUNS * len(evaluations)):
        estimate, theirs, how = _positions(evaluation, metric)
        if truth is None and theirs is not None:
            truth = theirs
            style = dict(color=TRUTH, linewidth=5, solid_capstyle="round", zorder=1)
            above.plot(truth[:, 2], -truth[:, 0], label="truth", **style)
            side.plot(truth[:, 2], -truth[:, 1], **style)
        style = dict(color=colour, linewidth=1.8, solid_capstyle="round")
        above.plot(estimate[:, 2], -estimate[:, 0], label=name if len(evaluations) > 1 else "estimate", **style)
        side.plot(estimate[:, 2], -estimate[:, 1], **style)
    start = truth if truth is not None else _positions(evaluations[0], metric)[0]
    above.plot(start[0, 2], -start[0, 0], "o", color=INK, markersize=6, label="start", linestyle="none")
    unit = "m" if truth is not None else evaluations[0].record.unit
    for axes, title, y in ((above, "Path from above", "left"), (side, "From the side", "up")):
        dress(axes, title + (f", {how}" if how and axes is above else ""), f"forward [{unit}]", f"{y} [{unit}]")
        axes.set_aspect("equal", adjustable="datalim")
    legend(above)
    return figure


def errors(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Figure:
    """Position error over time, and the errors of rotation and direction of each motion."""
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    position, rotation, direction = figure.subplots(3, 1, sharex=True)
    how, metric = "", all(e.record.metric for e in evaluations)
    for evaluation, name, colour in zip(evaluations, names, RUNS * len(evaluations)):
        record = evaluation.record
        ours, _ = matched(record.estimate, record.truth)
        start = record.estimate.stamps_ns[0]
        estimate, truth, how = _positions(evaluation, metric)
        style = dict(color=colour, linewidth=1.5, label=name)
        position.plot(record.seconds[ours], np.linalg.norm(estimate - truth, axis=1), **style)
        seconds = (evaluation.relative.stamps_ns - start) / 1e9
        rotation.plot(seconds, evaluation.relative.rotation, **style)
        moving = evaluation.relative.moving
        values = np.full(len(seconds), np.nan)  # a gap where the camera stands
        values[moving] = evaluation.relative.direction
        direction.plot(seconds, values, **style)
    dress(position, f"Position error, {how}", "", "m")
    dress(rotation, "Rotation error of each motion", "", "deg")
    dress(direction, "Direction error of each motion (none while the camera stands)", "time [s]", "deg")
    for axes in (position, rotation, direction):
        axes.set_ylim(bottom=0)
    if len(evaluations) > 1:
        legend(position)
    return figure


def scale(evaluations: Sequence[Evaluation], names: Sequence[str]) -> Figure | None:
    """Estimated over true length of each motion, and the spread the run tells; None when nothing moves."""
    if not any(len(e.relative.log_scale) for e in evaluations if e.relative is not None):
        return None
    told = len(evaluations) == 1 and bool(evaluations[0].record.rows)
    figure = Figure(figsize=(WIDTH, 4.4 if told else 2.7), layout="constrained")
    parts = figure.subplots(2 if told else 1, 1, sharex=True, squeeze=False)[:, 0]
    for evaluation, name, colour in zip(evaluations, names, RUNS * len(evaluations)):
        relative, start = evaluation.relative, evaluation.record.estimate.stamps_ns[0]
        seconds = (relative.stamps_ns[relative.moving] - start) / 1e9
        ratio = np.exp(relative.log_scale)
        whose = name if len(evaluations) > 1 else "each motion"
        label = f"{whose}, median {np.median(ratio):.3f}" if len(ratio) else whose
        parts[0].plot(seconds, ratio, "o", markersize=3, color=colour, label=label)
        if len(ratio):
            parts[0].axhline(float(np.median(ratio)), color=colour, linewidth=1, linestyle="--")
    metric = all(e.record.metric for e in evaluations)
    if metric:
        parts[0].axhline(1.0, color=INK, linewidth=0.8)
    low, high = np.percentile(np.concatenate([np.exp(e.relative.log_scale) for e in evaluations]), [2, 98])
    pad = 0.15 * (high - low) + 0.02 * high
    parts[0].set_ylim(max(0, low - pad), high + pad)
    unit = "m per m" if metric else "units per m"
    dress(parts[0], "Scale: estimated over true length of each motion", "" if told else "time [s]", unit)
    # Outside, for the points may be anywhere.
    several = len(evaluations) > 1
    place = dict(loc="upper left", bbox_to_anchor=(1, 1)) if several else dict(loc="lower right", bbox_to_anchor=(1, 1))
    legend(parts[0], **place)
    if told:
        record = evaluations[0].record
        parts[1].plot(record.seconds, 100 * record.column("scale_spread"), color=ESTIMATE, linewidth=1.5)
        parts[1].set_ylim(bottom=0)
        dress(parts[1], "Spread of the scale, as the run tells it", "time [s]", "%")
    return figure


def kitti(evaluation: Evaluation) -> Figure:
    """t_rel and r_rel by sub-length."""
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    parts = figure.subplots(1, 2)
    by_length = evaluation.kitti.by_length
    for axes, index, title, unit in ((parts[0], 0, "t_rel", "%"), (parts[1], 1, "r_rel", "deg per 100 m")):
        axes.plot(list(by_length), [values[index] for values in by_length.values()], "o-", color=ESTIMATE)
        axes.set_ylim(bottom=0)
        axes.set_xticks(list(by_length))
        dress(axes, f"{title} by sub-length", "sub-length [m]", unit)
    return figure


# ------------------------------------------------------------------------------------------------- what a run tells
def states(record: Record) -> Figure:
    """The state of each frame, and the matches that agreed with its motion."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    bar, share = figure.subplots(2, 1, sharex=True, height_ratios=[0.35, 1])
    edges = np.append(record.seconds, 2 * record.seconds[-1] - record.seconds[-2] if len(record.rows) > 1 else 1.0)
    first = 0
    for name, frames in groupby(row["state"] for row in record.rows):
        last = first + len(list(frames))
        bar.axvspan(edges[first], edges[last], color=STATES.get(name, OTHER_STATE), linewidth=0)
        first = last
    bar.set(yticks=[], xlim=(edges[0], edges[-1]))
    for spine in bar.spines.values():
        spine.set_visible(False)
    bar.tick_params(axis="x", length=0, labelbottom=False)
    counts = record.states
    handles = [
        Patch(color=STATES.get(n, OTHER_STATE), label=f"{n}: {counts[n]} frame{'s' * (counts[n] > 1)}") for n in counts
    ]
    bar.legend(handles=handles, frameon=False, fontsize=9, ncols=len(handles), loc="lower left", bbox_to_anchor=(0, 1))
    share.plot(record.seconds, record.column("matches"), color=TRUTH, linewidth=1.5, label="matches")
    share.plot(record.seconds, record.column("inliers"), color=ESTIMATE, linewidth=1.5, label="that agree (inliers)")
    share.set_ylim(bottom=0)
    dress(share, "", "time [s]", "matches")
    legend(share, loc="lower right")
    return figure


def stages(record: Record) -> Figure:
    """Median and 95th percentile of each stage, and the whole of each frame over time."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    bars, line = figure.subplots(1, 2, width_ratios=[1, 1.2])
    found = record.stages
    height = np.arange(len(found))[::-1]
    middle = [float(np.median(values)) for values in found.values()]
    high = [float(np.percentile(values, 95)) for values in found.values()]
    bars.barh(height, high, color="#f3d3d7", height=0.62)
    bars.barh(height, middle, color=ESTIMATE, height=0.62)
    for y, value, end in zip(height, middle, high):
        bars.text(max(end, value), y, f" {value:.1f} / {end:.1f}", va="center", fontsize=8, color=MUTED)
    bars.set_yticks(height, list(found))
    bars.set_xlim(0, 1.4 * max(high))
    dress(bars, "Each stage: median / 95th percentile", "ms", "")
    bars.grid(False, axis="y")
    total = record.column("total_ms")
    line.plot(record.seconds, total, color=ESTIMATE, linewidth=1.2, label="reading to result")
    period = 1e3 * float(np.median(np.diff(record.seconds))) if len(total) > 1 else math.nan
    line.axhline(period, color=INK, linewidth=1, linestyle="--", label=f"time between frames: {period:.0f} ms")
    line.set_ylim(0, 1.4 * max(float(np.nanmax(total)), period))
    dress(line, "Time of each frame", "time [s]", "ms")
    legend(line, loc="upper right")
    return figure


# ----------------------------------------------------------------------------------------------------------- strips
def depth_strips(strips: Sequence[DepthStrip]) -> Figure:
    """Image, estimated depth after median scaling, true depth and the relative error, a column per frame."""
    height, width = strips[0].truth.shape
    strips = strips[:: 2 if width > 2 * height else 1]
    rows = {
        "image": [s.image for s in strips],
        "depth": [s.estimate for s in strips],
        "true depth": [s.truth for s in strips],
        "error": [100 * np.abs(s.estimate - s.truth) / s.truth for s in strips],
    }
    return strip(rows, [f"frame {s.index}" for s in strips], "m")


def strip(rows: Mapping[str, Sequence[np.ndarray | None]], labels: Sequence[str], unit: str) -> Figure:
    """One column per frame, one row per kind of picture.

    rows: by name; uint8 pictures are (H, W, 3) BGR or (H, W) gray, others (h, w) floats with NaN where unknown: depth
          in ``unit`` on one logarithmic scale, and in the row "error" %. A picture may be None.
    """
    first = next(picture for pictures in rows.values() for picture in pictures if picture is not None)
    height, width = first.shape[:2]
    cell = 12.0 / len(labels)
    figure = Figure(figsize=(13.2, cell * height / width * len(rows) + 0.45), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    grid = figure.subplots(len(rows), len(labels) + 1, squeeze=False, width_ratios=[1] * len(labels) + [0.02])
    ranges = [_range(row) for name, row in rows.items() if any(_is_depth(name, p) for p in row)]
    near, far = (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else (1.0, 10.0)
    scale = matplotlib.colors.LogNorm(max(near, 1e-3), max(far, near * 1.01))
    colours = matplotlib.colormaps["turbo_r"].with_extremes(bad=UNKNOWN)
    reds = matplotlib.colormaps["magma"].with_extremes(bad=UNKNOWN)
    last_depth = max((i for i, (n, row) in enumerate(rows.items()) if any(_is_depth(n, p) for p in row)), default=None)
    for r, (name, pictures) in enumerate(rows.items()):
        drawn = None
        for column, picture in enumerate(pictures):
            axes = grid[r, column]
            axes.set(xticks=[], yticks=[])
            axes.set_box_aspect(height / width)
            for spine in axes.spines.values():
                spine.set_visible(False)
            if r == 0:
                axes.set_title(labels[column], fontsize=11, color=MUTED)
            if column == 0:
                axes.set_ylabel(name, fontsize=12, color=INK)
            if picture is None:
                axes.text(0.5, 0.5, "not recorded", ha="center", va="center", color=MUTED, transform=axes.transAxes)
            elif picture.dtype == np.uint8:
                axes.imshow(_rgb(picture), aspect="auto")
            elif name == "error":
                drawn = axes.imshow(_dense(picture), cmap=reds, vmin=0, vmax=50, aspect="auto", interpolation="nearest")
            else:
                drawn = axes.imshow(_dense(picture), cmap=colours, norm=scale, aspect="auto", interpolation="nearest")
        if drawn is not None and (name == "error" or r == last_depth):
            bar = figure.colorbar(drawn, cax=grid[r, -1])
            bar.set_label("%" if name == "error" else unit, color=MUTED, fontsize=10)
            bar.ax.tick_params(labelsize=10, colors=MUTED, which="both")
            if name != "error":
                ticks = [step * 10.0**power for power in range(-3, 5) for step in (1, 2, 5)]
                bar.set_ticks([tick for tick in ticks if scale.vmin <= tick <= scale.vmax], minor=False)
                bar.set_ticks([], minor=True)
                bar.ax.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
            bar.outline.set_visible(False)
        else:
            grid[r, -1].set_axis_off()
    return figure


def _range(pictures: Sequence[np.ndarray | None]) -> tuple[float, float]:
    """Of most of the depth in them."""
    known = np.concatenate([p[np.isfinite(p)] for p in pictures if p is not None])
    low, high = np.percentile(known, [1, 97]) if known.size else (1.0, 10.0)
    return float(low), float(high)


def _is_depth(name: str, picture: np.ndarray | None) -> bool:
    return picture is not None and picture.dtype != np.uint8 and name != "error"


def _dense(values: np.ndarray) -> np.ndarray:
    """Sparse points (LiDAR) drawn a little larger, so that a small picture shows them; dense images as they are."""
    known = np.isfinite(values)
    if known.mean() > 0.3:
        return values
    spread = cv2.dilate(np.where(known, values, -1).astype(np.float32), np.ones((5, 5), np.uint8))
    return np.where(spread >= 0, spread, np.nan)


def _rgb(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
