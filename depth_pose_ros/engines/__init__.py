"""Run network files: models by name, backends by availability, one contract for flow and one for depth."""

from pathlib import Path

from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator, FlowField
from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.ladder import BACKENDS, may_build
from depth_pose_ros.engines.listener import Listener, Terminal
from depth_pose_ros.engines.manifest import Manifest, available_models, find_model, model_path
from depth_pose_ros.engines.self_check import SelfCheck, compare, load_self_check

__all__ = [
    "BACKENDS",
    "DepthEstimator",
    "FlowEstimator",
    "FlowField",
    "Listener",
    "Manifest",
    "NetworkDepth",
    "NetworkFlow",
    "SelfCheck",
    "Terminal",
    "available_models",
    "find_model",
    "load_depth",
    "load_flow",
    "may_build",
    "model_path",
    "self_check",
]


def load_flow(
    model: str | Path = "default",
    width: int = 0,
    height: int = 0,
    backend: str = "auto",
    threads: int = 0,
    engine: EngineConfig | None = None,
    listener: Listener | None = None,
) -> NetworkFlow:
    """A flow network for images of width x height (0: the size its manifest recommends).

    model: a name in :func:`available_models`, the path of a manifest or ONNX file, or ``default``.
    backend: one of ``BACKENDS``; ``auto`` takes the best that works here. What runs is in ``.backend``, and why nothing
        better does in ``.backend_reasons``.
    threads: of the CPU; 0: chosen from the cores.
    engine:  how TensorRT engines are built and kept. Building one takes minutes; ``listener`` hears how it goes.

    ModelError: no such model, corrupt files, or a size it cannot take. EngineError: no backend can run it here.
    """
    manifest = find_model(model, "flow")
    width, height = _size(manifest.recommended_size, width, height)
    return NetworkFlow(manifest, width, height, backend, threads, engine, listener)


def load_depth(
    model: str | Path = "default",
    width: int = 0,
    height: int = 0,
    backend: str = "auto",
    threads: int = 0,
    engine: EngineConfig | None = None,
    listener: Listener | None = None,
) -> NetworkDepth:
    """A depth network for images of width x height; arguments and errors as in :func:`load_flow`.

    Images are brought to the size that the network was trained for first (``trained_size`` of its manifest), in their
    own shape: what is known of the sizes of things on the image is known at that scale.
    """
    manifest = find_model(model, "depth")
    width, height = _size(manifest.recommended_size, width, height)
    manifest.check_size(width, height)
    network = NetworkDepth(manifest, *manifest.input_size(width, height), backend, threads, engine, listener)
    network.take(width, height)
    return network


def self_check(manifest: Manifest, backend: str = "auto", threads: int = 0) -> SelfCheck:
    """Run the stored images through a backend and compare with the stored outputs.

    ModelError when the stored pair is missing or unreadable, EngineError when the backend cannot run the network. A
    network that merely disagrees is an outcome, not an error.
    """
    stored = load_self_check(manifest)
    images = [stored[name] for name in manifest.inputs.names]
    height, width = images[0].shape[:2]
    network = (NetworkFlow if manifest.task == "flow" else NetworkDepth)(manifest, width, height, backend, threads)
    return compare(manifest, network.backend, network.outputs(*images), stored)


def _size(recommended: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    return width or recommended[0], height or recommended[1]
