"""Which backend runs a network: TensorRT, then ONNX Runtime on CUDA, then ONNX Runtime on the CPU; and why.

A flow network whose manifest has two graphs (``Manifest.parts``) may be opened as two runners, encoder and matcher, or
as one (``Manifest.graph``): each backend opens what is faster on it. On a CPU that is two: the image before is not
encoded again. On a GPU it is one as long as a runner takes and gives arrays in the host's memory: features would cross
the bus twice in each frame.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines.listener import Listener
from depth_pose_ros.engines.manifest import Manifest
from depth_pose_ros.engines.self_check import SelfCheck
from depth_pose_ros.errors import EngineError


class Runner(Protocol):
    """One graph at one image size, on one backend. Made of a ``Graph``, which says what goes in and out."""

    backend: str
    """In words, e.g. ``onnxruntime CPUExecutionProvider``."""
    file: str
    """Name of the network file that it runs, e.g. ``depth_small.int8.onnx``."""

    def run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        """Inputs (1, channels, h, w) float32 -> outputs, both in the order of the graph.

        Called by one thread at a time, not always the same; runners of other graphs may be running meanwhile.
        """


@dataclass(frozen=True)
class Wish:
    """What a user asked for.

    backend: one of ``BACKENDS``; ``auto`` takes the best that works here.
    threads: of the CPU; 0: chosen from the cores.
    engine:  how TensorRT engines are built and kept.
    """

    backend: str = "auto"
    threads: int = 0
    engine: EngineConfig = field(default_factory=EngineConfig)
    listener: Listener = field(default_factory=Listener)


class Rung(NamedTuple):
    """One step of the ladder."""

    backend: str
    precision: str
    open: Callable[[Manifest, int, int, Wish], tuple[Runner, ...]]
    """The runner of the whole network at width x height, or of a flow network its encoder's and its matcher's.
    EngineError, in one sentence, when this backend cannot run it here."""
    is_checked: bool
    """Whether it must first prove that it computes what the network should; the CPU is what it is compared with."""


def _tensorrt_fp16(manifest: Manifest, width: int, height: int, wish: Wish) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.tensorrt import open_engine

    return (open_engine(manifest.graph, width, height, "fp16", wish.engine, wish.listener),)


def _tensorrt_fp32(manifest: Manifest, width: int, height: int, wish: Wish) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.tensorrt import open_engine

    return (open_engine(manifest.graph, width, height, "fp32", wish.engine, wish.listener),)


def _cuda(manifest: Manifest, width: int, height: int, wish: Wish) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.onnx_runtime import CUDA, OnnxRuntimeRunner

    return (OnnxRuntimeRunner(manifest.graph, width, height, CUDA, wish.threads),)


def _cpu(manifest: Manifest, width: int, height: int, wish: Wish) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.onnx_runtime import CPU, OnnxRuntimeRunner

    graphs = manifest.parts or (manifest.graph,)
    return tuple(OnnxRuntimeRunner(graph, width, height, CPU, wish.threads) for graph in graphs)


def _cpu_int8(manifest: Manifest, width: int, height: int, wish: Wish) -> tuple[Runner, ...]:
    from depth_pose_ros.engines.onnx_runtime import CPU, OnnxRuntimeRunner

    if not manifest.is_quantised:
        raise EngineError(f"{manifest.name} has no int8 file; `depth_pose quantise {manifest.name}` makes one")
    graphs = manifest.parts or (manifest.graph,)
    precisions = ("int8" if "int8" in graph.files else "fp32" for graph in graphs)
    return tuple(OnnxRuntimeRunner(g, width, height, CPU, wish.threads, p) for g, p in zip(graphs, precisions))


LADDER = (
    Rung("tensorrt", "fp16", _tensorrt_fp16, is_checked=True),
    Rung("tensorrt", "fp32", _tensorrt_fp32, is_checked=True),
    Rung("cuda", "fp32", _cuda, is_checked=True),
    Rung("cpu_int8", "int8", _cpu_int8, is_checked=True),
    Rung("cpu", "fp32", _cpu, is_checked=False),
)
"""Best first."""

BACKENDS = ("auto", *dict.fromkeys(rung.backend for rung in LADDER))
"""What a user may ask for."""


def open_runners(
    manifest: Manifest, width: int, height: int, wish: Wish, check: Callable[[tuple[Runner, ...]], SelfCheck | None]
) -> tuple[tuple[Runner, ...], tuple[str, ...]]:
    """The runners of a network at width x height (see Rung), and a sentence on each better backend: why not that.

    check: compares what runners give with what they should; None: there is nothing to compare with.

    ``auto`` takes the first rung that works. Any other name is that backend or EngineError, never another one.
    A bad model file (ModelError) ends the search: it would be bad everywhere.
    """
    if wish.backend not in BACKENDS:
        raise EngineError(f"backend {wish.backend!r} does not exist; choose one of {', '.join(BACKENDS)}")
    manifest.check_size(width, height)
    reasons: list[str] = []
    for rung in LADDER:
        if wish.backend not in ("auto", rung.backend):
            continue
        if rung.backend == "tensorrt" and wish.engine.engine_precision not in ("auto", rung.precision):
            continue
        if wish.backend == "auto" and rung.precision == "int8" and not manifest.is_quantised:
            continue  # the usual case, not worth a word
        try:
            runners = rung.open(manifest, width, height, wish)
            if rung.is_checked:
                _prove(runners, check, wish.listener)
            return runners, tuple(reasons)
        except EngineError as error:
            if (reason := f"{rung.backend}: {error}") not in reasons:  # both precisions miss the same library
                reasons.append(reason)
    raise EngineError(f"no backend can run {manifest.name}: " + "; ".join(reasons))


def may_build(backend: str) -> bool:
    """Whether opening a network may take minutes, because TensorRT is here and compiles it for the size in use."""
    from depth_pose_ros.engines import tensorrt

    return backend in ("auto", "tensorrt") and not tensorrt.missing()


def _prove(runners: tuple[Runner, ...], check: Callable, listener: Listener) -> None:
    """EngineError, after a warning, unless the runners compute what they should."""
    outcome = check(runners)
    if outcome is None:
        listener.warning(f"{runners[-1].backend} is not checked: the model has no stored images; export it again")
    elif outcome.passed:
        listener.info(str(outcome))
    else:
        listener.warning(f"{outcome}; it is not used")
        raise EngineError(str(outcome))
