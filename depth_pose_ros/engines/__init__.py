"""Run network files: models by name, backends by availability, one contract for flow and one for depth."""

from pathlib import Path

from depth_pose_ros.engines.engine import DepthEstimator, FlowEstimator, FlowField
from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.ladder import BACKENDS
from depth_pose_ros.engines.manifest import available_models, find_model, model_path
from depth_pose_ros.engines.self_check import SelfCheck, self_check

__all__ = [
    "BACKENDS",
    "DepthEstimator",
    "FlowEstimator",
    "FlowField",
    "SelfCheck",
    "available_models",
    "find_model",
    "load_depth",
    "load_flow",
    "model_path",
    "self_check",
]


def load_flow(
    model: str | Path = "default", width: int = 0, height: int = 0, backend: str = "auto", threads: int = 0
) -> NetworkFlow:
    """A flow network for images of width x height (0: the size its manifest recommends).

    model: a name in :func:`available_models`, the path of a manifest or ONNX file, or ``default``.
    backend: one of ``BACKENDS``; ``auto`` takes the best that works here. What runs is in ``.backend``, and why nothing
        better does in ``.backend_reasons``.
    threads: of the CPU; 0 is one per core.

    ModelError: no such model, corrupt files, or a size it cannot take. EngineError: no backend can run it here.
    """
    manifest = find_model(model, "flow")
    width, height = _size(manifest.recommended_size, width, height)
    return NetworkFlow(manifest, width, height, backend, threads)


def load_depth(
    model: str | Path = "default", width: int = 0, height: int = 0, backend: str = "auto", threads: int = 0
) -> NetworkDepth:
    """A depth network for images of width x height; arguments and errors as in :func:`load_flow`."""
    manifest = find_model(model, "depth")
    width, height = _size(manifest.recommended_size, width, height)
    return NetworkDepth(manifest, width, height, backend, threads)


def _size(recommended: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    return width or recommended[0], height or recommended[1]
