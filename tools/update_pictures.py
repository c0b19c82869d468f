"""Makes the pictures of README and docs anew, from the shipped weights and the drive that this package rendered itself.

    python tools/update_pictures.py                     all of them: some minutes
    python tools/update_pictures.py --only animation    one: demo, stages, report or animation

Needs what `make test` installs; the report's picture also needs chromium. Nothing photographed is used.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from depth_pose_ros import cli  # noqa: E402
from depth_pose_ros import run as run_command  # noqa: E402
from depth_pose_ros.demo import pictures  # noqa: E402
from depth_pose_ros.evaluation import figures  # noqa: E402
from depth_pose_ros.geometry.correspondences import score  # noqa: E402
from depth_pose_ros.geometry.point_cloud import PointCloud  # noqa: E402
from depth_pose_ros.geometry.se3 import inverse  # noqa: E402
from depth_pose_ros.images import flow_picture, matches_picture  # noqa: E402
from depth_pose_ros.sequences import open_sequence  # noqa: E402

IMAGES = ROOT / "docs" / "images"
DRIVE = ROOT / "demo" / "street_drive"
STAGES_OF = 40  # frame of the drive
PACE, TURN = 4.0, 40  # pictures per second of the animation, and how many go round the whole: 30 s with the drive
SIZE = (660, 330)
LARGEST = 1.9e6  # bytes
LAST = 45  # frames whose clouds the animation keeps
PATH, TRUTH = (91, 73, 209), (177, 165, 154)  # BGR


def run_on(folder: Path, out: Path, watch, *options: str) -> run_command.Results:
    """``depth_pose run`` on a folder, with something that watches each frame."""
    from rich.console import Console

    parser = argparse.ArgumentParser()
    run_command.add_arguments(parser)
    arguments = parser.parse_args([str(folder), "--out", str(out), *options])
    results, failure = run_command.process(arguments, open_sequence(folder, keep_gray=True), [watch], Console())
    if failure:
        raise SystemExit(failure)
    return results


def demo(out: Path) -> None:
    """The three pictures of `make demo`."""
    subprocess.run([sys.executable, "-m", "depth_pose_ros.demo", "--out", str(out)], cwd=ROOT, check=True)
    for name in ("trajectory", "frames", "cloud"):
        shutil.copy(out / f"{name}.png", IMAGES / f"{name}.png")


def stages(out: Path) -> None:
    """One frame, stage by stage, for docs/how_it_works.md."""
    seen = []
    run_on(DRIVE, out, lambda frame, estimate: seen.append((frame, estimate)), "--max-frames", str(STAGES_OF + 1))
    frame, e = seen[-1]
    image = frame.image
    height, width = image.shape[:2]
    scale = width / frame.camera.width
    trust = np.minimum(score(e.flow), 5.0)
    chosen = image.copy()
    for point in np.round(e.points_2 * scale).astype(int).tolist():
        cv2.circle(chosen, point, 2, (40, 220, 250), -1, cv2.LINE_AA)
    agreeing = matches_picture(image, e.points_1 * scale, e.points_2 * scale, e.inlier_mask, most=len(e.points_2))
    panels = [
        ("1  image, rectified and resized", image),
        ("2  optical flow to it: hue is direction", cv2.resize(flow_picture(e.flow.forward), (width, height))),
        (
            "3  how far each vector is trusted (black: not)",
            colour(trust, cv2.COLORMAP_MAGMA, image),
        ),
        (f"3  {len(e.points_2)} matches, spread over the image", chosen),
        (f"4  {e.inliers} agree with one motion (green)", agreeing),
        ("5  depth, in the scale of the motion", colour(-np.log(e.depth), cv2.COLORMAP_TURBO, image)),
    ]
    figure = figures.Figure(figsize=(13, 6.4), layout="constrained")
    for axes, (title, picture) in zip(figure.subplots(3, 2).ravel(), panels):
        axes.imshow(picture[..., ::-1])
        axes.set_title(title, loc="left", fontsize=12, color=figures.INK)
        axes.set_axis_off()
    (IMAGES / "stages.jpg").write_bytes(figures.jpeg(figure))


def colour(values: np.ndarray, colours: int, like: np.ndarray) -> np.ndarray:
    """(h, w) -> BGR of the size of an image, from the 1st to the 99th percentile."""
    low, high = np.nanpercentile(values, [1, 99])
    levels = np.nan_to_num(255 * np.clip((values - low) / max(high - low, 1e-9), 0, 1)).astype(np.uint8)
    return cv2.applyColorMap(cv2.resize(levels, like.shape[1::-1], interpolation=cv2.INTER_LINEAR), colours)


def report(out: Path) -> None:
    """The top of the report of the drive, as a browser shows it."""
    browsers = ("chromium", "chromium-browser", "google-chrome")
    browser = next((path for name in browsers if (path := shutil.which(name))), "")
    if not browser:
        print("no chromium: docs/images/report.png stays as it is")
        return
    options = ["--scale-source", "camera_height", "--camera-height", "1.5", "--out", str(out)]
    cli.main(["evaluate", str(DRIVE), *options])
    shot = out / "report.png"
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1400"]
    page = (out / "report.html").resolve().as_uri()
    subprocess.run([browser, *words, f"--screenshot={shot}", page], check=True, capture_output=True)
    image = cv2.imread(str(shot))[:1250]
    cv2.imwrite(str(IMAGES / "report.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 9])


class Animation:
    """Image, flow and depth on the left; on the right the clouds so far, seen from behind the camera."""

    def __init__(self, truth: np.ndarray) -> None:
        """``truth``: (N, 4, 4) T_first_camera."""
        self.pictures: list[np.ndarray] = []
        self._truth = truth
        self._poses: list[np.ndarray] = []
        self._clouds: list[pictures.Cloud] = []
        self._left = np.empty(0)
        self._reach = 0.0

    def add(self, frame, estimate) -> None:
        """One frame of the run."""
        self._poses.append(estimate.T_odom_camera)
        depth, image = estimate.depth, frame.image
        if depth is None or estimate.flow is None:
            return
        small = cv2.resize(image, depth.shape[::-1], interpolation=cv2.INTER_AREA)
        xyz = PointCloud(estimate.camera).xyz(depth)[::2, ::2].reshape(-1, 3)
        self._clouds.append(pictures.placed_cloud(xyz, small[::2, ::2].reshape(-1, 3), estimate.T_odom_camera))
        self._reach = self._reach or float(np.percentile(xyz[:, 2], 60))
        side, third = SIZE[0] * 9 // 20, SIZE[1] // 3
        parts = [image, flow_picture(estimate.flow.forward), colour(-np.log(depth), cv2.COLORMAP_TURBO, image)]
        self._left = np.vstack([cv2.resize(p, (side, third), interpolation=cv2.INTER_AREA) for p in parts])
        for row, name in enumerate(("image", "optical flow", "depth")):
            write(self._left, name, (8, third * row + 20))
        T = self._poses[-1]
        eye = T[:3, 3] + T[:3, :3] @ (self._reach * np.array([0.0, -0.35, -0.6]))
        told = f"frame {len(self._poses) - 1}   {estimate.state.value}   {estimate.inliers} inliers"
        self._draw(self._clouds[-LAST:], eye, eye + T[:3, :3] @ np.array([0.0, 0.35, 1.0]), told)

    def turn(self, count: int) -> None:
        """The camera that looks at it goes round the whole path."""
        path = np.array([pose[:3, 3] for pose in self._poses])
        middle, size = path[[0, -1]].mean(axis=0), np.ptp(path, axis=0).max()
        for angle in np.linspace(0, np.pi, count):
            eye = middle + size * np.array([-0.9 * np.sin(angle), -0.8, -0.9 * np.cos(angle)])
            self._draw(self._clouds[:: max(1, len(self._clouds) // LAST)], eye, middle, "the whole drive")

    def _draw(self, clouds: list[pictures.Cloud], eye: np.ndarray, target: np.ndarray, told: str) -> None:
        right = self._seen_from(clouds, eye, target, SIZE[0] - self._left.shape[1], self._left.shape[0])
        write(right, "cloud, path (red), true path (gray)", (8, 20))
        write(right, told, (8, right.shape[0] - 12))
        self.pictures.append(np.hstack([self._left, right]))

    def _seen_from(
        self, clouds: list[pictures.Cloud], eye: np.ndarray, target: np.ndarray, width: int, height: int
    ) -> np.ndarray:
        """Nearer points in front; down is down of the first camera."""
        cloud = pictures.Cloud(
            *(np.concatenate([getattr(c, n) for c in clouds]) for n in ("points", "colours", "sizes"))
        )
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross([0.0, 1.0, 0.0], forward)
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        focal = 0.75 * width

        def project(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            seen = (points - eye) @ R.T
            depth = np.maximum(seen[:, 2], 1e-6)
            return seen[:, :2] / depth[:, None] * focal + (width / 2, 0.45 * height), seen[:, 2]

        picture = np.full((height, width, 3), 250, np.uint8)
        pixels, distance = project(cloud.points)
        keep = distance > 0.05 * self._reach
        radius = np.clip(np.ceil(0.7 * cloud.sizes[keep] / distance[keep] * focal), 1, 3).astype(int)
        pictures.splat(picture, pixels[keep], distance[keep], cloud.colours[keep], radius)
        ours = np.array([pose[:3, 3] for pose in self._poses])
        theirs = self._truth[: len(ours), :3, 3]
        theirs = theirs * ((ours * theirs).sum() / max((theirs * theirs).sum(), 1e-9))
        for positions, shade, thickness in ((theirs, TRUTH, 4), (ours, PATH, 2)):
            pixels, distance = project(positions)
            line = np.round(pixels[distance > 0.05 * self._reach] * 16).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(picture, [line], False, shade, thickness, cv2.LINE_AA, shift=4)
        return picture


def write(picture: np.ndarray, text: str, at: tuple[int, int]) -> None:
    """Dark letters on a light patch."""
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 1)
    x, y = at
    cv2.rectangle(picture, (x - 4, y - height - 4), (x + width + 4, y + below), (250, 250, 250), -1)
    cv2.putText(picture, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (41, 31, 31), 1, cv2.LINE_AA)


def animation(out: Path) -> None:
    """docs/images/drive.webp: the drive at half its pace, then once round it."""
    from PIL import Image

    truth = open_sequence(DRIVE).ground_truth.poses
    made = Animation(inverse(truth[0]) @ truth)
    run_on(DRIVE, out, made.add)
    made.turn(TURN)
    frames = [Image.fromarray(np.ascontiguousarray(p[..., ::-1])) for p in made.pictures]
    path = out / "drive.webp"
    out.mkdir(parents=True, exist_ok=True)
    for quality in (50, 35, 20, 8):
        more = dict(save_all=True, append_images=frames[1:], duration=round(1e3 / PACE), loop=0, method=3)
        frames[0].save(path, quality=quality, **more)
        print(f"{path.stat().st_size / 1e6:.2f} MB at quality {quality}, {len(frames) / PACE:.0f} s")
        if path.stat().st_size < LARGEST:
            shutil.move(path, IMAGES / path.name)
            return
    raise SystemExit("the animation is too large at the lowest quality: make SIZE smaller")


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("demo", "stages", "report", "animation"), help="one of them alone")
    options = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for make in (demo, stages, report, animation):
            if options.only in (None, make.__name__):
                make(Path(folder) / make.__name__)


if __name__ == "__main__":
    main()
