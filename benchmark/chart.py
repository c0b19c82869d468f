"""The charts of docs/performance.md, drawn from the committed results."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from benchmark.stages import GROUPS
from depth_pose_ros.evaluation.files import atomic_file

COLOURS = {
    "networks": "#2f6690",
    "geometry": "#d1495b",
    "ROS": "#edae49",
    "outputs": "#66a182",
    "image": "#8d96a3",
}
INK, MUTED = "#1f2933", "#616e7c"
DIRECT_LABEL = 0.045
"""Share of the longest bar from which a piece is wide enough to carry its name."""


def stages_chart(path: Path, document: dict[str, Any]) -> None:
    """One bar for each size of the networks, cut into the stages of a frame: where the time goes. SVG."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    ms = document["details"]["ms"]
    sizes = sorted(ms, key=lambda size: int(size.split("x")[0]))
    longest = max(sum(of["median"] for stage, of in ms[size].items() if stage != "whole frame") for size in sizes)
    figure = Figure(figsize=(10, 0.9 + 0.75 * len(sizes)), layout="constrained")
    axes = figure.subplots()
    for row, size in enumerate(sizes):
        left = 0.0
        for group, stages in GROUPS.items():
            start = left
            for stage in stages:
                width = ms[size].get(stage, {"median": 0.0})["median"]
                axes.barh(row, width, left=left, height=0.62, color=COLOURS[group], edgecolor="white", linewidth=0.8)
                if width > DIRECT_LABEL * longest:
                    text = f"{stage.removeprefix('flow: ')}\n{width:.1f}"
                    axes.text(left + width / 2, row, text, ha="center", va="center", fontsize=7.5, color="white")
                left += width
            share = (left - start) / max(sum(of["median"] for s, of in ms[size].items() if s != "whole frame"), 1e-9)
            if group == "ROS":
                label = f"  {ms[size]['whole frame']['median']:.0f} ms, ROS {100 * share:.1f} %"
        axes.text(left, row, label, ha="left", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(sizes)), [size.replace("x", " x ") for size in sizes])
    axes.set_xlim(0, longest * 1.2)
    axes.set_xlabel("ms of one frame, one step after the other (medians)", color=MUTED)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(colors=MUTED, length=0)
    handles = [Patch(color=COLOURS[group], label=group) for group in GROUPS]
    axes.legend(handles=handles, frameon=False, ncols=len(GROUPS), loc="lower right", fontsize=9, labelcolor=INK)
    _save(figure, path)


def sustained_chart(path: Path, table: Path, document: dict[str, Any]) -> None:
    """Latency and memory over a long run, from its CSV. SVG."""
    from matplotlib.figure import Figure

    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    minutes = [float(row["second"]) / 60 for row in rows]
    figure = Figure(figsize=(10, 4), layout="constrained")
    latency, memory = figure.subplots(2, 1, sharex=True)
    known = [(m, float(row["latency_ms"])) for m, row in zip(minutes, rows) if row["latency_ms"]]
    latency.plot(*zip(*known), color=COLOURS["networks"], linewidth=1.0)
    latency.set_ylabel("latency, ms", color=MUTED)
    memory.plot(minutes, [float(row["rss_mib"]) for row in rows], color=COLOURS["geometry"], linewidth=1.5)
    memory.set_ylabel("memory, MiB", color=MUTED)
    memory.set_xlabel("minutes", color=MUTED)
    for axes in (latency, memory):
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED)
    of = document["details"]
    latency.set_title(
        f"{document['settings']['run']}: {of['sent']} images, {100 * of['lost']:.2f} % without odometry, "
        f"memory {of['rss_mib']['slope_per_hour']:+.1f} MiB per hour",
        loc="left",
        fontsize=10,
        color=INK,
    )
    _save(figure, path)


def covariance_chart(path: Path, document: dict[str, Any]) -> None:
    """How many errors lie within 1, 2 and 3 sigma of the covariance, by type of motion and by what is judged. SVG."""
    from matplotlib.figure import Figure

    inside = document["details"]["inside"]
    motions = [motion for motion in inside if "direction" in inside[motion]]
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    kinds = {"rotation": "networks", "direction": "geometry", "length": "ROS", "path": "image"}
    for column, (axes, motion) in enumerate(zip(figure.subplots(1, len(motions), sharey=True), motions)):
        for row, (kind, colour) in enumerate(kinds.items()):
            shares = [100 * share for share in inside[motion][kind]]
            axes.bar([i + 0.2 * row for i in range(3)], shares, 0.18, color=COLOURS[colour], label=kind)
        for i, expected in enumerate((68.3, 95.4, 99.7)):
            axes.hlines(expected, i - 0.12, i + 0.72, color=INK, linewidth=1.2)
        axes.set_xticks([0.3, 1.3, 2.3], ["1 sigma", "2 sigma", "3 sigma"])
        axes.set_title(motion, fontsize=10, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=MUTED, length=0)
        if not column:
            axes.set_ylabel("errors inside, %", color=MUTED)
            figure.legend(frameon=False, ncols=4, loc="outside lower center", fontsize=9, labelcolor=INK)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "depth_pose_ros"}), atomic_file(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None}, facecolor="white")
