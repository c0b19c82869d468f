"""``depth_pose evaluate``: a run, a trajectory file, or a sequence that is run first, against the truth.

Writes to a folder: evaluation.json, evaluation.csv and report.html, beside what ``depth_pose run`` writes.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_pose_ros import run as run_command
from depth_pose_ros.errors import CameraError, ConfigError, SequenceError
from depth_pose_ros.evaluation.depth import DepthErrors, depth_errors, eigen_crop, mean_depth_errors
from depth_pose_ros.evaluation.evaluation import DepthStrip, Evaluation, evaluate_trajectory
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.evaluation.flow import FlowErrors, flow_errors
from depth_pose_ros.evaluation.metrics import KITTI_LENGTHS
from depth_pose_ros.evaluation.record import Record, is_run, read_record
from depth_pose_ros.share import install_extra

if TYPE_CHECKING:
    from depth_pose_ros.odometry import Estimate, Frame
    from depth_pose_ros.sequences import Sequence

STRIPS = 4
"""Frames whose depth the report shows."""

NEEDS = ("evo", "matplotlib", "rich")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``depth_pose run``, and a few more."""
    run_command.add_arguments(parser)
    next(a for a in parser._actions if a.dest == "input").help = (
        "camera sequence (folder, video or bag), which is run first; or a folder that depth_pose run wrote; or a "
        "trajectory file (TUM, KITTI). The last two need no options but --truth, --out and --lengths"
    )
    add_evaluation_arguments(parser)
    parser.add_argument("--max-depth", type=float, default=80.0, metavar="M", help="compare depth up to here (80 m)")


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``evaluate`` and ``compare`` have in common."""
    parser.add_argument(
        "--lengths",
        nargs="+",
        type=float,
        default=list(KITTI_LENGTHS),
        metavar="M",
        help="sub-lengths of t_rel and r_rel in m (default: KITTI's 100 to 800)",
    )


def main(arguments: argparse.Namespace) -> int:
    """Evaluate, print, write; 0 when the run, if there was one, tracked most frames."""
    console = make_console()
    path, code = Path(arguments.input), 0
    if (path.is_file() and path.suffix in (".txt", ".tum", ".kitti", ".csv")) or (path.is_dir() and is_run(path)):
        record = read_record(path, arguments.truth)
        evaluation = evaluate_trajectory(record, tuple(arguments.lengths))
    else:
        sequence = _open(arguments)
        evaluation, code = evaluate_sequence(sequence, arguments, console)
    print_tables(evaluation, console)
    written = write(evaluation, arguments.out)
    console.print(f"Written to {arguments.out}/: {', '.join(written)}")
    return code


def make_console() -> Any:
    """For people. ConfigError when a package is missing that evaluate and compare need."""
    import importlib.util

    if missing := [name for name in NEEDS if importlib.util.find_spec(name) is None]:
        raise ConfigError(f"{', '.join(missing)} not installed: {install_extra('eval')}")
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


# -------------------------------------------------------------------------------------------------------- a sequence
def _open(arguments: argparse.Namespace) -> Sequence:
    """With a camera, unless true flow is all there is to evaluate."""
    from depth_pose_ros.sequences import open_sequence

    try:
        return run_command.open_with_camera(arguments)
    except CameraError:
        sequence = open_sequence(arguments.input, None, arguments.fps, arguments.topic)
        if arguments.camera is not None or not sequence.has_true_flow:
            raise
        return sequence


def evaluate_sequence(sequence: Sequence, arguments: argparse.Namespace, console: Any) -> tuple[Evaluation, int]:
    """Run the odometry on it, and compare path, depth and flow with what truth it has; and the exit code of the run."""
    more: dict[str, Any] = {"notes": []}
    if sequence.has_true_flow:
        flow, pairs = flow_of_sequence(sequence, arguments)
        more |= {"flow": flow, "flow_pairs": pairs}
    if sequence.camera is None:
        from depth_pose_ros.evaluation.trajectory import Trajectory

        more["notes"].append("The sequence tells no intrinsics, so only its flow was evaluated.")
        nothing = Trajectory(np.empty(0), np.empty((0, 4, 4)))
        return Evaluation(Record(sequence.name, nothing), **more), 0
    total = len(range(0, len(sequence), arguments.step))
    total = min(total, arguments.max_frames or total)
    depth = DepthComparison(sequence, arguments, total) if sequence.has_true_depth else None
    results, failure = run_command.process(arguments, sequence, [depth.add] if depth else [], console)
    code = run_command.finish(results, failure, console)
    if len(results.rows) < 2:
        raise SequenceError(f"{sequence.name}: {failure or 'fewer than two frames'}; there is nothing to evaluate")
    record = Record(sequence.name, results.trajectory(), results.truth, results.rows)
    if depth is not None and depth.count:
        more |= {"depth": depth.means(), "depth_images": depth.count, "strips": depth.strips}
    return evaluate_trajectory(record, tuple(arguments.lengths), **more), code


class DepthComparison:
    """Depth of each frame of a run against the truth: as it is and with its median made equal, whole and cropped."""

    def __init__(self, sequence: Sequence, arguments: argparse.Namespace, total: int) -> None:
        """``total`` frames are expected; a few of them, evenly spread, become strips."""
        from depth_pose_ros.camera import Rectifier

        self.count = 0
        self.strips: list[DepthStrip] = []
        self._sequence = sequence
        self._rectifier = Rectifier(sequence.camera, rectify=arguments.rectify)
        self._index = {int(stamp): i for i, stamp in enumerate(sequence.stamps_ns)}
        self._maximum = arguments.max_depth
        self._errors: dict[str, list[DepthErrors]] = {}
        self._crop = sequence.format.startswith("KITTI")
        self._wanted = set(np.linspace(0, total - 1, STRIPS + 2).round().astype(int)[1:-1].tolist())
        self._seen = -1

    def add(self, frame: Frame, estimate: Estimate) -> None:
        """One frame of the run."""
        import cv2

        self._seen += 1
        index = self._index[frame.stamp_ns]
        if estimate.depth is None or (truth := self._sequence.true_depth(index)) is None:
            return
        truth = self._rectifier.nearest(truth)
        depth = cv2.resize(estimate.depth, (truth.shape[1], truth.shape[0]), interpolation=cv2.INTER_LINEAR)
        regions = {"": truth}
        if self._crop:
            regions[", Eigen crop"] = np.where(eigen_crop(*truth.shape), truth, np.nan)
        try:
            found = {
                ("median scaled" if scaled else "as it is") + region: depth_errors(
                    depth, part, scaled, maximum=self._maximum
                )
                for scaled in (True, False)
                for region, part in regions.items()
            }
        except ValueError:  # no pixel is known in this frame
            return
        self.count += 1
        for name, errors in found.items():
            self._errors.setdefault(name, []).append(errors)
        if self._seen in self._wanted:
            scaled = (depth * found["median scaled"].scale).astype(np.float32)
            self.strips.append(DepthStrip(index, frame.image.copy(), scaled, truth))

    def means(self) -> dict[str, DepthErrors]:
        """By how it was compared."""
        return {name: mean_depth_errors(errors) for name, errors in self._errors.items()}


def flow_of_sequence(sequence: Sequence, arguments: argparse.Namespace) -> tuple[FlowErrors, int]:
    """The flow network alone on every pair of images whose true flow is known, and how many they were.

    Means are over all pixels of all pairs; ``median`` is the median of the pairs' medians.
    """
    import cv2

    from depth_pose_ros.camera import network_size
    from depth_pose_ros.config import EngineConfig
    from depth_pose_ros.engines import Terminal, find_model, load_flow
    from depth_pose_ros.options import configured

    manifest, found, network = find_model(arguments.flow_model, "flow"), [], None
    for index in range(len(sequence) - 1):
        truth = sequence.true_flow(index)
        if truth is None:
            continue
        height, width = truth.shape[:2]
        if network is None:
            recommended = network_size((width, height), manifest.recommended_size, manifest.inputs.multiple_of)
            size = arguments.size or recommended
            engine = configured(EngineConfig, arguments)
            network = load_flow(arguments.flow_model, *size, arguments.backend, arguments.threads, engine, Terminal())
        features = []
        for i in (index, index + 1):
            image = sequence[i][1]
            image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2 else image
            if image.shape[:2] != (height, width):
                raise SequenceError(
                    f"{sequence.name}: true flow of {width} x {height}, but images of "
                    f"{image.shape[1]} x {image.shape[0]}"
                )
            features.append(network.features(cv2.resize(image, size, interpolation=cv2.INTER_AREA)))
        flow = cv2.resize(network.flow(*features).forward, (width, height), interpolation=cv2.INTER_LINEAR)
        found.append(flow_errors(flow * np.float32((width / size[0], height / size[1])), truth))
    if not found:
        raise SequenceError(f"{sequence.name}: no pair of images has a true flow")
    weights = [errors.pixels for errors in found]
    means = {
        f.name: float(np.average([getattr(e, f.name) for e in found], weights=weights)) for f in fields(FlowErrors)
    }
    median = float(np.median([errors.median for errors in found]))
    return FlowErrors(**means | {"median": median, "pixels": sum(weights)}), len(found)


# ------------------------------------------------------------------------------------------------------- the results
def print_tables(evaluation: Evaluation, console: Any) -> None:
    """The tables of the report, in the terminal."""
    for title, rows in tables(evaluation).items():
        print_table(title, rows, console)
    for note in evaluation.notes:
        console.print(note, markup=False)


def print_table(title: str, rows: list[list[str]], console: Any) -> None:
    """Cells, the first row the headings."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left")
    for i, heading in enumerate(rows[0]):
        table.add_column(escape(heading), justify="right" if i else "left")
    for row in rows[1:]:
        table.add_row(*(escape(cell) for cell in row))
    console.print(table)


def tables(evaluation: Evaluation) -> dict[str, list[list[str]]]:
    """By title: rows of cells, the first row the headings."""
    found: dict[str, list[list[str]]] = {}
    if motion := evaluation.motion:
        found["From frame to frame"] = [
            [f"{motion.pairs} motions", "median", "mean"],
            ["rotation error [deg]", text(motion.rotation), text(motion.rotation_mean)],
            ["direction error [deg]", text(motion.direction), text(motion.direction_mean)],
        ]
    if evaluation.aligned:
        headings = ["after aligning", "scale", "ATE [m]", "mean", "median", "max", "RPE [m/frame]", "RPE [deg/frame]"]
        found["Whole path (ATE and RPE: root mean square)"] = [headings] + [
            [_NAMES[name]]
            + [text(v) for v in (e.scale, e.ate, e.ate_mean, e.ate_median, e.ate_max, e.rpe, e.rpe_rotation)]
            for name, e in evaluation.aligned.items()
        ]
    if kitti := evaluation.kitti:
        rows = [[f"{length:g} m", text(t), text(r), str(n)] for length, (t, r, n) in kitti.by_length.items()]
        title = "KITTI odometry errors" + (" (after scaling)" if kitti.scaled else "")
        rows.append(["all", text(kitti.t_rel), text(kitti.r_rel), str(kitti.segments)])
        found[title] = [["sub-length", "t_rel [%]", "r_rel [deg/100 m]", "segments"], *rows]
    if evaluation.depth:
        headings = ["compared", "AbsRel", "SqRel [m]", "RMSE [m]", "RMSE log", "d < 1.25", "d < 1.25^2", "d < 1.25^3"]
        names = ("abs_rel", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")
        found[f"Depth, mean over {evaluation.depth_images} images"] = [headings] + [
            [how, *(text(getattr(errors, name)) for name in names)] for how, errors in evaluation.depth.items()
        ]
    if flow := evaluation.flow:
        found[f"Optical flow, {evaluation.flow_pairs} pair{'s' * (evaluation.flow_pairs > 1)}"] = [
            ["end-point error [px]", "median [px]", "under 1 px [%]", "Fl [%]"],
            [text(flow.epe), text(flow.median), text(100 * flow.under_1px), text(100 * flow.outliers)],
        ]
    return found


_NAMES = {"se3": "SE(3)", "sim3": "Sim(3)", "scale": "scale only"}


def text(value: float) -> str:
    """Three or four digits that mean something."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) >= 1 else f"{value:.3f}"


def write(evaluation: Evaluation, out: Path) -> list[str]:
    """evaluation.json, evaluation.csv, report.html; their names."""
    from depth_pose_ros.evaluation.report import report

    numbers = {"name": evaluation.record.name, **evaluation.numbers()}
    write_text(out / "evaluation.json", json.dumps({**numbers, "notes": evaluation.notes}, indent=2) + "\n")
    write_text(out / "evaluation.csv", csv_text([numbers]))
    write_text(out / "report.html", report([evaluation]))
    return ["evaluation.json", "evaluation.csv", "report.html"]


def csv_text(rows: list[dict[str, Any]]) -> str:
    """One line per run, one column per number."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
