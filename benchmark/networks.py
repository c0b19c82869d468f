"""How good the networks are: flow beside OpenCV's DIS, depth beside the best guess that only knows the image row.

usage: python -m benchmark.networks [--flow NAME] [--depth NAME] [--worlds POOL] [--data FOLDER] [--out FILE.json]

POOL is a folder of held-out rendered samples (seeds that no training saw). FOLDER holds the real clips, of which those
present are used: flow_middlebury_rubberwhale, kitti_raw_traffic_78, 7scenes_redkitchen_400.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from depth_pose_ros.engines import load_depth, load_flow
from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator
from depth_pose_ros.evaluation.depth import depth_errors
from depth_pose_ros.evaluation.flow import read_flo


def upsampled(flow: np.ndarray, width: int, height: int) -> np.ndarray:
    """Flow (h, w, 2) at native stride, values in pixels of the full size -> (height, width, 2), bilinear."""
    return cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)


def dis_flow(image_1: np.ndarray, image_2: np.ndarray) -> np.ndarray:
    """OpenCV's DIS, preset medium."""
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(cv2.cvtColor(image_1, cv2.COLOR_BGR2GRAY), cv2.cvtColor(image_2, cv2.COLOR_BGR2GRAY), None)


def summary(errors: list[np.ndarray]) -> dict[str, float]:
    """End-point error and share under 1 px over all pixels given."""
    e = np.concatenate(errors) if errors else np.array([np.nan])
    return {
        "epe": round(float(e.mean()), 3),
        "median": round(float(np.median(e)), 3),
        "under_1px": round(float((e < 1).mean()), 4),
    }


def flow_on_worlds(flow: FlowEstimator, samples: list) -> dict:
    """Visible pixels of held-out samples, split by the size of the motion: small is a mean true flow under 8 px."""
    rows: dict[str, dict[str, list]] = {}
    for sample in samples:
        images = [np.ascontiguousarray(np.asarray(i).transpose(1, 2, 0)) for i in (sample.image_1, sample.image_2)]
        height, width = images[0].shape[:2]
        w, h = width // 16 * 16, height // 16 * 16
        images = [np.ascontiguousarray(i[:h, :w]) for i in images]
        truth = np.asarray(sample.flow_forward)[:, :h, :w].transpose(1, 2, 0).astype(np.float32)
        visible = ~np.asarray(sample.occluded_1)[:h, :w].astype(bool)
        target = np.mgrid[0:h, 0:w][::-1].transpose(1, 2, 0) + truth
        visible &= (target[..., 0] >= 0) & (target[..., 0] <= w - 1) & (target[..., 1] >= 0) & (target[..., 1] <= h - 1)
        if visible.sum() < 100 or (w, h) != (flow.width, flow.height):
            continue
        length = np.linalg.norm(truth, axis=2)[visible].mean()
        size = "large" if length >= 8.0 else "small"
        ours = upsampled(flow.flow(flow.features(images[0]), flow.features(images[1])).forward, w, h)
        for name, estimate in (("ours", ours), ("dis", dis_flow(*images))):
            error = np.linalg.norm(estimate - truth, axis=2)[visible]
            rows.setdefault(f"{sample.kind}/{size}", {}).setdefault(name, []).append(error)
            rows.setdefault(f"all/{size}", {}).setdefault(name, []).append(error)
    return {
        kind: {name: summary(e) for name, e in by.items()} | {"pairs": len(by["ours"])}
        for kind, by in sorted(rows.items())
    }


def flow_on_rubberwhale(folder: Path, model: str) -> dict:
    """Middlebury RubberWhale, 584x388, padded by reflection to the network's multiple."""
    images = [cv2.imread(str(folder / f"frame1{i}.png")) for i in (0, 1)]
    truth = read_flo(folder / "flow10.flo")
    height, width = truth.shape[:2]
    w, h = -(-width // 16) * 16, -(-height // 16) * 16
    padded = [cv2.copyMakeBorder(i, 0, h - height, 0, w - width, cv2.BORDER_REFLECT_101) for i in images]
    flow = load_flow(model, w, h)
    ours = upsampled(flow.flow(flow.features(padded[0]), flow.features(padded[1])).forward, w, h)[:height, :width]
    known = np.isfinite(truth).all(axis=2)
    return {
        name: summary([np.linalg.norm(estimate - truth, axis=2)[known]])
        for name, estimate in (("ours", ours), ("dis", dis_flow(*images)))
    }


def kitti_traffic(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and sparse LiDAR depth (m)."""
    for path in sorted(folder.glob("image_02/*.png")):
        depth = cv2.imread(str(folder / "lidar_depth_u16_256" / path.name), cv2.IMREAD_UNCHANGED)
        if depth is not None:
            yield cv2.imread(str(path)), depth.astype(np.float32) / 256.0


def seven_scenes(folder: Path, every: int = 10) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images and Kinect depth (m), every n-th frame. The depth image is mapped to the colour camera's focal length."""
    paths = sorted(folder.glob("frames/frame-*.color.*"))
    for path in paths[::every]:
        depth = cv2.imread(str(path).split(".color.")[0] + ".depth.png", cv2.IMREAD_UNCHANGED)
        if depth is None:
            continue
        depth = depth.astype(np.float32) / 1000.0
        depth[depth > 20.0] = 0.0
        zoom = np.array([[525 / 585, 0, 320 - 320 * 525 / 585], [0, 525 / 585, 240 - 240 * 525 / 585]])
        yield cv2.imread(str(path)), cv2.warpAffine(depth, zoom, (640, 480), flags=cv2.INTER_NEAREST)


def row_guess(truths: list[np.ndarray]) -> np.ndarray:
    """(H,) the depth per image row that fits all images best: the median over images scaled to their median."""
    stack = np.stack([t / np.median(t[t > 0]) for t in truths])
    stack[stack <= 0] = np.nan
    with np.errstate(all="ignore"):
        rows = np.nanmedian(stack.reshape(len(truths), *stack.shape[1:]), axis=(0, 2))
    known = np.isfinite(rows)
    return np.interp(np.arange(len(rows)), np.flatnonzero(known), rows[known])


def depth_on(pairs: Iterator[tuple[np.ndarray, np.ndarray]], depth: DepthEstimator, maximum: float) -> dict:
    """AbsRel and delta-1 after median scaling, ours beside the row guess, mean over images."""
    ours, truths = [], []
    for image, truth in pairs:
        small = cv2.resize(image, (depth.width, depth.height), interpolation=cv2.INTER_AREA)
        estimate = depth.depth(small)
        size = (truth.shape[1], truth.shape[0])
        ours.append(
            depth_errors(cv2.resize(estimate, size, interpolation=cv2.INTER_LINEAR), truth, True, 1e-3, maximum)
        )
        truths.append(truth)
    rows = row_guess(truths)
    guess = [
        depth_errors(np.repeat(rows[:, None], t.shape[1], 1).astype(np.float32), t, True, 1e-3, maximum) for t in truths
    ]
    mean = lambda errors: {k: round(float(np.mean([getattr(e, k) for e in errors])), 4) for k in ("abs_rel", "delta_1")}  # noqa: E731
    return {"ours": mean(ours), "row_guess": mean(guess), "images": len(truths)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", default="default")
    parser.add_argument("--depth", default="default")
    parser.add_argument("--worlds", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    result: dict = {}
    if args.worlds:
        from depth_pose_ros.worlds.pool import PoolDataset

        samples = list(PoolDataset(args.worlds))
        by_size: dict[tuple[int, int], list] = {}
        for s in samples:
            by_size.setdefault((s.image_1.shape[2], s.image_1.shape[1]), []).append(s)
        for (width, height), some in by_size.items():
            flow = load_flow(args.flow, width // 16 * 16, height // 16 * 16)
            result[f"flow worlds {width}x{height}"] = flow_on_worlds(flow, some)
            some = [s for s in some if s.kind != "layered"]
            if some:
                depth = load_depth(args.depth, width // 64 * 64, height // 64 * 64)
                pairs = (
                    (
                        np.ascontiguousarray(np.asarray(s.image_1).transpose(1, 2, 0)),
                        np.nan_to_num(np.asarray(s.depth_1), posinf=0.0),
                    )
                    for s in some
                )
                result[f"depth worlds {width}x{height}"] = depth_on(pairs, depth, 80.0)
    if (args.data / "flow_middlebury_rubberwhale").is_dir():
        result["flow rubberwhale"] = flow_on_rubberwhale(args.data / "flow_middlebury_rubberwhale", args.flow)
    if (args.data / "kitti_raw_traffic_78").is_dir():
        depth = load_depth(args.depth, 640, 192)
        result["depth kitti_raw_traffic_78"] = depth_on(kitti_traffic(args.data / "kitti_raw_traffic_78"), depth, 80.0)
    if (args.data / "7scenes_redkitchen_400").is_dir():
        depth = load_depth(args.depth, 448, 320)
        result["depth 7scenes"] = depth_on(seven_scenes(args.data / "7scenes_redkitchen_400"), depth, 20.0)
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
