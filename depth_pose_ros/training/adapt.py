"""``depth_pose adapt``: teach the shipped networks one's own camera, from a recording without any truth."""

import argparse
import dataclasses
from pathlib import Path

from torch import nn

from depth_pose_ros.engines.manifest import find_model
from depth_pose_ros.errors import ConfigError
from depth_pose_ros.networks.registry import task_of
from depth_pose_ros.training import train
from depth_pose_ros.training.export import describe, export_network
from depth_pose_ros.training.from_model import ModelFlow, network_from_model
from depth_pose_ros.training.stage_b import StageBConfig

LEARNING_RATE = 5e-5
STEPS = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose adapt``."""
    parser.add_argument("input", nargs="*", help="recordings of the camera: folders of images, videos or ROS bags")
    parser.add_argument("--bag", action="append", default=[], metavar="PATH", help="likewise")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run and of the adapted models")
    parser.add_argument(
        "--flow", default="default", metavar="MODEL", help="model by name or file, or a checkpoint (the shipped one)"
    )
    parser.add_argument("--depth", default="default", metavar="MODEL", help="likewise")
    parser.add_argument(
        "--worlds",
        action="append",
        type=Path,
        default=[],
        metavar="POOL",
        help="rendered scenes to go on learning from beside the recording, so that they are not forgotten",
    )
    parser.add_argument("--joint", action="store_true", help="adapt the flow network too (the third stage)")
    train.add_video_arguments(parser)
    train.add_run_arguments(parser, steps=STEPS, batch=4)


def main(arguments: argparse.Namespace) -> int:
    """``depth_pose adapt``: choose pairs with parallax, adapt, export."""
    inputs = [*arguments.input, *arguments.bag]
    if not inputs:
        raise ConfigError("nothing to adapt to: name a folder of images, a video or a ROS bag")
    flow = network_of(arguments.flow, "flow", learns=arguments.joint)
    depth = network_of(arguments.depth, "depth", learns=True)
    clips = train.open_clips(inputs, arguments, max(flow.multiple_of, depth.multiple_of))
    config = StageBConfig(
        stage="joint" if arguments.joint else "depth",
        seed=arguments.seed,
        steps=arguments.steps,
        batch=arguments.batch,
        learning_rate=LEARNING_RATE if arguments.learning_rate is None else arguments.learning_rate,
        freeze_batch_norm=True,
    )
    pairs = train.pairs_for(arguments, flow, clips, config)
    module = train.run_stage_b(arguments, flow, depth, config, clips, pairs, arguments.worlds)

    size = clips[0].camera.width, clips[0].camera.height
    provenance = {
        "adapted_to": {clip.name: len(clip.images) for clip in clips},
        "pairs": len(pairs),
        "settings": dataclasses.asdict(config),
    }
    for network in module.learns:
        path = arguments.out / f"{task_of(network)}_adapted"
        facts = {"network": type(network).__name__, "config": dataclasses.asdict(network.config), **provenance}
        print(describe(export_network(network, path, facts, size, licence="as your recording")))
    return 0


def network_of(model: str, task: str, learns: bool) -> nn.Module:
    """The network of a checkpoint (.pt, .ckpt) or of a model; a model's flow that need not learn runs as it is."""
    if Path(model).suffix in (".pt", ".ckpt"):
        return train.network_for(task, Path(model), "small")
    manifest = find_model(model, task)
    return network_from_model(manifest) if learns else ModelFlow(manifest)
