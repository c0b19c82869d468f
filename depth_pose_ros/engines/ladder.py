"""Which backend runs a network: TensorRT, then ONNX Runtime on CUDA, then ONNX Runtime on the CPU; and why."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from depth_pose_ros.engines.manifest import Manifest
from depth_pose_ros.errors import EngineError


class Runner(Protocol):
    """One network at one input size, on one backend."""

    backend: str
    """In words, e.g. ``onnxruntime CPUExecutionProvider``."""

    def run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        """Inputs (1, 3, height, width) float32 -> outputs, both in the manifest's order."""


def _tensorrt(manifest: Manifest, width: int, height: int, threads: int) -> Runner:
    # The door for engines/tensorrt.py: return its runner here. Its import stays inside this function.
    raise EngineError("this version of depth_pose_ros has no TensorRT backend")


def _cuda(manifest: Manifest, width: int, height: int, threads: int) -> Runner:
    from depth_pose_ros.engines.onnx_runtime import CUDA, OnnxRuntimeRunner

    return OnnxRuntimeRunner(manifest, width, height, CUDA, threads)


def _cpu(manifest: Manifest, width: int, height: int, threads: int) -> Runner:
    from depth_pose_ros.engines.onnx_runtime import CPU, OnnxRuntimeRunner

    return OnnxRuntimeRunner(manifest, width, height, CPU, threads)


LADDER: dict[str, Callable[[Manifest, int, int, int], Runner]] = {"tensorrt": _tensorrt, "cuda": _cuda, "cpu": _cpu}
"""Best first."""

BACKENDS = ("auto", *LADDER)
"""What a user may ask for."""


def open_runner(
    manifest: Manifest, width: int, height: int, backend: str = "auto", threads: int = 0
) -> tuple[Runner, tuple[str, ...]]:
    """A runner for the network at width x height, and why each better backend was passed over, one sentence each.

    ``auto`` takes the first backend that works. Any other name is that backend or EngineError, never another one.
    A bad model file (ModelError) ends the search: it would be bad everywhere.
    """
    if backend not in BACKENDS:
        raise EngineError(f"backend {backend!r} does not exist; choose one of {', '.join(BACKENDS)}")
    manifest.check_size(width, height)
    reasons: list[str] = []
    for name in LADDER if backend == "auto" else (backend,):
        try:
            return LADDER[name](manifest, width, height, threads), tuple(reasons)
        except EngineError as error:
            reasons.append(f"{name}: {error}")
    raise EngineError(f"no backend can run {manifest.name}: " + "; ".join(reasons))
