"""Stands for NVIDIA's libraries where there is no GPU, so that all of our own code around them can run.

``install()`` puts a ``tensorrt`` and a ``cuda.bindings.runtime`` into ``sys.modules``. A plan is a file that
holds its ONNX file; a kernel launch is ONNX Runtime on the CPU; memory of the GPU is memory, but an address of one side
that is used for the other is an error. What the real parser and builder think of our graphs: test_tensorrt_rtx.py.
"""

import base64
import ctypes
import json
import os
import sys
import time
import types
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np


@dataclass
class Machine:
    """What the libraries say of the machine, and how they misbehave."""

    gpu: str = "Orin"
    capability: tuple[int, int] = (8, 7)
    driver: int = 12060
    tensorrt: str = "10.3.0"
    build_seconds: float = 0.0
    wrong: dict[str, str] = field(default_factory=dict)  # by precision: "nan" or "shifted"
    refuses: str = ""  # operator that the parser does not know
    has_gpu: bool = True
    builds: int = 0
    launches: int = 0


class Enum(IntEnum):
    """As pybind11's and cuda-python's: with a name and a value."""


# ----------------------------------------------------------------------------------------------------------- CUDA
def _cuda(machine: Machine) -> types.ModuleType:
    runtime = types.ModuleType("cuda.bindings.runtime")
    codes = Enum("cudaError_t", {"cudaSuccess": 0, "cudaErrorInvalidValue": 1, "cudaErrorNoDevice": 100})
    runtime.cudaMemcpyKind = Enum("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2})
    runtime.cudaStreamCaptureMode = Enum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})
    runtime.sides = {"host": {}, "device": {}}
    runtime.streams = {}
    ok, invalid = codes.cudaSuccess, codes.cudaErrorInvalidValue

    def allocate(side):
        def call(size):
            block = ctypes.create_string_buffer(b"\xff" * size, size)  # NaN, as float32 and float16
            runtime.sides[side][ctypes.addressof(block)] = block
            return ok, ctypes.addressof(block)

        return call

    def release(side):
        return lambda address: (ok if runtime.sides[side].pop(address, None) is not None else invalid,)

    def create_stream(flags):
        runtime.streams[id_ := len(runtime.streams) + 1] = []
        return ok, id_

    def submit(stream, work):
        """Do it now, or note it down where the stream is being captured."""
        captured = runtime.streams[int(stream)]
        captured.append(work) if getattr(runtime, "capturing", None) == int(stream) else work()

    def copy(to, start, size, kind, stream):
        source, target = ("host", "device") if kind == 1 else ("device", "host")
        if start not in runtime.sides[source] or to not in runtime.sides[target]:
            return (invalid,)
        submit(stream, lambda: ctypes.memmove(to, start, size))
        return (ok,)

    def begin(stream, mode):
        runtime.capturing, runtime.streams[int(stream)] = int(stream), []
        return (ok,)

    def end(stream):
        runtime.capturing = None
        return ok, runtime.streams[int(stream)]

    def launch(graph, stream):
        for work in graph:
            work()
        return (ok,)

    def count():
        return (ok, 1) if machine.has_gpu else (codes.cudaErrorNoDevice, None)

    def properties(device):
        return ok, types.SimpleNamespace(
            name=machine.gpu.encode(), major=machine.capability[0], minor=machine.capability[1]
        )

    runtime.submit = submit
    runtime.cudaGetDeviceCount = count
    runtime.cudaGetDeviceProperties = properties
    runtime.cudaDriverGetVersion = lambda: (ok, machine.driver)
    runtime.cudaMemGetInfo = lambda: (ok, 5_000_000_000, 8_000_000_000)
    runtime.cudaMalloc, runtime.cudaMallocHost = allocate("device"), allocate("host")
    runtime.cudaFree, runtime.cudaFreeHost = release("device"), release("host")
    runtime.cudaStreamCreateWithFlags = create_stream
    runtime.cudaStreamSynchronize = runtime.cudaStreamDestroy = lambda stream: (ok,)
    runtime.cudaMemcpyAsync = copy
    runtime.cudaStreamBeginCapture, runtime.cudaStreamEndCapture = begin, end
    runtime.cudaGraphInstantiate = lambda graph, flags: (ok, graph)
    runtime.cudaGraphDestroy = runtime.cudaGraphExecDestroy = lambda graph: (ok,)
    runtime.cudaGraphLaunch = launch
    return runtime


# ------------------------------------------------------------------------------------------------------- TensorRT
def _tensorrt(machine: Machine, cuda: types.ModuleType) -> types.ModuleType:
    trt = types.ModuleType("tensorrt")
    trt.__version__ = machine.tensorrt
    trt.DataType = Enum("DataType", {"FLOAT": 0, "HALF": 1})
    trt.BuilderFlag = Enum("BuilderFlag", {"TF32": 7})
    trt.MemoryPoolType = Enum("MemoryPoolType", {"WORKSPACE": 0})
    trt.NetworkDefinitionCreationFlag = Enum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

    class IProgressMonitor:
        pass

    class Tensor:
        def __init__(self, value):
            dimensions = value.type.tensor_type.shape.dim
            self.name = value.name
            self.shape = [d.dim_value or -1 for d in dimensions]
            self._names = [d.dim_param or None for d in dimensions]

        def get_dimension_name(self, axis):
            return self._names[axis]

    class Network:
        num_layers = 7
        num_inputs = property(lambda self: len(self.inputs))
        num_outputs = property(lambda self: len(self.outputs))

        def get_input(self, i):
            return self.inputs[i]

        def get_output(self, i):
            return self.outputs[i]

    class OnnxParser:
        num_errors = 0

        def __init__(self, network, log):
            self._network = network

        def parse_from_file(self, path):
            import onnx

            graph = onnx.load(path).graph
            self._bad = [node for node in graph.node if node.op_type == machine.refuses]
            self.num_errors = len(self._bad)
            # The parser holds what it has read: the file may be gone when the engine is built.
            self._network.name, self._network.file = Path(path).name, Path(path).read_bytes()
            self._network.inputs = [Tensor(value) for value in graph.input]
            self._network.outputs = [Tensor(value) for value in graph.output]
            return not self._bad

        def get_error(self, i):
            node = self._bad[i]
            return types.SimpleNamespace(
                node_name=lambda: node.name, node_operator=lambda: node.op_type, desc=lambda: "no such importer"
            )

    class TimingCache:
        def __init__(self, content):
            self.content = content

        def serialize(self):
            return self.content + b"t"

    class Config:
        progress_monitor = None
        timing = None

        def set_memory_pool_limit(self, pool, size):
            self.workspace = size

        def clear_flag(self, flag):
            pass

        def create_timing_cache(self, content):
            return TimingCache(content)

        def set_timing_cache(self, cache, ignore_mismatch):
            self.timing = cache
            return True

        def get_timing_cache(self):
            return self.timing

    class Builder:
        def __init__(self, log):
            if not machine.has_gpu:
                log.log(ILogger.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")

        def create_network(self, flags):
            assert flags == 1 << trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
            return Network()

        def create_builder_config(self):
            return Config()

        def build_serialized_network(self, network, config):
            machine.builds += 1
            steps = max(1, round(machine.build_seconds / 0.02))
            config.progress_monitor.phase_start("Building engine", None, steps)
            for step in range(steps):
                time.sleep(machine.build_seconds / steps)
                if not config.progress_monitor.step_complete("Building engine", step):
                    return None
            config.progress_monitor.phase_finish("Building engine")
            plan = {"version": trt.__version__, "onnx": network.name}
            plan["file"] = base64.b64encode(network.file).decode()
            plan["inputs"] = {tensor.name: tensor.shape for tensor in network.inputs}
            plan["sizes"] = {n: s for t in network.inputs for n, s in zip(t._names, t.shape) if n}
            return json.dumps(plan).encode().ljust(20_000)

    class Engine:
        def __init__(self, plan):
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            for name, size in plan["sizes"].items():
                options.add_free_dimension_override_by_name(name, size)
            self.session = onnxruntime.InferenceSession(
                base64.b64decode(plan["file"]), options, ["CPUExecutionProvider"]
            )
            zeros = {name: np.zeros(shape, np.float32) for name, shape in plan["inputs"].items()}
            self.shapes = {name: array.shape for name, array in zeros.items()}
            names = [output.name for output in self.session.get_outputs()]
            self.shapes |= {n: a.shape for n, a in zip(names, self.session.run(names, zeros))}
            self.inputs, self.outputs = list(zeros), names
            self.wrong = machine.wrong.get("fp16" if ".fp16." in plan["onnx"] else "fp32", "")

        num_io_tensors = property(lambda self: len(self.shapes))

        def get_tensor_name(self, i):
            return list(self.shapes)[i]

        def get_tensor_dtype(self, name):
            return trt.DataType.FLOAT

        def get_tensor_shape(self, name):
            return self.shapes[name]

        def create_execution_context(self):
            return Context(self)

    class Context:
        def __init__(self, engine):
            self._engine, self._addresses = engine, {}

        def set_input_shape(self, name, shape):
            return tuple(shape) == self._engine.shapes[name]

        def set_tensor_address(self, name, address):
            self._addresses[name] = address
            return address in cuda.sides["device"]

        def execute_async_v3(self, stream):
            cuda.submit(stream, self._run)
            return set(self._addresses) == set(self._engine.shapes)

        def _memory(self, name):
            shape = self._engine.shapes[name]
            block = (ctypes.c_float * int(np.prod(shape))).from_address(self._addresses[name])
            return np.frombuffer(block, np.float32).reshape(shape)

        def _run(self):
            machine.launches += 1
            engine = self._engine
            outputs = engine.session.run(engine.outputs, {name: self._memory(name).copy() for name in engine.inputs})
            for name, output in zip(engine.outputs, outputs):
                self._memory(name)[:] = output + 1.0 if engine.wrong == "shifted" else output
                if engine.wrong == "nan":
                    self._memory(name)[0, 0, 0, :3] = np.nan

    class Runtime:
        def __init__(self, log):
            self._log = log

        def deserialize_cuda_engine(self, content):
            try:
                plan = json.loads(content)
            except ValueError:
                self._log.log(ILogger.ERROR, "Magic tag does not match")
                return None
            return Engine(plan)

    trt.ILogger, trt.IProgressMonitor = ILogger, IProgressMonitor
    trt.Builder, trt.OnnxParser, trt.Runtime = Builder, OnnxParser, Runtime
    return trt


def install(machine: Machine, modules: dict = sys.modules) -> None:
    """Put the two libraries of such a machine where they are imported from."""
    cuda = _cuda(machine)
    modules["cuda"], modules["cuda.bindings"] = types.ModuleType("cuda"), types.ModuleType("cuda.bindings")
    modules["cuda.bindings.runtime"] = cuda
    modules["tensorrt"] = _tensorrt(machine, cuda)


if __name__ == "__main__":  # in a process of its own: fake_gpu.py MACHINE.json MODULE ARGUMENTS...
    import runpy

    with open(sys.argv[1]) as stream:
        install(Machine(**json.load(stream)))
    sys.argv = sys.argv[2:]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
