"""Which backend runs a network: TensorRT, then ONNX Runtime on CUDA, then ONNX Runtime on the CPU; and why.

A flow network whose manifest has two graphs (``Manifest.parts``) may be opened as two runners, encoder and matcher, or
as one (``Manifest.graph``): each backend opens what is faster on it. On a CPU that is two: the image before is not
encoded again. On a GPU it is one as long as a runner takes and gives arrays in the host's memory: features would cross
the bus twice in each frame.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from depth_pose_ros.engines.manifest import Manifest
from depth_pose_ros.errors import EngineError


class Runner(Protocol):
    """One graph at one image size, on one backend. Made of a ``Graph``, which says what goes in and out."""

    backend: str
    """In words, e.g. ``onnxruntime CPUExecutionProvider``."""

    def run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        """Inputs (1, channels, h, w) float32 -> outputs, both in the order of the graph."""


def _tensorrt(manifest: Manifest, width: int, height: int, threads: int) -> tuple[Runner, ...]:
    # The door for engines/tensorrt.py: return (its runner of manifest.graph,) here. Its import stays inside this
    # function.
    raise EngineError("this version of depth_pose_ros has no TensorRT backend")


def _cuda(manifest: Manifest, width: int, height: int, threads: int) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.onnx_runtime import CUDA, OnnxRuntimeRunner

    return (OnnxRuntimeRunner(manifest.graph, width, height, CUDA, threads),)


def _cpu(manifest: Manifest, width: int, height: int, threads: int) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.onnx_runtime import CPU, OnnxRuntimeRunner

    graphs = manifest.parts or (manifest.graph,)
    return tuple(OnnxRuntimeRunner(graph, width, height, CPU, threads) for graph in graphs)


LADDER: dict[str, Callable[[Manifest, int, int, int], tuple[Runner, ...]]] = {
    "tensorrt": _tensorrt,
    "cuda": _cuda,
    "cpu": _cpu,
}
"""Best first. Each returns the runner of the whole network, or of a flow network its encoder's and its matcher's."""

BACKENDS = ("auto", *LADDER)
"""What a user may ask for."""


def open_runners(
    manifest: Manifest, width: int, height: int, backend: str = "auto", threads: int = 0
) -> tuple[tuple[Runner, ...], tuple[str, ...]]:
    """The runners of a network at width x height (see LADDER), and a sentence on each better backend: why not that.

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
