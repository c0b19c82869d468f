"""``depth_pose run``: the odometry on a recorded camera sequence, without ROS.

Writes to a folder: trajectory.tum, frames.csv, summary.json and, when asked for, depth/ and cloud.ply.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from depth_pose_ros.config import EngineConfig, InputConfig, NetworkConfig, OdometryConfig, Tunables, tunables
from depth_pose_ros.errors import CameraError, ConfigError, DepthPoseError, ImageError
from depth_pose_ros.options import add_option, configured, parse_size
from depth_pose_ros.pipeline import one_ahead
from depth_pose_ros.share import install_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from depth_pose_ros.camera import FrameRectifier
    from depth_pose_ros.evaluation.trajectory import Comparison, Trajectory
    from depth_pose_ros.odometry import Estimate, Frame, View, VisualOdometry
    from depth_pose_ros.sequences import Sequence

    Watcher = Callable[[Frame, Estimate], None]

OPTIONS: dict[type[Tunables], tuple[str, ...] | None] = {
    OdometryConfig: None,
    NetworkConfig: ("flow_model", "depth_model", "backend", "threads"),
    EngineConfig: None,
    InputConfig: ("rectify", "mask", "max_width"),
}
"""The tunables that become options, by config class; None for all of it."""

DEPTH_FACTOR = 256
"""A depth PNG holds depth * 256, as KITTI's do: up to 255.99 units in steps of 0.004; 0 is unknown."""

CLOUD_POINTS = 1_500_000
"""About so many points in cloud.ply, spread evenly over frames and pixels."""


# -------------------------------------------------------------------------------------------------------- the options
def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose run``."""
    parser.add_argument("input", help="folder (images, KITTI, TUM RGB-D, EuRoC, 7-Scenes), video file or ROS bag")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the results (default: out)")
    source = parser.add_argument_group("input")
    source.add_argument(
        "--camera",
        nargs="+",
        metavar="V",
        help="fx fy cx cy in pixels, or a camera_info YAML; instead of what the input tells",
    )
    source.add_argument("--fps", type=float, help="frames per second of a folder or video, instead of its own stamps")
    source.add_argument("--topic", help="image topic of a bag; or the camera's folder where there are several")
    source.add_argument("--truth", type=Path, metavar="FILE", help="true trajectory of the camera: TUM, KITTI")
    source.add_argument("--step", type=_positive, default=1, metavar="N", help="take every N-th frame (default: 1)")
    source.add_argument("--max-frames", type=_positive, metavar="N", help="stop after N frames")
    output = parser.add_argument_group("output")
    output.add_argument("--save-depth", action="store_true", help="write each frame's depth as a 16-bit PNG to depth/")
    output.add_argument(
        "--view",
        action="store_true",
        help="show image, flow, matches, depth, cloud and path live in rerun; without a screen, record to view.rrd",
    )
    output.add_argument("--ply", action="store_true", help="write a coloured point cloud of the whole path, cloud.ply")
    networks = parser.add_argument_group("networks")
    networks.add_argument(
        "--size",
        type=parse_size,
        metavar="WxH",
        help="the networks' input size (default: theirs, in the image's shape)",
    )
    groups = {
        OdometryConfig: parser.add_argument_group("odometry"),
        NetworkConfig: networks,
        EngineConfig: parser.add_argument_group("TensorRT engines"),
        InputConfig: source,
    }
    for config, names in OPTIONS.items():
        for item in tunables(config):
            if names is None or item.name in names:
                add_option(groups[config], item)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected 1 or more")
    return value


# ------------------------------------------------------------------------------------------------------------ the run
def run(arguments: argparse.Namespace) -> int:
    """Run and write; 0 when most frames were tracked. DepthPoseError when it cannot start."""
    try:
        from rich.console import Console
    except ImportError as error:
        raise ConfigError(f"rich, which shows the progress, is not installed: {install_extra('run')}") from error
    console = Console(highlight=False, soft_wrap=True)
    sequence = open_with_camera(arguments)
    with ExitStack() as stack:
        watchers = []
        if arguments.view:
            from depth_pose_ros.view import Viewer

            viewer = Viewer(sequence.name, arguments.out / "view.rrd", console.print)
            stack.callback(viewer.close)
            watchers.append(viewer.show)
        results, failure = process(arguments, sequence, watchers, console)
    return finish(results, failure, console)


def open_with_camera(arguments: argparse.Namespace) -> Sequence:
    """The sequence that the options name. SequenceError or CameraError when it cannot be used."""
    from depth_pose_ros.sequences import open_sequence

    sequence = open_sequence(arguments.input, arguments.camera, arguments.fps, arguments.topic, keep_gray=True)
    if sequence.camera is None:
        why = f" ({sequence.camera_problem})" if sequence.camera_problem else ""
        raise CameraError(
            f"{arguments.input} tells no intrinsics{why}; give --camera fx fy cx cy or --camera FILE.yaml"
        )
    return sequence


def process(
    arguments: argparse.Namespace, sequence: Sequence, watchers: Iterable[Watcher], console: Any
) -> tuple[Results, str]:
    """The chosen frames of a sequence through the odometry. The results, not yet written, and why it ended early."""
    from depth_pose_ros.evaluation.record import read_truth

    odometry_config, network_config, engine_config, input_config = (
        configured(config, arguments, OPTIONS[config])
        for config in (OdometryConfig, NetworkConfig, EngineConfig, InputConfig)
    )
    truth = (
        read_truth(arguments.truth, getattr(sequence, "stamps_ns", None)) if arguments.truth else sequence.ground_truth
    )
    _make_folder(arguments.out)
    camera = sequence.camera
    console.print(
        f"{sequence.name}: {sequence.format}, {len(sequence)} frames of {camera.image_width} x {camera.image_height}"
        + ("" if camera.is_rectified else f", {camera.distortion_model} distortion")
    )
    image_size = (camera.image_width, camera.image_height)
    odometry, size, networks = _load(network_config, engine_config, odometry_config, image_size, arguments.size)
    for line in networks:
        console.print(line)
    rectifier = _rectifier(camera, size, input_config)

    total = math.ceil(len(sequence) / arguments.step)
    total = min(total, arguments.max_frames or total)
    results = Results(arguments.out, arguments.save_depth, arguments.ply, total, truth)
    frames = _chosen(sequence, arguments.step, arguments.max_frames)
    return results, follow(frames, total, rectifier, odometry, results, watchers, console)


def finish(results: Results, failure: str, console: Any) -> int:
    """Write the files and the table; the exit code."""
    summary = results.summary()
    results.write(summary)
    _print_table(summary, console)
    for reason, count in results.refused.most_common(3):
        console.print(f"refused, {count} times: {reason}")
    console.print(f"Written to {results.out}/: {', '.join(results.written)}")
    failure = failure or summary.failure
    if failure:
        print(f"depth_pose run: {failure}", file=sys.stderr)
    return 1 if failure else 0


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {out}: the folder cannot be made: {error.strerror}") from error


def _load(
    config: NetworkConfig,
    engine_config: EngineConfig,
    odometry_config: OdometryConfig,
    image: tuple[int, int],
    size: tuple[int, int] | None,
) -> tuple[VisualOdometry, tuple[int, int], list[str]]:
    """The odometry with its networks, their input size, and a line on each of them."""
    from depth_pose_ros.camera import network_size
    from depth_pose_ros.engines import Terminal, find_model, load_depth, load_flow
    from depth_pose_ros.odometry import VisualOdometry

    if config.depth_model == "none" and odometry_config.scale_source in ("network", "median_depth"):
        raise ConfigError(
            f"--scale-source {odometry_config.scale_source} needs a depth network, but --depth-model is none; "
            "choose camera_height or none"
        )
    flow_manifest = find_model(config.flow_model, "flow")
    manifests = [flow_manifest]
    if config.depth_model != "none":
        manifests.append(find_model(config.depth_model, "depth"))
    multiple = math.lcm(*(manifest.inputs.multiple_of for manifest in manifests))
    size = size or network_size(image, flow_manifest.recommended_size, multiple)
    options = (config.backend, config.threads, engine_config, Terminal())
    flow = load_flow(config.flow_model, *size, *options)
    depth = None
    if config.depth_model != "none":
        depth = load_depth(config.depth_model, *size, *options)
    networks = [network for network in (flow, depth) if network is not None]
    lines = [f"{n.manifest.name} at {n.input_size[0]} x {n.input_size[1]} on {n.runs_on}" for n in networks]
    lines += dict.fromkeys(f"not {reason}" for network in networks for reason in network.backend_reasons)
    return VisualOdometry(flow, depth, odometry_config), size, lines


def _rectifier(camera: Any, size: tuple[int, int], config: InputConfig) -> FrameRectifier:
    from depth_pose_ros.camera import FrameRectifier
    from depth_pose_ros.images import read_mask

    gray_size = None
    if camera.image_width > config.max_width:
        gray_size = (config.max_width, max(1, round(camera.image_height * config.max_width / camera.image_width)))
    mask = read_mask(config.mask) if config.mask else None
    return FrameRectifier(camera, size, gray_size, config.rectify, mask)


def _chosen(sequence: Sequence, step: int, count: int | None) -> Iterator[tuple[int, Any, float]]:
    """Every step-th frame, at most count: stamp, image or the ImageError that it raised, and the ms it took to read."""
    frames = iter(sequence)
    index = taken = 0
    while count is None or taken < count:
        start = time.perf_counter()
        try:
            stamp, image = next(frames)
        except StopIteration:
            return
        except ImageError as error:
            stamp, image = -1, error
        if index % step == 0:
            taken += 1
            yield stamp, image, 1e3 * (time.perf_counter() - start)
        index += 1


def follow(
    frames: Iterable[tuple[int, Any, float]],
    total: int,
    rectifier: FrameRectifier,
    odometry: VisualOdometry,
    results: Results,
    watchers: Iterable[Watcher],
    console: Any,
) -> str:
    """Every frame through the odometry into the results. Why it ended early, in a sentence; empty when it did not."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description:12}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=console))
        task = progress.add_task("starting", total=total)
        try:
            for seen in one_ahead(_see(frames, rectifier, odometry)):
                if isinstance(seen, ImageError):
                    results.refuse(str(seen))
                    progress.update(task, advance=1, description="refused")
                    continue
                start = time.perf_counter()
                estimate = odometry.solve(seen.view)
                solve_ms = 1e3 * (time.perf_counter() - start)
                results.add(seen.frame, estimate, seen.prepare_ms | estimate.timings_ms, seen.total_ms + solve_ms)
                for watch in watchers:
                    watch(seen.frame, estimate)
                progress.update(task, advance=1, description=estimate.state.value)
        except DepthPoseError as error:
            return str(error)
        except KeyboardInterrupt:
            return "interrupted; the results are those up to here"
    return ""


class _Seen(NamedTuple):
    """A frame that is ready to be solved, and what that took: reading, rectifying, and all of it."""

    frame: Frame
    view: View
    prepare_ms: dict[str, float]
    total_ms: float


def _see(
    frames: Iterable[tuple[int, Any, float]], rectifier: FrameRectifier, odometry: VisualOdometry
) -> Iterator[_Seen | ImageError]:
    """Each frame as the networks see it, or why it cannot be used."""
    from depth_pose_ros.odometry import Frame

    last_stamp = None
    for stamp, image, read_ms in frames:
        start = time.perf_counter()
        try:
            if isinstance(image, ImageError):
                raise image
            if last_stamp is not None and stamp <= last_stamp:
                raise ImageError(f"stamp {stamp} ns is not after {last_stamp} ns, that of the frame before")
            small, gray = rectifier(image)
        except ImageError as error:
            yield error
            continue
        last_stamp = stamp
        times = {"read": read_ms, "rectify": 1e3 * (time.perf_counter() - start)}
        frame = Frame(stamp, small, gray, rectifier.camera, rectifier.mask)
        view = odometry.see(frame)
        yield _Seen(frame, view, times, read_ms + 1e3 * (time.perf_counter() - start))


# -------------------------------------------------------------------------------------------------------- the results
@dataclass(frozen=True)
class Summary:
    """What a run came to.

    frames, refused: images processed, and images that could not be used.
    states:       frames by state.
    frame_ms:     median and 95th percentile of the work on one frame, reading included; stages: median of each, ms.
    rate_hz:      frames per second: networks and geometry work on two frames at a time. NaN with fewer than two.
    scale_source, metric, scale_spread: as the estimates tell; the spread is the median over frames that measured it.
    path_length:  in the unit of the odometry.
    truth:        against the true path, where it is known.
    """

    frames: int
    refused: int
    states: dict[str, int]
    frame_ms: tuple[float, float]
    rate_hz: float
    stages: dict[str, float]
    scale_source: str
    metric: bool
    scale_spread: float
    path_length: float
    truth: Comparison | None

    @property
    def unit(self) -> str:
        """Of lengths, in words."""
        return "m" if self.metric else "units (not metric)"

    @property
    def failure(self) -> str:
        """Why the run was no success, in a sentence; empty when it was."""
        if self.frames < 2:
            return f"{self.frames} usable frames and {self.refused} refused; a motion needs two frames"
        lost = self.frames - self.states.get("tracking", 0) - self.states.get("stationary", 0)
        if 2 * lost > self.frames:
            return f"no motion was found in {lost} of {self.frames} frames; frames.csv tells why"
        return ""


@dataclass
class Results:
    """Gathers what a run gives; the depth images are written at once, everything else at the end."""

    out: Path
    save_depth: bool
    save_cloud: bool
    total: int
    truth: Trajectory | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)
    stamps: list[int] = field(default_factory=list)
    poses: list[Any] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    points: list[Any] = field(default_factory=list)
    colours: list[Any] = field(default_factory=list)
    written: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Count an image that could not be used."""
        self.refused[reason] += 1

    def add(self, frame: Any, estimate: Estimate, times: dict[str, float], total_ms: float) -> None:
        """Take one frame's estimate; times in ms by stage."""
        scale = estimate.scale
        row = {
            "stamp": f"{estimate.stamp_ns // 10**9}.{estimate.stamp_ns % 10**9:09d}",
            "state": estimate.state.value,
            "reason": estimate.reason,
            "model": estimate.model,
            "matches": estimate.matches,
            "inliers": estimate.inliers,
            "parallax_px": f"{estimate.parallax_px:.3f}",
            "scale": f"{scale.value:.6g}",
            "scale_spread": f"{scale.spread:.4g}",
            "scale_ok": str(scale.ok).lower(),
            "scale_source": scale.source,
            "metric": str(scale.is_metric).lower(),
            "total_ms": f"{total_ms:.2f}",
        }
        self.rows.append(row | {f"{name}_ms": f"{ms:.2f}" for name, ms in times.items()})
        if estimate.has_pose:
            self.stamps.append(estimate.stamp_ns)
            self.poses.append(estimate.T_odom_camera)
        self.frame_ms.append(total_ms)
        self.times.append(time.perf_counter())
        for name, ms in times.items():
            self.stages.setdefault(name, []).append(ms)
        if estimate.depth is not None and self.save_depth:
            self._write_depth(estimate)
        if estimate.depth is not None and self.save_cloud and estimate.state.value in ("tracking", "stationary"):
            self._add_points(frame.image, estimate)

    def _write_depth(self, estimate: Estimate) -> None:
        import cv2
        import numpy as np

        from depth_pose_ros.evaluation.files import atomic_file, write_text

        name = f"{len(self.rows) - 1:06d}.png"
        value = np.rint(estimate.depth.astype(np.float64) * DEPTH_FACTOR)
        value[~((value >= 1) & (value <= 65535))] = 0
        with atomic_file(self.out / "depth" / name) as file:
            file.write(cv2.imencode(".png", value.astype(np.uint16))[1].tobytes())
        if "depth/" not in self.written:
            camera = estimate.camera
            unit = "metre" if estimate.scale.is_metric else f"not metric (scale source {estimate.scale.source})"
            write_text(
                self.out / "depth" / "depth.yaml",
                "# Depth along the optical axis = pixel / factor, 0 is unknown; N.png is row N of frames.csv, from 0.\n"
                f"factor: {DEPTH_FACTOR}\nunit: {unit}\nwidth: {camera.width}\nheight: {camera.height}\n"
                f"intrinsics: [{camera.fx:.6f}, {camera.fy:.6f}, {camera.cx:.6f}, {camera.cy:.6f}]  # fx fy cx cy\n",
            )
            self.written.append("depth/")

    def _add_points(self, image: Any, estimate: Estimate) -> None:
        """Every n-th row and column, placed in the odometry's origin."""
        import cv2
        import numpy as np

        from depth_pose_ros.geometry.point_cloud import PointCloud

        height, width = estimate.depth.shape
        skip = max(1, math.ceil(math.sqrt(self.total * height * width / CLOUD_POINTS)))
        grid = (slice(skip // 2, None, skip), slice(skip // 2, None, skip))
        points = PointCloud(estimate.camera).xyz(estimate.depth)[grid].reshape(-1, 3)
        colours = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)[grid].reshape(-1, 3)
        known = np.isfinite(points[:, 2])
        T = estimate.T_odom_camera
        self.points.append((points[known] @ T[:3, :3].T + T[:3, 3]).astype(np.float32))
        self.colours.append(colours[known])

    def trajectory(self) -> Trajectory:
        """T_odom_camera of every frame."""
        from depth_pose_ros.evaluation.trajectory import Trajectory

        return Trajectory(self.stamps, self.poses)

    def summary(self) -> Summary:
        """All the numbers."""
        import numpy as np

        from depth_pose_ros.evaluation.trajectory import compare

        path = self.trajectory()
        spreads = [float(row["scale_spread"]) for row in self.rows if row["scale_ok"] == "true"]
        last = self.rows[-1] if self.rows else {}
        frame_ms = np.percentile(self.frame_ms, [50, 95]).tolist() if self.frame_ms else [math.nan, math.nan]
        return Summary(
            frames=len(self.rows),
            refused=self.refused.total(),
            states=dict(Counter(row["state"] for row in self.rows)),
            frame_ms=(frame_ms[0], frame_ms[1]),
            rate_hz=(len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else math.nan,
            stages={name: float(np.median(values)) for name, values in self.stages.items()},
            scale_source=last.get("scale_source", "none"),
            metric=last.get("metric") == "true",
            scale_spread=float(np.median(spreads)) if spreads else math.nan,
            path_length=path.length,
            truth=compare(path, self.truth) if self.truth is not None else None,
        )

    def write(self, summary: Summary) -> None:
        """trajectory.tum, frames.csv, summary.json and, when asked for, cloud.ply; each whole or not at all."""
        import numpy as np

        from depth_pose_ros.evaluation.files import write_ply, write_text
        from depth_pose_ros.evaluation.trajectory import write_tum

        write_tum(self.out / "trajectory.tum", self.trajectory())
        (self.out / "truth.tum").unlink(missing_ok=True)  # of another run
        if self.truth is not None:
            write_tum(self.out / "truth.tum", self.truth)
        write_text(self.out / "frames.csv", self._table())
        numbers = {key: _finite(value) for key, value in asdict(summary).items()}
        write_text(self.out / "summary.json", json.dumps(numbers, indent=2) + "\n")
        self.written[:0] = ["trajectory.tum", "frames.csv", "summary.json"]
        if self.save_cloud and self.points:
            write_ply(self.out / "cloud.ply", np.concatenate(self.points), np.concatenate(self.colours))
            self.written.append("cloud.ply")

    def _table(self) -> str:
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()


def _finite(value: Any) -> Any:
    """Without NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print_table(summary: Summary, console: Any) -> None:
    from rich.table import Table

    table = Table(show_header=False, title="Odometry", title_justify="left")
    table.add_row("frames", str(summary.frames) + (f", {summary.refused} refused" if summary.refused else ""))
    table.add_row("states", ", ".join(f"{count} {state}" for state, count in summary.states.items()))
    spent = f"{summary.frame_ms[0]:.0f} median, {summary.frame_ms[1]:.0f} 95th percentile"
    table.add_row("ms per frame", f"{spent}; {summary.rate_hz:.1f} frames per second, two at a time")
    table.add_row("stages", ", ".join(f"{name} {ms:.1f}" for name, ms in summary.stages.items()) + " ms")
    metric = "metric" if summary.metric else "not metric"
    spread = f", known to {100 * summary.scale_spread:.0f} %" if math.isfinite(summary.scale_spread) else ""
    table.add_row("scale", f"{summary.scale_source} ({metric}){spread}")
    table.add_row("path", f"{summary.path_length:.2f} {summary.unit}")
    if truth := summary.truth:
        table.add_row(
            "frame to frame",
            f"rotation {truth.rotation:.3f} deg, direction {truth.direction:.2f} deg (medians; means "
            f"{truth.rotation_mean:.3f}, {truth.direction_mean:.2f}) over {truth.pairs} pairs",
        )
        ratio = truth.length / truth.true_length if truth.true_length > 0 else math.nan
        table.add_row(
            "scale against truth",
            f"path {truth.length:.2f} of {truth.true_length:.2f} m ({ratio:.3f}), "
            f"spread from frame to frame {100 * truth.scale_spread:.1f} %",
        )
        share = (
            f", {100 * truth.position_error / truth.true_length:.2f} % of the path" if truth.true_length > 0.1 else ""
        )
        table.add_row("position error", f"{truth.position_error:.3f} m with first pose and scale made equal{share}")
    console.print(table)
