"""The options by which a command line says which frames it wants of which sequence."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import count

import numpy as np

from depth_pose_ros.errors import CameraError, ImageError
from depth_pose_ros.sequences import Sequence, open_sequence


def add_sequence_arguments(parser: argparse.ArgumentParser) -> None:
    """``--camera``, ``--fps``, ``--topic``, ``--step`` and ``--max-frames``."""
    parser.add_argument(
        "--camera",
        nargs="+",
        metavar="V",
        help="fx fy cx cy in pixels, or a camera_info YAML; instead of what the input tells",
    )
    parser.add_argument("--fps", type=float, help="frames per second of a folder or video, instead of its own stamps")
    parser.add_argument("--topic", help="image topic of a bag; or the camera's folder where there are several")
    parser.add_argument("--step", type=positive, default=1, metavar="N", help="take every N-th frame (default: 1)")
    parser.add_argument("--max-frames", type=positive, metavar="N", help="stop after N frames")


def positive(text: str) -> int:
    """A whole number from 1 up, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}; expected 1 or more")
    return value


def rate(text: str) -> str:
    """``auto`` or a factor above 0 on the pace of the stamps, for argparse; the text itself."""
    try:
        good = text == "auto" or 0 < float(text) < 1e6
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r}; expected auto or a number above 0")
    return text


def sequence_words(options: argparse.Namespace) -> list[str]:
    """The same options as words again, to hand them on to another command."""
    words = [] if options.camera is None else ["--camera", *map(str, options.camera)]
    for name in ("fps", "topic", "step", "max_frames"):
        if getattr(options, name) is not None:
            words += ["--" + name.replace("_", "-"), str(getattr(options, name))]
    return words


def open_chosen(path: str, options: argparse.Namespace, keep_gray: bool = False) -> Sequence:
    """The sequence at ``path``, with a camera. SequenceError or CameraError when it cannot be used."""
    sequence = open_sequence(path, options.camera, options.fps, options.topic, keep_gray)
    if sequence.camera is None:
        reason = f" ({sequence.camera_problem})" if sequence.camera_problem else ""
        raise CameraError(f"{path} tells no intrinsics{reason}; give --camera fx fy cx cy or --camera FILE.yaml")
    return sequence


def chosen_count(sequence: Sequence, options: argparse.Namespace) -> int:
    """How many frames ``--step`` and ``--max-frames`` leave."""
    left = -(-len(sequence) // options.step)
    return left if options.max_frames is None else min(left, options.max_frames)


def chosen_frames(
    sequence: Sequence, options: argparse.Namespace
) -> Iterator[tuple[int, int, np.ndarray] | tuple[int, None, ImageError]]:
    """These frames: index in the sequence, stamp and image; no stamp and the error for one that cannot be read."""
    frames, last = iter(sequence), (chosen_count(sequence, options) - 1) * options.step
    for index in count():
        try:
            stamp, image = next(frames)
        except StopIteration:
            return
        except ImageError as error:
            stamp, image = None, error
        if index % options.step == 0:
            yield index, stamp, image
        if index == last:
            return
