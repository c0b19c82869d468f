"""Plays a camera sequence (folder of images, video file, bag) as ``image`` and ``camera_info``.

``camera_player INPUT`` publishes at the pace of the stamps. ``--rate 0.5`` plays at half that pace; ``--rate auto``
keeps the pace of the stamps, but sends no frame before the one before it has been answered on ``status``, so that a
slow machine sees every frame. One line of JSON per frame goes to standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.utilities import remove_ros_args
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest

from depth_pose_ros.camera import CameraModel
from depth_pose_ros.errors import DepthPoseError
from depth_pose_ros.nodes.messages import header, image_message, stamp_ns
from depth_pose_ros.nodes.running import keep_freed_memory, use_large_shared_memory
from depth_pose_ros.sequences.arguments import add_sequence_arguments, chosen_frames, open_chosen, positive, rate

SECOND = 1_000_000_000
START_TIMEOUT = 60.0  # s that a subscriber may take to come up: loading networks takes a while
ANSWER_TIMEOUT = 10.0  # s that one frame may take on a slow machine
UNANSWERED_LIMIT = 3  # frames in a row without an answer, after which there is nobody to play for
LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def calibration_message(model: CameraModel, stamp: int, frame_id: str) -> CameraInfo:
    """The sensor_msgs/CameraInfo of a camera as it is, with its distortion, ROI and binning."""
    x, y, width, height = model.roi
    return CameraInfo(
        header=header(stamp, frame_id),
        width=model.width,
        height=model.height,
        distortion_model=model.distortion_model,
        d=model.D.tolist(),
        k=model.K.ravel().tolist(),
        r=model.R.ravel().tolist(),
        p=model.P.ravel().tolist(),
        binning_x=model.binning_x,
        binning_y=model.binning_y,
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
    )


class CameraPlayer(Node):
    """Publishes the frames of one sequence at their pace.

    rate:      factor on the pace of the stamps; None: their pace, with :meth:`wait_for_answer` between frames.
    stamp_now: stamp each frame with the time at which it is published instead of its own.
    """

    def __init__(self, camera: CameraModel, rate: float | None, frame_id: str, stamp_now: bool = False) -> None:
        super().__init__("camera_player")
        self._camera = camera
        self._rate = rate
        self._frame_id = frame_id
        self._stamp_now = stamp_now
        self._images = self.create_publisher(Image, "image", 10)
        self._infos = self.create_publisher(CameraInfo, "camera_info", 10)
        self._answered = -1
        self._origin: tuple[float, int] | None = None  # monotonic time and stamp that the next frame is paced from
        if rate is None:
            self.create_subscription(DiagnosticArray, "status", self._on_status, LATCHED)

    def wait_for_subscribers(self, count: int = 1) -> bool:
        """Wait until so many take the images; False when they did not come in time."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.1)
            if self._images.get_subscription_count() >= count:
                time.sleep(0.3)  # for `camera_info`, and for the other side to see this one
                return True
        return False

    def play(self, stamp: int, image: np.ndarray) -> tuple[int, int]:
        """Publish one frame, (H, W, 3) or (H, W) uint8, when it is due.

        Returns the stamp that it carries and the time at which it was published, both in ns.
        """
        if self._origin is not None:
            due = self._origin[0] + (stamp - self._origin[1]) / SECOND / (self._rate or 1.0)
            while (wait := due - time.monotonic()) > 0:
                rclpy.spin_once(self, timeout_sec=min(wait, 0.05))
        if self._origin is None or self._rate is None:
            self._origin = time.monotonic(), stamp
        published = time.time_ns()
        if self._stamp_now:
            stamp = published
        self._infos.publish(calibration_message(self._camera, stamp, self._frame_id))
        self._images.publish(image_message(image, header(stamp, self._frame_id)))
        return stamp, published

    def flush(self) -> None:
        """Wait until every reliable subscriber has the last messages: a publisher that ends takes them with it."""
        for publisher in (self._images, self._infos):
            publisher.wait_for_all_acked(Duration(seconds=2))

    def wait_for_answer(self, stamp: int) -> bool:
        """Wait until ``status`` speaks of this stamp or a later one; False when it did not in time."""
        end = time.monotonic() + ANSWER_TIMEOUT
        while self._answered < stamp and time.monotonic() < end:
            rclpy.spin_once(self, timeout_sec=0.05)
        return self._answered >= stamp

    def _on_status(self, message: DiagnosticArray) -> None:
        self._answered = max(self._answered, stamp_ns(message.header.stamp))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of ``camera_player``."""
    parser = argparse.ArgumentParser(description="Publish a camera sequence as image and camera_info.")
    parser.add_argument("input", help="folder of images, video file or ROS bag")
    parser.add_argument("--rate", type=rate, default="1", help="factor on the pace of the stamps, or auto (default: 1)")
    add_sequence_arguments(parser)
    parser.add_argument("--frame-id", default="camera_optical_frame", help="frame of the headers")
    parser.add_argument(
        "--stamps", choices=("sequence", "now"), default="sequence", help="stamp frames as recorded, or when published"
    )
    parser.add_argument("--subscribers", type=positive, default=1, metavar="N", help="start when N take the images (1)")
    return parser.parse_args(arguments)


def play_all(
    player: CameraPlayer, frames: Iterable[tuple[int, int | None, Any]], wait: bool, subscribers: int = 1
) -> str:
    """Play all frames, a line of JSON for each; with ``wait`` not before the last one was answered.

    frames:      index, stamp and image, or an error in its place, which is told and passed over.
    subscribers: that are waited for before the first frame.

    Returns why it stopped early, or an empty text.
    """
    if not player.wait_for_subscribers(subscribers):
        found, topic = player.count_subscribers("image"), player.resolve_topic_name("image")
        return f"{found} instead of {subscribers} subscribers to {topic} within {START_TIMEOUT:.0f} s"
    unanswered = 0
    for index, stamp, image in frames:
        if stamp is None:
            print(f"camera_player: frame {index} is left out: {image}", file=sys.stderr)
            continue
        stamp, published = player.play(stamp, image)
        unanswered = 0 if not wait or player.wait_for_answer(stamp) else unanswered + 1
        print(json.dumps({"index": index, "stamp_ns": stamp, "published_ns": published}), flush=True)
        if unanswered == UNANSWERED_LIMIT:
            topic = player.resolve_topic_name("status")
            return f"no answer on {topic} to {unanswered} frames in a row, {ANSWER_TIMEOUT:.0f} s each"
    player.flush()
    return ""


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``camera_player``."""
    arguments = sys.argv if arguments is None else ["camera_player", *arguments]
    options = parse(remove_ros_args(arguments)[1:])
    keep_freed_memory()
    use_large_shared_memory()
    problem = ""
    try:
        sequence = open_chosen(options.input, options, keep_gray=True)
        rclpy.init(args=arguments)
        pace = None if options.rate == "auto" else float(options.rate)
        player = CameraPlayer(sequence.camera, pace, options.frame_id, options.stamps == "now")
        problem = play_all(player, chosen_frames(sequence, options), wait=pace is None, subscribers=options.subscribers)
    except DepthPoseError as error:
        problem = str(error)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    if problem:
        print(f"camera_player: {problem}", file=sys.stderr)
    return 1 if problem else 0
