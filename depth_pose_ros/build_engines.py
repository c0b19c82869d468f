"""``depth_pose build-engines``: compile the TensorRT engines of this machine beforehand.

A node that finds none builds it at its start, which takes minutes; a robot that must start at once, or an image that is
shipped, has them built by this command.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from depth_pose_ros.config import EngineConfig, NetworkConfig, tunables
from depth_pose_ros.errors import EngineError
from depth_pose_ros.options import add_option, configured, parse_size

if TYPE_CHECKING:
    from depth_pose_ros.engines.manifest import Manifest

OPTIONS = {
    NetworkConfig: ("flow_model", "depth_model"),
    EngineConfig: ("engine_cache", "engine_precision", "engine_workspace"),
}
"""The tunables that become options, by config class."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose build-engines``."""
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--size", type=parse_size, metavar="WxH", help="the networks' input size (default: theirs)")
    shape.add_argument(
        "--image-size", type=parse_size, metavar="WxH", help="size of the camera's images: the input size nodes choose"
    )
    parser.add_argument(
        "--build-only",
        action="store_true",
        help="build, but run nothing: no self-check (each start makes one); TensorRT-RTX needs no GPU for that",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="build nothing; print each engine's key, and whether it is there"
    )
    for config, names in OPTIONS.items():
        for item in tunables(config):
            if item.name in names:
                add_option(parser, item)


def build(arguments: argparse.Namespace) -> int:
    """0 when every engine is there. EngineError tells which cannot be built, and why."""
    from depth_pose_ros.camera import network_size
    from depth_pose_ros.engines import Terminal, find_model, tensorrt
    from depth_pose_ros.engines.cache import EngineCache, cache_folder
    from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow

    engine = configured(EngineConfig, arguments, OPTIONS[EngineConfig])
    manifests = [find_model(arguments.flow_model, "flow")]
    if arguments.depth_model != "none":
        manifests.append(find_model(arguments.depth_model, "depth"))
    width, height = arguments.size or manifests[0].recommended_size
    if arguments.image_size:
        multiple = math.lcm(*(manifest.inputs.multiple_of for manifest in manifests))
        width, height = network_size(arguments.image_size, manifests[0].recommended_size, multiple)
    for manifest in manifests:
        manifest.check_size(width, height)
    sizes = [manifest.input_size(width, height) for manifest in manifests]

    if not (arguments.dry_run or arguments.build_only):
        for manifest, (width, height) in zip(manifests, sizes):
            network = NetworkFlow if manifest.task == "flow" else NetworkDepth
            opened = network(manifest, width, height, "tensorrt", 0, engine, Terminal())
            print(f"{manifest.name} is ready at {width}x{height} on {opened.backend}")
        return 0
    library = tensorrt.find_library()
    cache = EngineCache(cache_folder(engine.engine_cache))
    for manifest, (width, height) in zip(manifests, sizes):
        for precision in precisions(manifest, engine):
            if arguments.build_only:
                path = tensorrt.build_engine(manifest.graph, width, height, precision, engine, Terminal())
                print(f"{path} is ready, unchecked")
                continue
            key = tensorrt.engine_key(manifest.graph, width, height, precision, library)
            print(f"{key}: {cache.plan_path(key)}")
            print(f"  {cache.problem(key) or 'is there'}")
            print(f"  {tensorrt.count_layers(library, manifest.graph, key)} layers, as {library} reads it")
            for name, value in {**key.to_dict(), "key": key.digest}.items():
                print(f"  {name + ':':20}{value}")
    return 0


def precisions(manifest: Manifest, engine: EngineConfig) -> list[str]:
    """Those whose engines a start may need: with auto also fp32, in case fp16 does not pass its self-check."""
    wanted = ("fp16", "fp32") if engine.engine_precision == "auto" else (engine.engine_precision,)
    if missing := [p for p in wanted if p not in manifest.files and engine.engine_precision != "auto"]:
        raise EngineError(f"{manifest.name} has no {missing[0]} file; export it again")
    return [precision for precision in wanted if precision in manifest.files]
