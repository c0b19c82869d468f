"""``depth_pose``: the same pipeline without ROS, and the tools around it.

Each sub-command is a module with ``add_arguments(parser)`` and a function that takes the parsed arguments and returns
the exit code. It is imported only when it is asked for, so that ``--help`` needs no network runtime.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from depth_pose_ros import __version__
from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.share import install_extra
from depth_pose_ros.threads import one_blas_thread


class Command(NamedTuple):
    """Where a sub-command lives, and the line that ``depth_pose --help`` says of it."""

    module: str
    function: str
    help: str
    needs: str = f"{install_extra('train')} brings it"
    """What to do when a package is missing."""


COMMANDS = {
    "run": Command(
        "depth_pose_ros.run", "run", "odometry and depth from a folder of images, a video file or a ROS bag"
    ),
    "evaluate": Command(
        "depth_pose_ros.evaluation.evaluate",
        "main",
        "run a sequence, or take a run or trajectory, and report its errors",
    ),
    "compare": Command("depth_pose_ros.evaluation.compare", "main", "several runs or trajectories side by side"),
    "check-camera": Command(
        "depth_pose_ros.nodes.check_camera",
        "check",
        "listen to a camera's ROS topics and say what is wrong with them",
        "source a ROS 2 installation first, or use the .venv that make made",
    ),
    "train": Command("depth_pose_ros.training.train", "main", "train flow and depth on rendered worlds or on video"),
    "adapt": Command("depth_pose_ros.training.adapt", "main", "teach the shipped networks your camera, without truth"),
    "export": Command("depth_pose_ros.training.export", "main", "make an ONNX model of a training checkpoint"),
    "quantise": Command("depth_pose_ros.training.quantise", "main", "make the 8-bit file of a model, for the CPU"),
    "build-engines": Command(
        "depth_pose_ros.build_engines", "build", "compile the TensorRT engines of this machine beforehand"
    ),
    "import-trianflow": Command(
        "depth_pose_ros.training.import_trianflow", "main", "turn a published TrianFlow checkpoint into one of ours"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``depth_pose``. Exit code 0: done; 1: it failed; 2: what was asked for cannot be done."""
    one_blas_thread()
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="depth_pose", description="Camera-only odometry and depth, without ROS.")
    parser.add_argument("--version", action="version", version=f"depth_pose {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help[0].upper() + command.help[1:] + ".")
        if argv[:1] == [name]:
            try:
                module = importlib.import_module(command.module)
            except ImportError as error:
                if error.name is None or error.name.startswith("depth_pose_ros"):
                    raise
                print(f"depth_pose {name}: {error}; {command.needs}", file=sys.stderr)
                return 2
            module.add_arguments(sub)
            sub.set_defaults(function=getattr(module, command.function))
    arguments = parser.parse_args(argv)
    try:
        return arguments.function(arguments)
    except DepthPoseError as error:
        print(f"depth_pose {arguments.command}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"depth_pose {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"depth_pose {arguments.command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
