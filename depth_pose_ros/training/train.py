"""``depth_pose train``: flow and depth from rendered worlds (Stage A) or from video without truth (Stage B)."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from depth_pose_ros.camera import network_size, size_of_area
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.networks.registry import build_network, load_network, save_network, task_of
from depth_pose_ros.sequences import open_sequence
from depth_pose_ros.training import stage_a, stage_b
from depth_pose_ros.training.augment import depth_item
from depth_pose_ros.training.frames import Clip, close_pairs, store_clip
from depth_pose_ros.worlds.pool import PoolDataset, read_sample
from depth_pose_ros.worlds.scenes import KINDS

FAMILIES = {
    "small": {"flow": "MatchingFlow", "depth": "SmallDepth"},
    "paper": {"flow": "PaperFlow", "depth": "PaperDepth"},
}
WORLDS = "worlds:"
AREA = (640, 192)
"""Video is used at about so many pixels, in its own shape: what the shipped models recommend."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose train``."""
    parser.add_argument(
        "task",
        choices=("flow", "depth", "joint"),
        help="what learns; on video these are the three stages of TrianFlow: flow from the images, depth from what the "
        "frozen flow triangulates to, then both together",
    )
    parser.add_argument(
        "--data",
        action="append",
        required=True,
        metavar="worlds:POOL|PATH",
        help="a pool of rendered scenes (python -m depth_pose_ros.worlds.pool), or a folder of images, a video or a "
        "ROS bag; may be repeated. Pools alone: supervised. Video: without truth, and depth learns from pools beside "
        "it where given",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an interrupted run goes on there")
    parser.add_argument(
        "--network", choices=sorted(FAMILIES), default="small", help="what to start from scratch (small)"
    )
    parser.add_argument(
        "--flow", type=Path, metavar="CHECKPOINT", help="flow network to start from, or to learn depth with"
    )
    parser.add_argument("--depth", type=Path, metavar="CHECKPOINT", help="depth network to start from")
    add_worlds_arguments(parser)
    add_video_arguments(parser)
    add_run_arguments(parser, steps=10_000, batch=8)


def add_worlds_arguments(parser: argparse.ArgumentParser) -> None:
    """How rendered scenes are cut."""
    group = parser.add_argument_group("worlds")
    group.add_argument(
        "--sizes", type=size, nargs="+", metavar="WxH",
        help="sizes of the crops as the network sees them, one drawn per batch "
        f"({', '.join(f'{name}: ' + ' '.join(f'{w}x{h}' for w, h in sizes) for name, sizes in stage_a.SIZES.items())})",
    )  # fmt: skip


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    """How video is read."""
    group = parser.add_argument_group("video")
    group.add_argument(
        "--camera", nargs="+", metavar="V", help="fx fy cx cy in pixels of the images, or camera_info YAML"
    )
    group.add_argument("--topic", help="image topic of a bag; or the camera's folder where there are several")
    group.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("W", "H"),
        help="input size (default: about 640 x 192 pixels in all, in the image's shape)",
    )
    group.add_argument(
        "--strides", type=int, nargs="+", default=list(stage_b.PairChoice.strides), metavar="N",
        help="how many frames apart the two of a pair may be",
    )  # fmt: skip
    group.add_argument("--max-frames", type=int, metavar="N", help="use the first N frames of each")


def add_run_arguments(parser: argparse.ArgumentParser, steps: int, batch: int) -> None:
    """How a run is done; the last ones are Lightning's."""
    group = parser.add_argument_group("run")
    group.add_argument("--steps", type=int, default=steps, help=f"({steps})")
    group.add_argument("--batch", type=int, default=batch, help=f"per device ({batch})")
    group.add_argument("--learning-rate", type=float)
    group.add_argument("--seed", type=int, default=1, help="(1)")
    group.add_argument("--workers", type=int, default=0, help="loader processes (0: in the training process)")
    group.add_argument("--accelerator", default="auto", help="cpu, gpu, auto ... (auto)")
    group.add_argument("--devices", default="auto", help="how many (auto)")
    group.add_argument("--num-nodes", type=int, default=1, help="(1)")
    group.add_argument("--precision", default="32-true", help="e.g. bf16-mixed (32-true)")


def main(arguments: argparse.Namespace) -> int:
    """``depth_pose train``."""
    pools = [Path(text.removeprefix(WORLDS)) for text in arguments.data if text.startswith(WORLDS)]
    videos = [text for text in arguments.data if not text.startswith(WORLDS)]
    if videos:
        train_on_video(arguments, videos, pools)
    else:
        train_on_worlds(arguments, pools)
    print(f"{arguments.out}: {', '.join(sorted(p.name for p in arguments.out.glob('*.pt')))}")
    return 0


def size(text: str) -> tuple[int, int]:
    """320x96 -> (320, 96)."""
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) >= 16 and int(height) >= 16):
        raise argparse.ArgumentTypeError(f"{text!r} is no size: expected WIDTHxHEIGHT of at least 16x16, as 320x96")
    return int(width), int(height)


def train_on_worlds(arguments: argparse.Namespace, pools: Sequence[Path]) -> None:
    """Stage A."""
    if arguments.task == "joint":
        raise ConfigError(
            "joint training is for video: worlds tell the truth of both, so train flow and depth by themselves"
        )
    start = arguments.flow if arguments.task == "flow" else arguments.depth
    network = network_for(arguments.task, start, arguments.network)
    config = stage_a.TrainingConfig(
        seed=arguments.seed,
        steps=arguments.steps,
        batch=arguments.batch,
        sizes=tuple(arguments.sizes or stage_a.SIZES[type(network).__name__]),
        **given_learning_rate(arguments),
    )
    network = stage_a.fit(
        arguments.task, pools, arguments.out, config, network, arguments.workers, **trainer_options(arguments)
    )
    save_network(network, arguments.out / f"{arguments.task}.pt", {"stage_a": asdict(config)})


def train_on_video(arguments: argparse.Namespace, videos: Sequence[str], pools: Sequence[Path]) -> None:
    """Stage B."""
    if arguments.task != "flow" and arguments.flow is None:
        raise ConfigError(
            "depth learns from what a flow network triangulates: give --flow CHECKPOINT (depth_pose train flow)"
        )
    flow = network_for("flow", arguments.flow, arguments.network)
    depth = network_for("depth", arguments.depth, arguments.network)
    clips = open_clips(videos, arguments, max(flow.multiple_of, depth.multiple_of))
    config = stage_b.StageBConfig(
        stage=arguments.task,
        seed=arguments.seed,
        steps=arguments.steps,
        batch=arguments.batch,
        **given_learning_rate(arguments),
    )
    pairs = pairs_for(arguments, flow, clips, config)
    run_stage_b(arguments, flow, depth, config, clips, pairs, pools)


def run_stage_b(
    arguments: argparse.Namespace,
    flow: nn.Module,
    depth: nn.Module,
    config: stage_b.StageBConfig,
    clips: Sequence[Clip],
    pairs: np.ndarray,
    pools: Sequence[Path],
) -> stage_b.StageB:
    """One stage on clips, with the pools beside them where depth learns."""
    extra = WorldItems(pools, depth, clips[0]) if pools and config.stage != "flow" else None
    module = stage_b.StageB(flow, depth, config, clips, pairs, extra=extra, workers=arguments.workers)
    return stage_b.fit(module, arguments.out, callbacks=[stage_a.LogLine()], **trainer_options(arguments))


class WorldItems:
    """Rendered depth images at the size of a clip: what a network that learns from video should not forget."""

    def __init__(self, pools: Sequence[Path], depth: nn.Module, clip: Clip) -> None:
        self.files = PoolDataset(*pools, kinds=set(KINDS)).files
        # SmallDepth looks at a shrunk image of the size it was trained for; Stage A and this render it as such.
        shrink, size = getattr(depth.config, "shrink", 1), (clip.camera.width, clip.camera.height)
        width, height = size_of_area(size, getattr(depth, "trained_size", size), depth.multiple_of)
        self.size = width // shrink, height // shrink
        self.focal = getattr(depth.config, "reference_focal", clip.camera.fx) / shrink

    def __call__(self, rng: np.random.Generator) -> dict[str, Tensor]:
        sample = read_sample(self.files[int(rng.integers(len(self.files)))])
        item = depth_item(rng, sample, *self.size, self.focal)
        return {"world_image": item["image"], "world_depth": item["depth"]}


def network_for(task: str, checkpoint: Path | None, family: str) -> nn.Module:
    """The network of a checkpoint, or a new one."""
    if checkpoint is None:
        return build_network(FAMILIES[family][task])
    network, _ = load_network(checkpoint)
    if task_of(network) != task:
        raise ConfigError(
            f"{checkpoint} holds a {task_of(network)} network ({type(network).__name__}); expected {task}"
        )
    return network


def open_clips(paths: Sequence[str], arguments: argparse.Namespace, multiple_of: int) -> list[Clip]:
    """Each input at the networks' size, in ``out/frames``; the size is that of the first where none was given."""
    clips, size = [], arguments.size
    for path in paths:
        sequence = open_sequence(path, camera=arguments.camera, topic=arguments.topic)
        if size is None and sequence.camera is not None:
            size = network_size((sequence.camera.image_width, sequence.camera.image_height), AREA, multiple_of)
        clips.append(store_clip(sequence, arguments.out / "frames", *(size or (0, 0)), last=arguments.max_frames))
        print(f"{clips[-1].name}: {len(clips[-1].images)} frames at {size[0]} x {size[1]}", flush=True)
    return clips


def pairs_for(
    arguments: argparse.Namespace, flow: nn.Module, clips: Sequence[Clip], config: stage_b.StageBConfig
) -> np.ndarray:
    """Pairs of the stage; those of depth are chosen once, and kept in ``out/pairs.npy`` for a run that goes on."""
    if config.stage == "flow":
        return close_pairs(clips, arguments.strides)
    kept = arguments.out / "pairs.npy"
    if not kept.exists():
        choice = stage_b.PairChoice(strides=tuple(arguments.strides))
        device = "cuda" if torch.cuda.is_available() and arguments.accelerator != "cpu" else "cpu"
        np.save(kept, stage_b.choose_pairs(flow, clips, choice, config.max_matches, device))
    pairs = np.load(kept)
    apart = np.median(pairs[:, 2] - pairs[:, 1])
    print(f"{len(pairs)} pairs with enough parallax, {apart:.0f} frames apart in the median", flush=True)
    return pairs


def given_learning_rate(arguments: argparse.Namespace) -> dict[str, float]:
    """The one that was given, if any."""
    return {} if arguments.learning_rate is None else {"learning_rate": arguments.learning_rate}


def trainer_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What goes to Lightning's Trainer."""
    return {
        "accelerator": arguments.accelerator,
        "devices": int(arguments.devices) if str(arguments.devices).isdigit() else arguments.devices,
        "num_nodes": arguments.num_nodes,
        "precision": arguments.precision,
    }
