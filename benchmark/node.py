"""The nodes over DDS, measured as ros2_benchmark does: the highest rate that they keep up with, then the latency.

A rate is kept when fewer than 5 % of the images of five seconds stay without odometry; it is found by bisection and
measured in five runs, of which the best and the worst are dropped. Latency is from the stamp of an image (when it was
published) to the arrival of its odometry in the process that published it; likewise five runs, at 10 and at 30 Hz.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmark.drive import load_drive
from benchmark.over_dds import COMPOSED, SPLIT, Camera, Nodes, Run, highest_rate
from benchmark.result import Guarded, Result, Table, note
from benchmark.timing import Reference, middle_mean

MOST_LOST = 0.05
LOWEST, HIGHEST = 2.0, 60.0
"""Hz between which the highest rate is looked for. At one Hz each frame is a gap (max_gap)."""


def run(options: argparse.Namespace, reference: Reference) -> Result:
    """Measure vo_node at each size, and the split nodes at the first."""
    drive = load_drive(options)
    result = Result("node", {**drive.settings(), "threads": options.threads, "seconds": options.seconds})
    result.settings["subscribed"] = "odom, depth/image, points"
    camera = Camera(drive, everything=True)
    setups = [("vo_node", COMPOSED, size) for size in options.sizes]
    if options.split:
        setups.append(("split nodes", SPLIT, options.sizes[0]))
    try:
        for name, nodes, (width, height) in setups:
            name = f"{name} at {width}x{height}"
            result.details[name] = _measure(name, nodes, (width, height), camera, options, reference)
            result.guarded += _guarded(name, result.details[name])
    finally:
        camera.close()
    result.tables = _tables(result.details)
    return result


def parameters_of(options: argparse.Namespace, size: tuple[int, int]) -> dict[str, Any]:
    """The parameters of the nodes; those left at their defaults are not named, for not every node knows all."""
    parameters: dict[str, Any] = {"network_width": size[0], "network_height": size[1]}
    named = ("flow_model", "default"), ("depth_model", "default"), ("backend", "auto"), ("threads", 0)
    return parameters | {name: getattr(options, name) for name, usual in named if getattr(options, name) != usual}


def _measure(
    name: str,
    nodes: tuple,
    size: tuple[int, int],
    camera: Camera,
    options: argparse.Namespace,
    reference: Reference,
) -> dict[str, Any]:
    with Nodes(nodes, parameters_of(options, size), options.out / "log") as running:
        camera.wait_for_answer(running)

        def passes(rate: float) -> bool:
            one = camera.run(running, rate, options.seconds)
            reference.measure()
            note(f"node: {name}: {rate:.1f} Hz, {100 * one.lost:.1f} % lost")
            return one.lost < MOST_LOST

        rate = highest_rate(passes, LOWEST, HIGHEST)
        kept = _repeat(camera, running, rate, options, reference) if rate else None
        details: dict[str, Any] = {"highest_rate": rate, "at_highest_rate": kept, "at": {}}
        for fixed in options.rates:
            details["at"][f"{fixed:g} Hz"] = _repeat(camera, running, fixed, options, reference)
        details["rss_mib"] = running.rss_mib()
        details["most_rss_mib"] = running.rss_mib("VmHWM")
    return details


def _repeat(camera: Camera, nodes: Nodes, rate: float, options: argparse.Namespace, reference: Reference) -> dict:
    """Some runs at one rate; every number is the mean of the runs without the best and the worst."""
    runs = []
    for _ in range(options.runs):
        runs.append(camera.run(nodes, rate, options.seconds))
        reference.measure()
    return summary(runs)


def summary(runs: list[Run]) -> dict[str, Any]:
    """Mean over the runs, without the best and the worst, of each number: share lost, latency and CPU in ms."""
    spreads = [one.spread for one in runs if one.lost < 1.0]
    names = runs[0].cpu_ms
    return {
        "lost": middle_mean([one.lost for one in runs]),
        "rate": middle_mean([one.rate * (1 - one.lost) for one in runs]),
        "latency_ms": middle_mean([s.median for s in spreads]) if spreads else float("nan"),
        "latency_p95_ms": middle_mean([s.p95 for s in spreads]) if spreads else float("nan"),
        "cpu_ms_per_image": {name: middle_mean([one.cpu_ms[name] for one in runs]) for name in names},
    }


def _guarded(name: str, details: dict[str, Any]) -> list[Guarded]:
    guarded = [Guarded(f"highest rate, {name}", "per second", details["highest_rate"])]
    for rate, at in details["at"].items():
        if at["lost"] < MOST_LOST:
            guarded.append(Guarded(f"latency at {rate}, {name}", "ms, all cores", at["latency_ms"]))
    return [*guarded, Guarded(f"memory, {name}", "MiB", details["most_rss_mib"])]


def _tables(details: dict[str, dict]) -> list[Table]:
    rates = list(next(iter(details.values()))["at"])
    columns = ["", "highest rate, Hz", *(f"latency at {r}, ms" for r in rates), *(f"lost at {r}" for r in rates)]
    rows, cpu = [], []
    for name, of in details.items():
        at = [of["at"][rate] for rate in rates]
        cells = [f"{a['latency_ms']:.0f} ({a['latency_p95_ms']:.0f})" for a in at]
        rows.append([name, f"{of['highest_rate']:.1f}", *cells, *(f"{100 * a['lost']:.1f} %" for a in at)])
        rows[-1].append(f"{of['most_rss_mib']:.0f}")
        used = at[0]["cpu_ms_per_image"]
        whole = sum(ms for thread, ms in used.items() if not thread.endswith(": ROS"))
        ros = sum(ms for thread, ms in used.items() if thread.endswith(": ROS"))
        cpu.append([name, f"{whole:.1f}", f"{ros:.1f}", f"{100 * ros / whole:.1f} %" if whole else "-"])
    return [
        Table(
            "Over DDS: rate and latency, median (95th percentile)",
            [*columns, "memory, MiB"],
            rows,
            "Latency: image stamp to arrival of its odometry. With subscribers to odometry, depth image and cloud.",
        ),
        Table(
            f"CPU time of the nodes per image at {rates[0]}, ms",
            ["", "all threads", "of it: executor and DDS", "share"],
            cpu,
        ),
    ]
