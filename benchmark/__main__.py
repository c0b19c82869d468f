"""Measure everything, or some parts of it, and tell what became worse.

    python -m benchmark [PART ...] [--input SEQUENCE] [--out FOLDER] [--keep]

Each part writes FOLDER/<part>.json and <part>.md. Where benchmark/results/ has a result of the same part, the two are
compared (guard.py), and the exit code is 1 when something became worse; --keep makes the new results the committed
ones. ``python -m benchmark docs`` draws the charts and writes the tables of docs/performance.md from those.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path

from benchmark import docs, guard, result
from benchmark.drive import SIZES
from benchmark.result import RESULTS, note
from benchmark.timing import Reference
from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.evaluation.files import write_text
from depth_pose_ros.sequences.arguments import add_sequence_arguments, positive

PARTS = {
    "stages": "what each step of a frame costs, and memory",
    "side_by_side": "this package beside KLT and DIS with MAGSAC, and its solver beside others on the same matches",
    "geometry": "the solver beside OpenCV's and TrianFlow's on matches of ten kinds of scenes, 10 to 50 % wrong",
    "accuracy": "error and cost at each size, backend, number of matches and choice of the solver",
    "covariance": "errors on rendered sequences in units of what the odometry says of itself, by type of motion",
    "node": "the nodes over DDS: highest rate and latency; one process beside split nodes",
    "sustained": "vo_node for minutes at one rate: losses, latency, memory",
    "standing": "a camera that stands still for minutes: how far the pose drifts",
}
"""Each is a module of this package with ``run(options, reference) -> Result``."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of all parts."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts:\n" + "\n".join(f"  {name:12} {text}" for name, text in PARTS.items()),
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="default: all of them")
    parser.add_argument("--input", help="folder of images, video file or ROS bag (default: the drive shipped)")
    parser.add_argument("--out", type=Path, default=Path("out/benchmark"), help="folder of the results")
    parser.add_argument("--keep", action="store_true", help="write the results to benchmark/results/, for the next run")
    parser.add_argument("--sizes", type=_sizes, default=SIZES, metavar="WxH,...", help="input sizes of the networks")
    parser.add_argument("--frames", type=positive, default=150, help="frames of each measurement (default: 150)")
    parser.add_argument(
        "--backends", type=_words, default=("cpu", "cpu_int8"), help="accuracy: backends (default: cpu,cpu_int8)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="node: of each run (default: 5)")
    parser.add_argument("--runs", type=positive, default=5, help="node: runs of each measurement (default: 5)")
    parser.add_argument("--rates", type=_rates, default=(10.0, 30.0), help="node: Hz of the latency (default: 10,30)")
    parser.add_argument("--no-split", dest="split", action="store_false", help="node: vo_node alone")
    parser.add_argument("--minutes", type=float, default=1.0, help="sustained, standing: how long (default: 1)")
    parser.add_argument("--rate", type=float, default=10.0, help="sustained, standing: Hz (default: 10)")
    parser.add_argument("--flow-model", default="default", help="as the parameters of vo_node")
    parser.add_argument("--depth-model", default="default")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--threads", type=int, default=0)
    add_sequence_arguments(parser)
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown and options.parts != ["docs"]:
        parser.error(f"{', '.join(unknown)}: no such part; choose of {', '.join(PARTS)}, or docs alone")
    return options


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    try:
        return tuple((int(w), int(h)) for w, h in (size.lower().split("x") for size in text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}; expected WIDTHxHEIGHT[,...], e.g. 640x192,320x96") from None


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _rates(text: str) -> tuple[float, ...]:
    try:
        rates = tuple(float(rate) for rate in text.split(","))
    except ValueError:
        rates = ()
    if not rates or min(rates) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r}; expected Hz[,Hz...], e.g. 10,30")
    return rates


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 1 when something became worse or could not be measured."""
    options = parse(arguments)
    # A domain of its own, so that a robot on the same network is not confused by our odometry.
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
    if options.parts == ["docs"]:
        for path in docs.write():
            note(f"written: {path}")
        return 0
    failures = []
    for part in options.parts or PARTS:
        try:
            failures += _run(part, options)
        except (DepthPoseError, OSError, ImportError) as error:
            failures.append(f"{part}: {error}")
        except KeyboardInterrupt:
            print(f"benchmark: interrupted in part {part}", file=sys.stderr)
            return 130
    for failure in failures:
        print(f"benchmark: {failure}", file=sys.stderr)
    return 1 if failures else 0


def _run(part: str, options: argparse.Namespace) -> list[str]:
    """Measure one part and write it; what became worse, in sentences."""
    reference = Reference()
    measured = importlib.import_module(f"benchmark.{part}").run(options, reference)
    document = measured.document(reference)
    print(result.markdown(document))
    write_text(options.out / f"{part}.md", result.markdown(document))
    note(f"written: {result.write(options.out, document)} and {part}.md")
    before = result.read(RESULTS, part)
    if options.keep:
        result.write(RESULTS, document)
        if (table := options.out / f"{part}.csv").is_file():
            shutil.copy(table, RESULTS)
    if before is None:
        return []
    if why := guard.incomparable(before, document):
        note(why)
        return []
    worse = guard.regressions(before, document)
    if not worse:
        note(f"{part}: nothing became worse than at {before['revision']}")
    return worse


if __name__ == "__main__":
    sys.exit(main())
