"""``depth_pose compare A B ...``: several runs against one truth, side by side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from depth_pose_ros.errors import SequenceError
from depth_pose_ros.evaluation.evaluate import add_evaluation_arguments, csv_text, make_console, print_table, text
from depth_pose_ros.evaluation.evaluation import Evaluation, evaluate_trajectory
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.evaluation.record import read_record

NUMBERS = {
    "ate_sim3_m": "ATE Sim(3) [m]",
    "ate_se3_m": "ATE SE(3) [m]",
    "scale_sim3": "scale",
    "scale_spread": "scale spread",
    "rpe_sim3_m": "RPE [m/frame]",
    "rpe_rotation_deg": "RPE [deg/frame]",
    "direction_median_deg": "direction [deg]",
    "kitti_t_rel_percent": "t_rel [%]",
    "kitti_r_rel_deg_per_100m": "r_rel [deg/100 m]",
    "total_median_ms": "ms/frame",
}
"""The numbers of the table, by their name in the CSV; the CSV has all."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose compare``."""
    parser.add_argument("runs", nargs="+", type=Path, help="folders that depth_pose run wrote, or trajectory files")
    parser.add_argument("--truth", type=Path, help="TUM or KITTI file, or sequence, when the runs do not hold it")
    parser.add_argument("--out", type=Path, default=Path("comparison"), help="folder of the results (comparison)")
    add_evaluation_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    """Evaluate each, print one table, write compare.json, compare.csv and report.html."""
    console = make_console()
    truth = arguments.truth or next((p / "truth.tum" for p in arguments.runs if (p / "truth.tum").is_file()), None)
    if truth is None:
        raise SequenceError(f"none of {', '.join(map(str, arguments.runs))} holds its truth; give it with --truth")
    records = [read_record(path, truth) for path in arguments.runs]
    evaluations = [evaluate_trajectory(record, tuple(arguments.lengths)) for record in records]
    names = distinct([record.name for record in records], arguments.runs)
    rows = [{"name": name, **evaluation.numbers()} for name, evaluation in zip(names, evaluations)]
    print_table("Side by side", table(rows), console)
    for note in dict.fromkeys(note for evaluation in evaluations for note in evaluation.notes):
        console.print(note)
    write(arguments.out, rows, evaluations, names)
    console.print(f"Written to {arguments.out}/: compare.json, compare.csv, report.html")
    return 0


def distinct(names: list[str], paths: list[Path]) -> list[str]:
    """Names that differ: the paths where the names do not."""
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def table(rows: list[dict]) -> list[list[str]]:
    """Rows of cells, the first the headings: a column per run; numbers that no run has are left out."""
    known = {key: heading for key, heading in NUMBERS.items() if any(row.get(key) is not None for row in rows)}
    cells = [
        [heading, *("-" if row.get(key) is None else text(row[key]) for row in rows)] for key, heading in known.items()
    ]
    return [["", *(row["name"] for row in rows)], *cells]


def write(out: Path, rows: list[dict], evaluations: list[Evaluation], names: list[str]) -> None:
    """compare.json, compare.csv and report.html."""
    from depth_pose_ros.evaluation.report import report

    write_text(out / "compare.json", json.dumps(rows, indent=2) + "\n")
    write_text(out / "compare.csv", csv_text(rows))
    write_text(out / "report.html", report(evaluations, names, table(rows)))
