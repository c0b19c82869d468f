"""Renders the drive that `make demo` plays by default: python tools/render_street_drive.py [--out demo/street_drive].

Needs torch (`make test` installs it). The same seed gives the same drive; other options give you others.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depth_pose_ros.evaluation.trajectory import Trajectory, write_tum  # noqa: E402

START_NS = 1_000_000_000  # a stamp of zero means "the latest" to TF

README = """\
A drive of {frames} frames at {rate:g} Hz, rendered by depth_pose_ros (worlds/drive.py, seed {seed}) with
tools/render_street_drive.py. Apache-2.0, like the package. Nothing in it was photographed.

images/             {width} x {height} pixels, JPEG, colour
times.txt           stamp of each image in seconds
intrinsics.txt      fx fy cx cy width height; no distortion
groundtruth_tum.txt exact pose of the camera's optical frame: stamp, x y z in m, qx qy qz qw
The camera is {height_m:g} m above the road.
"""


def main() -> None:
    """Render and write one drive."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "demo" / "street_drive")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--size", type=int, nargs=2, default=(832, 256), metavar=("W", "H"))
    parser.add_argument("--camera-height", type=float, default=1.5, help="m above the road")
    parser.add_argument("--quality", type=int, default=88, help="of the JPEG files")
    options = parser.parse_args()

    from depth_pose_ros.worlds.drive import render_drive

    width, height = options.size
    images = options.out / "images"
    images.mkdir(parents=True, exist_ok=True)
    for stale in images.glob("*.jpg"):
        stale.unlink()
    stamps, poses = [], []
    for index, frame in enumerate(
        render_drive(
            seed=options.seed,
            frames=options.frames,
            width=width,
            height=height,
            rate_hz=options.rate,
            camera_height=options.camera_height,
        )
    ):
        cv2.imwrite(str(images / f"{index:06d}.jpg"), frame.image, [cv2.IMWRITE_JPEG_QUALITY, options.quality])
        stamps.append(START_NS + frame.stamp_ns)
        poses.append(frame.T_world_camera)
        print(f"\rframe {index + 1} of {options.frames}", end="", flush=True)
    print()
    truth = Trajectory(np.array(stamps), np.linalg.inv(poses[0]) @ np.array(poses))
    write_tum(options.out / "groundtruth_tum.txt", truth)
    (options.out / "times.txt").write_text("".join(f"{stamp // 10**9}.{stamp % 10**9:09d}\n" for stamp in stamps))
    K = frame.K
    (options.out / "intrinsics.txt").write_text(
        f"# fx fy cx cy width height\n{K[0, 0]:.6f} {K[1, 1]:.6f} {K[0, 2]:.6f} {K[1, 2]:.6f} {width} {height}\n"
    )
    (options.out / "README.txt").write_text(
        README.format(
            frames=len(stamps),
            rate=options.rate,
            seed=options.seed,
            width=width,
            height=height,
            height_m=options.camera_height,
        )
    )


if __name__ == "__main__":
    main()
