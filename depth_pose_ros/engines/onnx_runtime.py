"""Run a network file with ONNX Runtime, on the CPU or, where its CUDA provider loads, on an NVIDIA GPU."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from depth_pose_ros.engines.manifest import Graph
from depth_pose_ros.errors import EngineError, ModelError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

MOST_THREADS = 4
"""Of one network, unless more are asked for: not measured beyond, and the robot has other work."""


def default_threads() -> int:
    """Threads of one network: as many as there are cores for this process.

    Two networks run at a time, but seldom equally long: on two cores the whole odometry makes 17.6 frames a second at
    640x192 with two threads for each network, 15.4 with one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(MOST_THREADS, cores)


class OnnxRuntimeRunner:
    """One graph at one image size.

    graph: its file of the given precision is used, fp32 or int8.
    width, height: of the image, fixed here so that the shape arithmetic of the dynamic graph is folded away.
    provider: ``CPUExecutionProvider`` or ``CUDAExecutionProvider``. ONNX Runtime silently falls back to the CPU where a
        provider cannot be loaded; that is noticed here and is an EngineError.
    threads: for the CPU; 0: see default_threads.

    Raises EngineError when ONNX Runtime or the provider is not available here, ModelError when the file is not a
    network that keeps its manifest.
    """

    def __init__(
        self, graph: Graph, width: int, height: int, provider: str = CPU, threads: int = 0, precision: str = "fp32"
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineError(f"onnxruntime cannot be imported ({error}); pip install onnxruntime") from error

        available = onnxruntime.get_available_providers()
        if provider not in available:
            raise EngineError(
                f"this ONNX Runtime {onnxruntime.__version__} has no {provider} (it has {', '.join(available)})"
                + ("; the package onnxruntime-gpu brings it" if provider == CUDA else "")
            )

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
        options.inter_op_num_threads = 1
        # Threads that spin while they wait take the cores from the other network and the geometry: 160 -> 90 ms for
        # flow and depth together on two cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        for name, size in graph.dimensions(width, height).items():
            options.add_free_dimension_override_by_name(name, size)
        options.log_severity_level = 3  # errors; a provider that fails to load is reported below, in words

        file = graph.files[precision]
        file.verify()
        providers = [provider] if provider == CPU else [provider, CPU]
        try:
            session = onnxruntime.InferenceSession(str(file.path), options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            kind = ModelError if provider == CPU else EngineError  # a GPU may be what is wrong
            raise kind(f"ONNX Runtime cannot load {file.path}: {error}") from error
        if session.get_providers()[0] != provider:
            raise EngineError(
                f"ONNX Runtime was asked for {provider} but would run on {session.get_providers()[0]}: "
                "the provider's libraries (CUDA, cuDNN) or a GPU are missing"
            )
        session.disable_fallback()  # or a GPU that fails in a run would be replaced by the CPU, for good and silently
        _check_names(graph, session, file.path)
        self.backend = f"onnxruntime {provider}" + (" int8" if precision == "int8" else "")
        self.file = file.path.name
        self._name = graph.name
        self._inputs = tuple(graph.inputs)
        self._outputs = list(graph.outputs)
        self._session = session

    def run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        """Inputs (1, channels, h, w) float32 -> outputs, both in the graph's order. Safe from several threads."""
        try:
            return self._session.run(self._outputs, dict(zip(self._inputs, inputs)))
        except Exception as error:  # see above
            raise EngineError(f"{self._name} failed in {self.backend}: {error}") from error


def fold_constants(path: Path, target: Path) -> None:
    """Write a network file with its constants folded, among them weights that are stored in half precision.

    ONNX Runtime's basic optimisations, which stay within standard ONNX. EngineError without ONNX Runtime or when it
    cannot read the file.
    """
    try:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(target)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=[CPU])
    except Exception as error:  # see above
        raise EngineError(f"ONNX Runtime cannot fold the constants of {path}: {error}") from error


def _check_names(graph: Graph, session, path: Path) -> None:
    """ModelError unless inputs and outputs of the file are the ones the manifest names."""
    inputs = {entry.name: entry for entry in session.get_inputs()}
    outputs = {entry.name for entry in session.get_outputs()}
    if set(inputs) != set(graph.inputs):
        raise ModelError(f"{path} takes {sorted(inputs)}, its manifest says {sorted(graph.inputs)}")
    if not outputs.issuperset(graph.outputs):
        raise ModelError(f"{path} gives {sorted(outputs)}, its manifest says {sorted(graph.outputs)}")
    for entry in inputs.values():
        if entry.type != "tensor(float)" or len(entry.shape) != 4:
            raise ModelError(f"{path}: input {entry.name} is {entry.type} {entry.shape}, expected float (1, C, H, W)")
