"""vo_node for minutes at one rate: images without an answer, latency, and whether its memory stays flat.

Writes <out>/sustained.csv (one row a second) and sustained.svg beside the result.
"""

from __future__ import annotations

import argparse
import csv
import io

import numpy as np

from benchmark.drive import load_drive
from benchmark.node import parameters_of
from benchmark.over_dds import COMPOSED, Camera, Nodes, Run
from benchmark.result import Guarded, Result, Table, note
from benchmark.timing import Reference
from depth_pose_ros.evaluation.files import write_text

WARM = 0.2
"""Share of the run after which memory is expected to be flat."""


def run(options: argparse.Namespace, reference: Reference) -> Result:
    """One long run at the first size."""
    drive, size = load_drive(options), options.sizes[0]
    name = f"{size[0]}x{size[1]} at {options.rate:g} Hz"
    settings = {**drive.settings(), "threads": options.threads, "minutes": options.minutes, "run": name}
    result = Result("sustained", settings)
    camera = Camera(drive, everything=True)
    samples: list[tuple[float, float]] = []
    try:
        with Nodes(COMPOSED, parameters_of(options, size), options.out / "log") as nodes:
            camera.wait_for_answer(nodes)
            note(f"sustained: {name} for {options.minutes:g} minutes")
            for _ in range(10):
                reference.measure()
            long = camera.run(
                nodes, options.rate, 60.0 * options.minutes, lambda second: samples.append((second, nodes.rss_mib()))
            )
            for _ in range(10):
                reference.measure()
    finally:
        camera.close()
    seconds, rss = np.array(samples).T
    slope = slope_mib_per_hour(seconds, rss)
    latency, longest = long.spread, float(np.nanmax(long.latency, initial=np.nan))
    write_text(options.out / "sustained.csv", table_by_second(long, seconds, rss))
    memory = {"first": float(rss[0]), "last": float(rss[-1]), "most": float(rss.max()), "slope_per_hour": slope}
    result.details = {
        "sent": long.sent,
        "lost": long.lost,
        "latency_ms": {**latency.to_dict(), "longest": longest},
        "rss_mib": memory,
        "cpu_ms_per_image": long.cpu_ms,
    }
    result.guarded = [
        Guarded("share of images lost", "error", long.lost),
        Guarded("latency", "ms, all cores", latency.low),
        Guarded("memory", "MiB", memory["most"]),
    ]
    rows = [
        ["images sent", long.sent],
        ["without odometry", f"{long.sent - latency.count} ({100 * long.lost:.2f} %)"],
        ["latency, median", f"{latency.median:.0f} ms"],
        ["latency, 95th percentile", f"{latency.p95:.0f} ms"],
        ["latency, longest", f"{longest:.0f} ms"],
        ["memory at the start, at the end", f"{rss[0]:.0f}, {rss[-1]:.0f} MiB"],
        ["slope of the memory after warming up", f"{slope:+.1f} MiB per hour"],
    ]
    result.tables = [Table(f"vo_node, {name}, {options.minutes:g} minutes", ["", ""], rows)]
    return result


def slope_mib_per_hour(seconds: np.ndarray, rss_mib: np.ndarray) -> float:
    """Of the straight line through the memory after the first fifth of the run (Theil-Sen, so that steps do not lead
    it: the median of the slopes between the samples of the first and those of the second half).
    """
    kept = seconds >= WARM * seconds[-1]
    t, m = seconds[kept], rss_mib[kept]
    half = len(t) // 2
    if half < 2:
        return float("nan")
    slopes = (m[-half:] - m[:half]) / (t[-half:] - t[:half])
    return float(np.median(slopes) * 3600.0)


def table_by_second(long: Run, seconds: np.ndarray, rss_mib: np.ndarray) -> str:
    """CSV: memory, and of the images sent in that second the share without odometry and the median latency."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["second", "rss_mib", "lost", "latency_ms"])
    edges = np.append(np.rint(seconds * long.rate).astype(int), long.sent)
    for second, mib, start, end in zip(seconds, rss_mib, edges, edges[1:]):
        latency = long.latency[start:end]
        known = latency[~np.isnan(latency)]
        middle = f"{np.median(known):.1f}" if len(known) else ""
        writer.writerow([f"{second:.1f}", f"{mib:.2f}", f"{np.isnan(latency).mean():.3f}", middle])
    return text.getvalue()
