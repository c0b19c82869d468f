"""The demo: a camera sequence through the nodes over real ROS 2 topics, recorded, measured and drawn.

``python -m depth_pose_ros.demo [INPUT]`` starts vo_node, a recorder and a camera player as processes of their own.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence as Arguments
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import numpy as np

from depth_pose_ros.demo.processes import Process
from depth_pose_ros.demo.recording import INPUTS, TOPICS, Recording, read_recording
from depth_pose_ros.demo.summary import Played, Summary, camera_trajectory, summarise
from depth_pose_ros.errors import DepthPoseError, SequenceError
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.evaluation.trajectory import aligned_at_start, write_tum
from depth_pose_ros.sequences import Sequence
from depth_pose_ros.sequences.arguments import add_sequence_arguments, chosen_count, open_chosen, rate, sequence_words
from depth_pose_ros.share import share_path

STREET_DRIVE = "demo/street_drive"
FRAME_ID = "camera_optical_frame"
START_TIMEOUT = 60.0  # s for the node to load its networks and for everybody to find everybody
COLUMNS = 4  # frames in the strip of pictures
CLOUDS = 8  # frames whose points make the cloud
RESULTS = ("trajectory.tum", "summary.json", "trajectory.png", "frames.png", "cloud.png")
PICTURES = 24  # frames of which depth, flow and points are kept, to choose these from


class DemoError(DepthPoseError):
    """A process of the demo did not do its part."""


def parse(arguments: Arguments[str] | None = None) -> argparse.Namespace:
    """The options of the demo."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Play a camera sequence through vo_node over ROS 2 topics; record, measure, draw."
    )
    parser.add_argument("input", nargs="?", help="folder of images, video file or ROS bag (default: the drive shipped)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the results (default: out)")
    parser.add_argument(
        "--rate",
        type=rate,
        default="auto",
        help="factor on the pace of the recording, or auto: its pace, but no frame before the last one was answered",
    )
    add_sequence_arguments(parser)
    parser.add_argument(
        "--param", action="append", default=[], metavar="NAME:=VALUE", help="a parameter of vo_node; may be repeated"
    )
    return parser.parse_args(arguments)


def main(arguments: Arguments[str] | None = None) -> int:
    """Run the demo; 0 when every frame after the first was answered and most were tracked."""
    options = parse(arguments)
    if missing := [name for name in ("matplotlib", "rich", "rosbags") if importlib.util.find_spec(name) is None]:
        print(f"demo: {', '.join(missing)} not installed: pip install {' '.join(missing)}", file=sys.stderr)
        return 1
    from rich.console import Console
    from rich.markup import escape

    console = Console()
    try:
        source = options.input or share_path(STREET_DRIVE)
        if source is None:
            raise SequenceError(f"{STREET_DRIVE} was not installed; name a folder of images, a video file or a bag")
        sequence = open_chosen(str(source), options)
        # A domain of its own, so that a robot on the same network is not confused by our odometry.
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
        console.print(
            f"{sequence.name}: {chosen_count(sequence, options)} frames of {sequence.camera.image_width} x "
            f"{sequence.camera.image_height}; on ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}",
            highlight=False,
        )
        played = record(options, str(source), sequence, console)
        chosen = spread([frame.stamp_ns for frame in played[1:]], PICTURES)
        recording = read_recording(options.out / "bag", set(chosen))
        # With a base frame the odometry is not the camera's, whose truth it is.
        truth = sequence.ground_truth if recording.frames[1] == FRAME_ID else None
        summary = summarise(recording, played, truth)
        print_tables(summary, console)
        write_results(options.out, sequence, recording, summary, played, chosen)
    except (DepthPoseError, OSError) as error:
        console.print("[red]demo:[/red]", escape(str(error)), highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("[red]demo:[/red] interrupted")
        return 130
    console.print(f"Recording, trajectory and pictures: {options.out}/", highlight=False)
    if summary.failure:
        console.print(f"[red]demo:[/red] {summary.failure}; the logs are in {options.out}/log/", highlight=False)
    return 1 if summary.failure else 0


def record(options: argparse.Namespace, source: str, sequence: Sequence, console) -> list[Played]:
    """Play the sequence through the node into ``out/bag``; what was played. DemoError when a process fails."""
    log = options.out / "log"
    log.mkdir(parents=True, exist_ok=True)
    bag = options.out / "bag"
    shutil.rmtree(bag, ignore_errors=True)
    for name in RESULTS:
        (options.out / name).unlink(missing_ok=True)
    parameters = [f"camera_frame:={FRAME_ID}", *options.param]
    ros_arguments = ["--ros-args", *(word for parameter in parameters for word in ("-p", parameter))]
    with ExitStack() as stack:

        def start(module: str, arguments: list[str]) -> Process:
            process = Process(module, arguments, log / f"{module}.txt")
            stack.callback(process.stop)
            return process

        node = start("vo_node", ros_arguments)
        recorder = start("bag_recorder", [str(bag), *TOPICS, "--later", *INPUTS])
        wait_until_ready(recorder, [node, recorder])
        words = [source, "--rate", options.rate, "--frame-id", FRAME_ID, "--subscribers", "2", *sequence_words(options)]
        player = start("camera_player", words)
        played = follow(player, [node, recorder], chosen_count(sequence, options), console)
        time.sleep(1.0)  # the last answers are on their way
        node.stop()
        if node.exit_code != 0:
            raise DemoError(f"vo_node ended with code {node.exit_code}; its last words:\n{node.last_words()}")
        recorder.stop()
    if len(played) < 2:
        raise DemoError(f"only {len(played)} frames were played; a motion needs two")
    return played


def wait_until_ready(recorder: Process, processes: list[Process]) -> None:
    """Wait until the recorder has found every topic."""
    end = time.monotonic() + START_TIMEOUT
    while recorder.line(timeout=0.1) != "ready":
        check_alive(processes)
        if time.monotonic() > end:
            raise DemoError(f"the node did not come up within {START_TIMEOUT:.0f} s:\n{recorder.last_words(2)}")


def follow(player: Process, others: list[Process], total: int, console) -> list[Played]:
    """Show the progress of the player until it ends."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    played: list[Played] = []
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("playing", total=total)
        while not player.finished():
            check_alive(others)
            if line := player.line(timeout=0.2):
                frame = json.loads(line)
                played.append(Played(frame["index"], frame["stamp_ns"], frame["published_ns"]))
                progress.advance(task)
    if player.exit_code != 0:
        raise DemoError(player.last_words())
    return played


def check_alive(processes: list[Process]) -> None:
    """DemoError with the last words of the first process that has ended."""
    for process in processes:
        if process.exit_code is not None:
            raise DemoError(f"{process.name} ended with code {process.exit_code}:\n{process.last_words()}")


def spread(stamps: list[int], count: int) -> list[int]:
    """At most ``count`` of them, evenly spread, the first and the last among them."""
    chosen = np.linspace(0, len(stamps) - 1, min(count, len(stamps)))
    return [stamps[i] for i in chosen.round().astype(int)]


def print_tables(summary: Summary, console) -> None:
    """The numbers, for people."""
    from rich.table import Table

    table = Table(show_header=False, title="Odometry", title_justify="left")
    dropped = f", {summary.dropped} dropped" + (f", {summary.refused} refused" if summary.refused else "")
    table.add_row("frames", f"{summary.played} played, {summary.answered} answered{dropped} (the first starts)")
    table.add_row("pace", f"{summary.pace:.2f} x real time, {summary.rate:.1f} frames/s")
    table.add_row("latency", f"{summary.latency[0]:.0f} ms median, {summary.latency[1]:.0f} ms 95th percentile")
    table.add_row("stages", ", ".join(f"{name} {ms:.1f}" for name, ms in summary.stages.items()) + " ms")
    table.add_row("states", ", ".join(f"{count} {state}" for state, count in summary.states.items()))
    metric = "metric" if summary.metric else "not metric"
    table.add_row("scale", f"{summary.scale_source} ({metric}), known to {100 * summary.scale_spread:.0f} %")
    if truth := summary.truth:
        table.add_row(
            "frame to frame", f"rotation {truth.rotation:.3f} deg, direction {truth.direction:.2f} deg (medians)"
        )
        table.add_row(
            "scale against truth",
            f"path {truth.length:.2f} of {truth.true_length:.2f} m, spread per frame {100 * truth.scale_spread:.1f} %",
        )
        share = f", {100 * truth.position_error / truth.true_length:.2f} % of the path" if truth.true_length else ""
        table.add_row("position error", f"{truth.position_error:.3f} m with first pose and scale made equal{share}")
    console.print(table)
    topics = Table(title="Recorded topics", title_justify="left")
    for heading in ("topic", "messages", "with an image's stamp", "MB"):
        topics.add_column(heading, justify="left" if heading == "topic" else "right")
    for topic, (count, stamped, size) in summary.topics.items():
        has_stamp = topic not in ("tf", "diagnostics")
        topics.add_row(topic, str(count), str(stamped) if has_stamp else "", f"{size / 1e6:.1f}")
    console.print(topics)


def write_results(
    out: Path,
    sequence: Sequence,
    recording: Recording,
    summary: Summary,
    played: list[Played],
    chosen: list[int],
) -> None:
    """trajectory.tum, summary.json and the three pictures; without odometry no pictures."""
    from depth_pose_ros.demo import pictures
    from depth_pose_ros.evaluation import figures

    estimate = camera_trajectory(recording, played[0].stamp_ns)
    write_tum(out / "trajectory.tum", estimate)
    # By way of JSON's own NaN to null, which every reader knows.
    numbers = json.loads(json.dumps(asdict(summary)), parse_constant=lambda _: None)
    write_text(out / "summary.json", json.dumps(numbers, indent=2) + "\n")
    if not len(estimate):
        return

    positions, truth, unit = estimate.poses[:, :3, 3], None, summary.unit
    title = f"{sequence.name}: {summary.played} frames"
    if summary.truth:
        positions, truth = aligned_at_start(estimate, sequence.ground_truth)
        unit = "m"
        title += (
            f", {summary.truth.true_length:.1f} m; position error {summary.truth.position_error:.2f} m, scale aligned"
        )
    pictures.trajectory_picture(out / "trajectory.png", positions, truth, unit, title)

    strip = spread([stamp for stamp in chosen if stamp in recording.depth], COLUMNS)
    index = {frame.stamp_ns: frame.index for frame in played}
    if strip:
        rows = {
            "image": [sequence[index[stamp]][1] for stamp in strip],
            "flow": [recording.flow.get(stamp) for stamp in strip],
            "depth": [recording.depth[stamp] for stamp in strip],
        }
        figures.save(
            figures.strip(rows, [f"frame {index[stamp]}" for stamp in strip], summary.unit), out / "frames.png"
        )
    pose = dict(zip(estimate.stamps_ns.tolist(), estimate.poses))
    clouds = spread(
        [stamp for stamp in chosen if stamp in pose and len(recording.points.get(stamp, ((),))[0]) > 10], CLOUDS
    )
    if clouds:
        pictures.cloud_picture(
            out / "cloud.png",
            [pictures.placed_cloud(*recording.points[stamp], pose[stamp]) for stamp in clouds],
            estimate.poses[:, :3, 3],
            summary.unit,
            f"{sequence.name}: the clouds of {len(clouds)} frames, placed by the odometry",
        )


if __name__ == "__main__":
    sys.exit(main())
