"""Does Stage B work? Adapt networks on the first frames of a 7-Scenes clip without truth, and score the last ones.

    python -m benchmark.adaptation CLIP --out runs/adaptation

Writes results.json and curves.png: AbsRel of the depth (each frame scaled by its median) and the errors of the odometry
on every tenth frame, before, during and after, on frames that were not trained on. The data are for non-commercial
use, so the weights that come out are a demonstration only.
"""

import argparse
import json
import time
from pathlib import Path

import cv2
import lightning as L
import numpy as np
import torch

from depth_pose_ros.camera import PinholeCamera
from depth_pose_ros.engines.engine import FlowField
from depth_pose_ros.evaluation.depth import depth_errors
from depth_pose_ros.geometry.se3 import rotation_angle
from depth_pose_ros.odometry import Frame, VisualOdometry
from depth_pose_ros.sequences import open_sequence
from depth_pose_ros.training.adapt import network_of
from depth_pose_ros.training.frames import store_clip
from depth_pose_ros.training.stage_b import (
    PairChoice,
    StageB,
    StageBConfig,
    TermWeights,
    choose_pairs,
    fit,
    flow_field,
    inverse_depth,
)

DEPTH_CAMERA = PinholeCamera(640, 480, 585.0, 585.0, 320.0, 240.0)
COLOUR_FROM_DEPTH = np.array([-0.025, 0.0, 0.0])  # m, Kinect v1


def registered_depth(path: Path, camera: PinholeCamera) -> np.ndarray:
    """Depth image of the depth camera -> (h, w) float32 m in the colour ``camera``; 0 where nothing was measured."""
    depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.float64) / 1000.0
    depth[depth > 20.0] = 0.0  # 65.535 stands for "nothing" in some files
    y, x = np.nonzero(depth)
    points = DEPTH_CAMERA.rays(np.stack([x, y], 1)) * depth[y, x, None] + COLOUR_FROM_DEPTH
    cells = np.rint(camera.project(points)).astype(int)
    seen = ((cells >= 0) & (cells < (camera.width, camera.height))).all(1)
    cells, z = cells[seen], points[seen, 2]
    order = np.argsort(-z)  # the nearest is written last
    out = np.zeros((camera.height, camera.width), np.float32)
    out[cells[order, 1], cells[order, 0]] = z[order]
    return out


class Score:
    """Depth and motion errors on held-out frames."""

    def __init__(self, root: Path, sequence, clip, frames: range, step: int) -> None:
        self.clip, self.frames, self.step = clip, frames, step
        self.truth = {}
        self.files = {i: root / "frames" / f"frame-{i:06d}.depth.png" for i in frames}
        # Truth is of the depth camera.
        shift = np.eye(4)
        shift[:3, 3] = -COLOUR_FROM_DEPTH
        self.poses = np.asarray(sequence.ground_truth.poses) @ shift

    @torch.no_grad()
    def depth(self, network: torch.nn.Module) -> dict[str, float]:
        """Mean AbsRel and delta-1 after median scaling; spread of the scale from frame to frame."""
        network.eval()
        rows = []
        for i in self.frames:
            inverse = inverse_depth(network, tensor(self.clip.images[i]))[0, 0].numpy()
            if i not in self.truth:
                camera = self.clip.camera.resized(inverse.shape[1], inverse.shape[0])
                self.truth[i] = registered_depth(self.files[i], camera)
            errors = depth_errors(1.0 / inverse, self.truth[i], median_scaling=True, maximum=10.0)
            rows.append((errors.abs_rel, errors.delta_1, errors.scale))
        rows = np.array(rows)
        spread = float(np.std(np.log(rows[:, 2])))
        return {"abs_rel": float(rows[:, 0].mean()), "delta_1": float(rows[:, 1].mean()), "scale_spread": spread}

    @torch.no_grad()
    def odometry(self, flow: torch.nn.Module, depth: torch.nn.Module) -> dict[str, float]:
        """Errors of VisualOdometry on every ``step``-th frame: medians in degrees, and the spread of the length.

        The spread is the robust standard deviation of log(length / true length): what a scale that differs from step to
        step does to a path.
        """
        camera = self.clip.camera
        engines = TorchFlow(flow.eval(), camera.width, camera.height), TorchDepth(depth.eval(), camera)
        rotation, direction, length = [], [], []
        for start in range(0, self.step, 3):
            odometry = VisualOdometry(*engines)
            before = None
            for i in range(self.frames[0] + start, len(self.clip.images), self.step):
                image = self.clip.images[i]
                estimate = odometry.process(Frame(i, image, cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), camera))
                true = np.linalg.inv(self.poses[before]) @ self.poses[i] if before is not None else np.eye(4)
                before = i
                far = np.linalg.norm(true[:3, 3])
                if far < 0.02:
                    continue
                T = estimate.T_previous_current
                rotation.append(rotation_angle(T[:3, :3] @ true[:3, :3].T))
                t = np.linalg.norm(T[:3, 3])
                direction.append(np.arccos(np.clip(T[:3, 3] @ true[:3, 3] / max(t * far, 1e-12), -1, 1)))
                if t > 0:
                    length.append(np.log(t / far))
        off = np.abs(np.array(length) - np.median(length))
        return {
            "rotation_deg": float(np.degrees(np.median(rotation))),
            "direction_deg": float(np.degrees(np.median(direction))),
            "length_spread": float(1.4826 * np.median(off)),
        }


class TorchFlow:
    """A flow network in torch as the odometry takes one; see FlowEstimator."""

    backend = "torch"

    def __init__(self, network: torch.nn.Module, width: int, height: int) -> None:
        self.network, self.width, self.height = network, width, height

    def features(self, image: np.ndarray) -> np.ndarray:
        """The image itself."""
        return image

    @torch.no_grad()  # here too: the odometry has threads of its own
    def flow(self, first: np.ndarray, second: np.ndarray) -> FlowField:
        """Both directions."""
        out = self.network(tensor(first), tensor(second))
        sigma = None if out["sigma"] is None else out["sigma"][0]
        return flow_field(out["forward"][0], out["backward"][0], sigma, self.width)


class TorchDepth:
    """A depth network in torch as the odometry takes one; see DepthEstimator."""

    backend = "torch"

    def __init__(self, network: torch.nn.Module, camera: PinholeCamera) -> None:
        self.network, self.width, self.height = network, camera.width, camera.height

    @torch.no_grad()
    def depth(self, image: np.ndarray, fx: float | None = None) -> np.ndarray:
        """In the network's unit."""
        return 1.0 / inverse_depth(self.network, tensor(image))[0, 0].numpy()


def tensor(image: np.ndarray) -> torch.Tensor:
    """(h, w, 3) uint8 -> (1, 3, h, w) in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255.0


class Watch(L.Callback):
    """Scores the networks every so many steps."""

    def __init__(self, score: Score, every: int, curve: list) -> None:
        self.score, self.every, self.curve, self.begin = score, every, curve, time.time()

    def on_train_batch_end(self, trainer, module, *_) -> None:
        """Score, print and keep."""
        if trainer.global_step % self.every == 0:
            row = {"step": trainer.global_step, "minutes": (time.time() - self.begin) / 60}
            row |= {k: float(v) for k, v in trainer.callback_metrics.items()}
            if module.depth in module.learns:
                row |= self.score.depth(module.depth)
            row |= self.score.odometry(module.flow, module.depth)
            module.train()
            print(" ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
            self.curve.append(row)


def draw(curve: list[dict], path: Path) -> None:
    """The scores over the steps, one panel each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {
        "abs_rel": "AbsRel of depth",
        "length_spread": "spread of the step length",
        "direction_deg": "direction error, deg",
        "rotation_deg": "rotation error, deg",
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3), layout="constrained")
    for axis, (name, label) in zip(axes, panels.items()):
        values = [row[name] for row in curve]
        axis.plot([row["step"] for row in curve], values, marker="o", markersize=3)
        axis.set(xlabel="training step", title=label, ylim=(0, 1.15 * max(values)))
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--flow", default="default", help="model or checkpoint")
    parser.add_argument("--depth", default="default", help="model or checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--size", type=int, nargs=2, default=(384, 320))
    parser.add_argument("--train", type=int, default=240, help="frames before this one are trained on, the rest scored")
    parser.add_argument("--stage", default="depth")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--every", type=int, default=50)
    parser.add_argument("--weights", type=json.loads, help="TermWeights as JSON")
    parser.add_argument("--choice", type=json.loads, default={}, help="PairChoice as JSON")
    arguments = parser.parse_args()

    L.seed_everything(1, verbose=False)
    sequence = open_sequence(arguments.clip)
    clip = store_clip(sequence, arguments.out / "frames", *arguments.size)
    trained = store_clip(sequence, arguments.out / "frames_trained", *arguments.size, last=arguments.train)
    flow = network_of(arguments.flow, "flow", learns=arguments.stage != "depth")
    depth = network_of(arguments.depth, "depth", learns=True)
    score = Score(arguments.clip, sequence, clip, range(arguments.train + 10, len(clip.images), 6), step=10)
    before = {**score.depth(depth), **score.odometry(flow, depth)}
    print("before", before, flush=True)

    pairs_file = arguments.out / "pairs.npy"
    if not pairs_file.exists():
        np.save(pairs_file, choose_pairs(flow, [trained], PairChoice(**arguments.choice), 2000))
    pairs = np.load(pairs_file)
    strides, counts = np.unique(pairs[:, 2] - pairs[:, 1], return_counts=True)
    print(len(pairs), "pairs; stride: count", dict(zip(strides.tolist(), counts.tolist())), flush=True)
    config = StageBConfig(
        stage=arguments.stage,
        steps=arguments.steps,
        batch=arguments.batch,
        learning_rate=arguments.learning_rate,
        freeze_batch_norm=True,
        weights=TermWeights(**arguments.weights) if arguments.weights else None,
    )
    module = StageB(flow, depth, config, [trained], pairs)
    curve = [{"step": 0, **before}]
    fit(module, arguments.out, callbacks=[Watch(score, arguments.every, curve)], accelerator="cpu")
    after = {**score.depth(depth), **score.odometry(flow, depth)}
    print("after", after, flush=True)
    draw(curve, arguments.out / "curves.png")
    (arguments.out / "results.json").write_text(
        json.dumps({"before": before, "after": after, "curve": curve}, indent=1)
    )


if __name__ == "__main__":
    main()
