"""Start and stop of a node's process: what must be set before ROS starts, errors in one sentence, quiet shutdown."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, MutableMapping, Sequence

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node

from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.share import share_path


def use_large_shared_memory(environment: MutableMapping[str, str] = os.environ) -> None:
    """Give Fast DDS the package's profile, unless the user chose one.

    Its own shared memory of 512 KiB is smaller than one image: best-effort subscribers then lose nearly every image,
    depth image and cloud that this process publishes.
    """
    profile = share_path("config/fastdds.xml")
    of_fast_dds_3, of_fast_dds_2 = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
    if profile is None or environment.get(of_fast_dds_3) or environment.get(of_fast_dds_2):
        return
    old = environment.get("ROS_DISTRO") in ("humble", "iron", "jazzy")  # newer ones warn about the old name
    environment[of_fast_dds_2 if old else of_fast_dds_3] = str(profile)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks of megabytes: giving them back and taking them anew costs as much as the copy."""
    try:
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
    except (OSError, AttributeError):  # another C library: slower, nothing else
        pass


def run(make_node: Callable[[], Node], arguments: Sequence[str] | None = None) -> int:
    """Make a node, start and spin it until SIGINT, SIGTERM or an error, and clean up. Returns the exit code.

    A DepthPoseError from the node, at start or later, ends the process with its one sentence and code 1. The node may
    have a ``start()``, and a ``close()`` that stops its threads.
    """
    node = None
    code = 0
    try:
        keep_freed_memory()
        use_large_shared_memory()
        rclpy.init(args=arguments)
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if hasattr(node, "start"):
            node.start()
        while rclpy.ok():
            executor.spin_once()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except DepthPoseError as error:
        code = 1
        _say_fatal(node, str(error))
    except RuntimeError as error:
        if node is None:  # rcl says in it what it lacks
            code = 1
            _say_fatal(node, f"ROS 2 cannot be started: {error}")
        elif rclpy.ok():
            raise
    except Exception:
        if node is None or rclpy.ok():  # else: a call that came too late, after the signal that ends us
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second Ctrl-C must not interrupt the cleaning up
            signal.signal(number, signal.SIG_IGN)
        if node is not None:
            if hasattr(node, "close"):
                node.close()
            node.destroy_node()
        if rclpy.ok():
            rclpy.shutdown()
    return code


def _say_fatal(node: Node | None, sentence: str) -> None:
    if node is not None and rclpy.ok():
        node.get_logger().fatal(sentence)
    else:
        print(f"depth_pose_ros: {sentence}", file=sys.stderr)
