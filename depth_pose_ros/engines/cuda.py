"""What TensorRT leaves to its user: the GPU's name, a stream, memory on both sides. By NVIDIA's ``cuda-python``."""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from depth_pose_ros.errors import EngineError

NON_BLOCKING = 1
"""cudaStreamNonBlocking: the stream does not wait for work of others on the default stream."""


@dataclass(frozen=True)
class Gpu:
    """The first GPU. ``cuda`` is the version that its driver supports."""

    name: str
    compute_capability: str
    cuda: str


class Cuda:
    """Calls of the CUDA runtime, whose errors become EngineError. One GPU, the first that CUDA shows."""

    def __init__(self) -> None:
        try:
            self._runtime = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise EngineError(
                f"cuda-python cannot be imported ({error}); pip install 'cuda-python==12.6.*' for CUDA 12 (JetPack 6), "
                "'cuda-python==13.*' for CUDA 13 (JetPack 7)"
            ) from error

    def call(self, name: str, *arguments: Any) -> Any:
        """``cudaXyz`` by its name; what it gives beside the error code, if anything."""
        try:
            code, *result = getattr(self._runtime, name)(*arguments)  # each returns a tuple
        except RuntimeError as error:  # cuda-python 12.6 without a driver
            raise EngineError(f"{name} failed: CUDA's driver, libcuda.so.1, is not there") from error
        if code.value:
            raise EngineError(f"{name} failed: {code.name} ({code.value})")
        return result[0] if len(result) == 1 else tuple(result)

    def constant(self, kind: str, name: str) -> Any:
        """A value of one of CUDA's enumerations, e.g. ``cudaMemcpyKind``."""
        return getattr(getattr(self._runtime, kind), name)

    def gpu(self) -> Gpu:
        """The GPU that will be used. EngineError when there is none."""
        try:
            count = self.call("cudaGetDeviceCount")
        except EngineError as error:
            raise EngineError(f"no NVIDIA GPU can be used: {error}") from error
        if not count:
            raise EngineError("no NVIDIA GPU can be used: CUDA sees none (is CUDA_VISIBLE_DEVICES empty?)")
        found = self.call("cudaGetDeviceProperties", 0)
        version = self.call("cudaDriverGetVersion")
        name = found.name.decode() if isinstance(found.name, bytes) else str(found.name)
        return Gpu(name.strip("\0 "), f"{found.major}.{found.minor}", f"{version // 1000}.{version % 1000 // 10}")

    def free_memory(self) -> int:
        """Bytes of the GPU that nobody uses."""
        return self.call("cudaMemGetInfo")[0]


class Buffer:
    """One tensor in page-locked host memory, ``host``, and on the GPU, ``device`` (an address)."""

    def __init__(self, cuda: Cuda, shape: Sequence[int], dtype: type) -> None:
        self._cuda = cuda
        self._host_address = self.device = 0
        self.bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
        self._host_address = int(cuda.call("cudaMallocHost", self.bytes))
        self.device = int(cuda.call("cudaMalloc", self.bytes))
        memory = (ctypes.c_char * self.bytes).from_address(self._host_address)
        self.host = np.frombuffer(memory, dtype).reshape(tuple(shape))

    def upload(self, stream: Any) -> None:
        """Host -> GPU, in the order of the stream."""
        self._copy(self.device, self._host_address, "cudaMemcpyHostToDevice", stream)

    def download(self, stream: Any) -> None:
        """GPU -> host, in the order of the stream."""
        self._copy(self._host_address, self.device, "cudaMemcpyDeviceToHost", stream)

    def _copy(self, to: int, start: int, kind: str, stream: Any) -> None:
        kind = self._cuda.constant("cudaMemcpyKind", kind)
        self._cuda.call("cudaMemcpyAsync", to, start, self.bytes, kind, stream)

    def free(self) -> None:
        """Give the memory back; nothing may use it any more."""
        if self.device:
            self._cuda.call("cudaFree", self.device)
        if self._host_address:
            self._cuda.call("cudaFreeHost", self._host_address)
        self.device = self._host_address = 0
