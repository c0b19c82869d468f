"""Networks on an NVIDIA GPU by TensorRT 10.3 to 11, or by TensorRT-RTX, which has the same API under another name.

An ONNX file is parsed as a strongly typed network: its types decide the precision, which TensorRT 11 knows no other way
to choose. The engine is built for one size and kept (``cache.py``).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines.cache import EngineCache, EngineKey, UnusableEngine, cache_folder, write_atomically
from depth_pose_ros.engines.cuda import NON_BLOCKING, Buffer, Cuda, Gpu
from depth_pose_ros.engines.listener import Listener
from depth_pose_ros.engines.manifest import Graph
from depth_pose_ros.engines.onnx_runtime import fold_constants
from depth_pose_ros.errors import EngineError

MODULES = ("tensorrt", "tensorrt_rtx")
"""The second is found on desktops with an RTX card, and builds without a GPU."""

OLDEST = (10, 3)
"""Of tensorrt: JetPack 6.1's."""

TICK = 1.0
"""Seconds between two words of a build to its listener."""

TELL_EVERY = 5.0
"""Seconds between two log lines on a build."""

ANY_RTX = Gpu("any from Ampere on", "any", "any")
"""What TensorRT-RTX builds for: its engines are finished on the GPU that loads them."""


class Library(NamedTuple):
    """TensorRT's Python module, and what it says of itself."""

    module: Any
    name: str
    version: str
    log: Any

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX."""
        return self.name == "tensorrt_rtx"

    def __str__(self) -> str:
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"


# --------------------------------------------------------------------------------------------------- what is there
def find_library() -> Library:
    """TensorRT, or TensorRT-RTX where it is not there. EngineError says which is missing, and why."""
    failures = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
            version = str(module.__version__)
        except Exception as error:  # not only ImportError: a library of NVIDIA's that it needs may be missing
            failures.append(f"{name}: {error}")
            continue
        if name == "tensorrt" and tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise EngineError(
                f"TensorRT {version} is too old; {OLDEST[0]}.{OLDEST[1]} or newer is needed (JetPack 6.1)"
            )
        return Library(module, name, version, _log_of(module))
    hint = "docs/jetson.md says how to get it"
    if next(Path("/usr/lib").glob("python3*/dist-packages/tensorrt"), None) is not None:
        hint = "the system's Python has it: make the virtual environment with --system-site-packages"
    raise EngineError(f"TensorRT is not installed ({'; '.join(failures)}); {hint}")


def missing() -> str:
    """What keeps TensorRT from being used here, in a sentence; empty: nothing."""
    try:
        find_library()
        Cuda().gpu()
    except EngineError as error:
        return str(error)
    return ""


@functools.cache  # TensorRT holds on to the first that it is given
def _log_of(module: Any) -> Any:
    class Log(module.ILogger):
        """Keeps what TensorRT says went wrong."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=5)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.errors.append(message.strip())

        def why(self) -> str:
            return "; ".join(self.errors) or "TensorRT does not say why"

    return Log()


# -------------------------------------------------------------------------------------------------------- building
def engine_key(graph: Graph, width: int, height: int, precision: str, library: Library) -> EngineKey:
    """The engine that runs a graph on images of width x height here. Its ONNX file is verified.

    EngineError without a GPU; but TensorRT-RTX needs none for that.
    """
    if precision not in graph.files:
        raise EngineError(f"{graph.name} has no {precision} file, only {', '.join(graph.files)}; export it again")
    file = graph.files[precision]
    file.verify()
    gpu = ANY_RTX if library.is_rtx else Cuda().gpu()
    return EngineKey(
        network=graph.name,
        precision=precision,
        width=width,
        height=height,
        onnx=file.sha256,
        library=f"{library.name} {library.version}",
        cuda=gpu.cuda,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
    )


def build_plan(library: Library, graph: Graph, key: EngineKey, config: EngineConfig, listener: Listener) -> bytes:
    """Compile a graph. Takes seconds to many minutes; ``listener`` hears how far it is.

    EngineError when TensorRT cannot take the graph (with the node it stumbles over) or cannot build it.
    """
    monitor = _monitor(library.module)
    start = told = time.monotonic()
    # In a thread, so that this one can tell how far it is, and Ctrl-C or the listener can end it: an exception would be
    # lost in TensorRT, which calls our log and our monitor.
    with ThreadPoolExecutor(1, "build") as pool:
        try:
            future = pool.submit(_build, library, graph, key, config, monitor)
            while not wait([future], TICK).done:
                now = time.monotonic()
                text = f"building the engine {key} with {library}: {now - start:.0f} s{monitor.step}"
                listener.busy(text)
                if now - told >= TELL_EVERY:
                    told = now
                    listener.info(text)
            return future.result()
        except BaseException:
            monitor.goes_on = False
            raise
        finally:
            listener.idle()


def _build(library: Library, graph: Graph, key: EngineKey, config: EngineConfig, monitor: Any) -> bytes:
    trt, log = library.module, library.log
    builder, network, _parser = parse(library, graph, key)
    settings = builder.create_builder_config()
    settings.progress_monitor = monitor
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, config.engine_workspace << 20)
    if key.precision == "fp32":
        settings.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of mantissa are not what is meant by fp32
    # Times of kernels that were measured before make a build faster; TensorRT-RTX measures none.
    timing = cache_folder(config.engine_cache) / f"timing.{library.version}.sm{key.compute_capability}.cache"
    if not library.is_rtx:
        _read_timing(settings, timing)
    plan = builder.build_serialized_network(network, settings)
    if plan is None:
        raise EngineError(
            f"{library} cannot build {key}: {log.why()}. If it ran out of memory, close other programs or lower "
            f"engine_workspace ({config.engine_workspace} MB)"
        )
    if not library.is_rtx:
        with contextlib.suppress(OSError):
            write_atomically(timing, bytes(settings.get_timing_cache().serialize()))
    return bytes(plan)


def parse(library: Library, graph: Graph, key: EngineKey) -> tuple[Any, Any, Any]:
    """Builder, strongly typed network of one size, and parser, which holds the weights: keep all three."""
    trt, log = library.module, library.log
    log.errors.clear()
    try:
        builder = trt.Builder(log)
    except TypeError as error:  # it is a null pointer without a working GPU
        raise EngineError(f"{library} cannot build here: {log.why()}") from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    path = graph.files[key.precision].path
    with tempfile.TemporaryDirectory() as folder:
        source = path
        if key.precision == "fp32":  # TensorRT wants the weights of a convolution as they are, not out of a Cast
            with contextlib.suppress(EngineError):  # what ONNX Runtime does not know, TensorRT may, or names the node
                fold_constants(path, Path(folder) / path.name)
                source = Path(folder) / path.name
        is_parsed = parser.parse_from_file(str(source))
    if not is_parsed:
        raise EngineError(f"{library} cannot take {path.name}: {_parser_errors(parser) or log.why()}")
    _fix_size(network, graph, key.width, key.height, path)
    return builder, network, parser


def count_layers(library: Library, graph: Graph, key: EngineKey) -> int:
    """Of the network that is handed to the builder, arithmetic on sizes and constants included."""
    return parse(library, graph, key)[1].num_layers


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    return "; ".join(f"node {e.node_name()!r} ({e.node_operator()}): {e.desc()}" for e in errors)


def _fix_size(network: Any, graph: Graph, width: int, height: int, path: Path) -> None:
    """Give each input its one size, so that all arithmetic on sizes is done while building."""
    sizes = graph.dimensions(width, height)
    inputs = {tensor.name: tensor for tensor in (network.get_input(i) for i in range(network.num_inputs))}
    outputs = {network.get_output(i).name for i in range(network.num_outputs)}
    if set(inputs) != set(graph.inputs):
        raise EngineError(f"{path} takes {sorted(inputs)}, its manifest says {sorted(graph.inputs)}")
    if not outputs.issuperset(graph.outputs):
        raise EngineError(f"{path} gives {sorted(outputs)}, its manifest says {sorted(graph.outputs)}")
    for tensor in inputs.values():
        names = [tensor.get_dimension_name(axis) for axis in range(len(tensor.shape))]
        tensor.shape = [sizes.get(name, size) for name, size in zip(names, tensor.shape)]
        if min(tensor.shape) < 1:
            raise EngineError(f"{path}: input {tensor.name} is {names}; expected free dimensions {sorted(sizes)}")


def _read_timing(config: Any, path: Path) -> None:
    try:
        content = path.read_bytes()
    except OSError:
        content = b""
    cache = config.create_timing_cache(content) or config.create_timing_cache(b"")
    if not config.set_timing_cache(cache, False):  # of another TensorRT or GPU
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _monitor(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):
        """How far a build is; called by TensorRT."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.step = ""
            self.goes_on = True
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self.step = f" ({phase_name.lower()}, {step + 1} of {self._steps.get(phase_name, '?')})"
            return self.goes_on

    return Monitor()


# --------------------------------------------------------------------------------------------------------- running
class Execution:
    """An engine on the GPU, with its own stream and buffers. Several run at once; each answers one thread at a time.

    UnusableEngine when the plan cannot be read here or is not of the graph and size, EngineError when the GPU fails.
    """

    def __init__(self, library: Library, cuda: Cuda, plan: bytes, graph: Graph, width: int, height: int) -> None:
        trt, log = library.module, library.log
        log.errors.clear()
        self._cuda = cuda
        self._lock = threading.Lock()
        self._buffers: dict[str, Buffer] = {}
        self._stream = self._recorded = None
        self._runtime = trt.Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise UnusableEngine(f"{library} cannot read it: {log.why()}")
        shapes = _shapes(trt, self._engine, graph, width, height)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{library} has no memory to run {graph.name}: {log.why()}")
        self._stream = cuda.call("cudaStreamCreateWithFlags", NON_BLOCKING)
        for name, (shape, dtype) in shapes.items():
            self._buffers[name] = Buffer(cuda, shape, dtype)
            if name in graph.inputs and not self._context.set_input_shape(name, shape):
                raise UnusableEngine(f"it does not take {name} {shape}: {log.why()}")
            if not self._context.set_tensor_address(name, self._buffers[name].device):
                raise EngineError(f"{library} refuses the memory of {name}: {log.why()}")
        self._name, self._log = graph.name, log
        self._inputs = [self._buffers[name] for name in graph.inputs]
        self._outputs = [self._buffers[name] for name in graph.outputs]

    def run(self, *inputs: np.ndarray) -> list[np.ndarray]:
        """Inputs -> outputs, both in the graph's order; the outputs are the caller's to keep."""
        with self._lock:
            for buffer, array in zip(self._inputs, inputs, strict=True):
                np.copyto(buffer.host, array)
            if self._recorded is not None:
                self._cuda.call("cudaGraphLaunch", self._recorded, self._stream)
            else:
                self._enqueue()
            self._cuda.call("cudaStreamSynchronize", self._stream)
            return [buffer.host.astype(np.float32) for buffer in self._outputs]

    def record(self) -> None:
        """Record what a run asks of the GPU as a CUDA graph; later runs launch that."""
        with self._lock:
            self._enqueue()  # the first run allocates, which cannot be recorded
            self._cuda.call("cudaStreamSynchronize", self._stream)
            mode = self._cuda.constant("cudaStreamCaptureMode", "cudaStreamCaptureModeThreadLocal")
            self._cuda.call("cudaStreamBeginCapture", self._stream, mode)
            try:
                self._enqueue()
            finally:
                recorded = self._cuda.call("cudaStreamEndCapture", self._stream)
            self._recorded = self._cuda.call("cudaGraphInstantiate", recorded, 0)

    def _enqueue(self) -> None:
        for buffer in self._inputs:
            buffer.upload(self._stream)
        if not self._context.execute_async_v3(int(self._stream)):
            raise EngineError(f"TensorRT failed to run {self._name}: {self._log.why()}")
        for buffer in self._outputs:
            buffer.download(self._stream)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # the process may be ending, and CUDA gone
            if self._stream is not None:
                self._cuda.call("cudaStreamSynchronize", self._stream)
            for buffer in self._buffers.values():
                buffer.free()
            if self._recorded is not None:
                self._cuda.call("cudaGraphExecDestroy", self._recorded)
            if self._stream is not None:
                self._cuda.call("cudaStreamDestroy", self._stream)


def _shapes(
    trt: Any, engine: Any, graph: Graph, width: int, height: int
) -> dict[str, tuple[tuple[int, ...], type[np.generic]]]:
    """Shape and type of every input and output of an engine. UnusableEngine unless they are the graph's."""
    types = {trt.DataType.FLOAT: np.float32, trt.DataType.HALF: np.float16}
    found: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {}
    for name in (engine.get_tensor_name(i) for i in range(engine.num_io_tensors)):
        dtype = types.get(engine.get_tensor_dtype(name))
        if dtype is None:
            raise UnusableEngine(f"{name} is {engine.get_tensor_dtype(name)}, expected FLOAT or HALF")
        found[name] = tuple(engine.get_tensor_shape(name)), dtype
    missing = [name for name in (*graph.inputs, *graph.outputs) if name not in found]
    if missing:
        raise UnusableEngine(f"it has {sorted(found)}, not {', '.join(missing)}")
    for name, cell in graph.inputs.items():
        shape, expected = found[name][0], (-(-height // cell), -(-width // cell))
        if shape[2:] != expected:
            raise UnusableEngine(f"it takes {name} {shape}, expected (1, {shape[1]}, {expected[0]}, {expected[1]})")
    return found


class TensorRTRunner:
    """A graph at one size on TensorRT; see ``ladder.Runner``."""

    def __init__(self, execution: Execution, backend: str, file: str) -> None:
        self.backend, self.file = backend, file
        self._execution = execution

    def run(self, *inputs: np.ndarray) -> Sequence[np.ndarray]:
        """Inputs -> outputs, both in the graph's order. Safe from several threads."""
        return self._execution.run(*inputs)


def open_engine(
    graph: Graph, width: int, height: int, precision: str, config: EngineConfig, listener: Listener
) -> TensorRTRunner:
    """The engine of a graph for images of width x height: from the cache, or built.

    precision: ``fp32`` or ``fp16``, whose file is taken.
    EngineError, in a sentence: TensorRT, cuda-python or a GPU is missing, or it cannot be built or run here.
    """
    library = find_library()
    cuda = Cuda()
    gpu = cuda.gpu()
    key = engine_key(graph, width, height, precision, library)
    cache = EngineCache(cache_folder(config.engine_cache), config.engine_rebuild, listener)

    def build() -> bytes:
        listener.info(f"{cuda.free_memory() / 1e9:.1f} GB of the memory of {gpu.name} are free")
        return build_plan(library, graph, key, config, listener)

    execution = cache.open(key, build, lambda plan: Execution(library, cuda, plan, graph, width, height))
    if config.engine_cuda_graph:
        try:
            execution.record()
        except EngineError as error:
            listener.warning(f"{graph.name} runs without a CUDA graph: {error}")
    return TensorRTRunner(execution, f"{library} {precision} on {gpu.name}", graph.files[precision].path.name)


def build_engine(
    graph: Graph, width: int, height: int, precision: str, config: EngineConfig, listener: Listener
) -> Path:
    """Have the engine in the cache, without running it; TensorRT-RTX needs no GPU for that. The path of its plan."""
    library = find_library()
    key = engine_key(graph, width, height, precision, library)
    cache = EngineCache(cache_folder(config.engine_cache), "auto", listener)
    return cache.build(key, lambda: build_plan(library, graph, key, config, listener))
