"""The executables of this package, also as ``python -m depth_pose_ros.nodes NAME ...``.

Importing rclpy, NumPy and OpenCV takes a second, in which Ctrl-C would leave a stack trace; so that is dealt with
before anything else is imported.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from functools import partial

from depth_pose_ros.threads import one_blas_thread

NAMES = (
    "bag_recorder",
    "camera_player",
    "check_camera",
    "depth_node",
    "flow_node",
    "pose_node",
    "view_node",
    "vo_node",
)


def start(name: str, arguments: list[str] | None = None) -> int:
    """Import one executable and run it. Returns its exit code."""
    one_blas_thread()
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: os._exit(0)) for number in numbers}
    try:
        main = importlib.import_module(f"depth_pose_ros.nodes.{name}").main
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("depth_pose_ros"):
            raise
        print(f"{name}: {error}; source a ROS 2 installation first, or use the .venv that make made", file=sys.stderr)
        return 1
    for number in numbers:
        signal.signal(number, before[number])
    return main(arguments)


bag_recorder, camera_player, check_camera, depth_node, flow_node, pose_node, view_node, vo_node = (
    partial(start, name) for name in NAMES
)
"""The entry points."""


def main() -> int:
    """``python -m depth_pose_ros.nodes NAME ...``."""
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        print(f"usage: python -m depth_pose_ros.nodes NAME ...; NAME is one of {', '.join(NAMES)}", file=sys.stderr)
        return 2
    del sys.argv[0]  # so that argv starts with the executable's name, as ever
    return start(sys.argv[0])


if __name__ == "__main__":
    sys.exit(main())
