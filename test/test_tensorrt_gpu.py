"""Engines on a real GPU: what they compute, how fast, and that they are built once. Nobody has run this file yet."""

import statistics
import threading
import time

import numpy as np
import pytest

from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines import tensorrt
from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.listener import Listener
from depth_pose_ros.engines.manifest import DEFAULT_MODELS, find_model

pytestmark = [pytest.mark.needs_gpu, pytest.mark.timeout(1800)]

SIZE = (640, 192)
NETWORK = {"flow": NetworkFlow, "depth": NetworkDepth}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("engines"))


def opened(task, folder, precision, **more):
    config = EngineConfig(engine_cache=folder, engine_precision=precision, **more)
    return NETWORK[task](find_model("default", task), *SIZE, "tensorrt", 0, config, Listener())


def images_of(task):
    """Smooth, so that no match is a coin's toss."""
    rng = np.random.default_rng(3)
    noise = rng.random((SIZE[1] // 8, SIZE[0] // 8, 3)).repeat(8, 0).repeat(8, 1)
    image = (255 * noise).astype(np.uint8)
    return [image, np.roll(image, 4, 1)][: 2 if task == "flow" else 1]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("task", DEFAULT_MODELS)
def test_engine_gives_what_the_cpu_gives(task, precision, folder):
    network = opened(task, folder, precision)  # has passed its self-check, or this raises
    expected = NETWORK[task](network.manifest, *SIZE, "cpu", 0).outputs(*images_of(task))
    for graph in (False, True):
        network = opened(task, folder, precision, engine_cuda_graph=graph)
        for name, output in network.outputs(*images_of(task)).items():
            error = np.abs(output - expected[name]) / (1.0 if task == "flow" else np.abs(expected[name]))
            print(f"{network.backend}, {name}: median {np.median(error):.2g}, 99 % {np.quantile(error, 0.99):.2g}")
            assert np.median(error) < (1e-3 if precision == "fp32" else 0.05)


@pytest.mark.parametrize("task", DEFAULT_MODELS)
def test_second_start_loads_what_the_first_has_built(task, folder):
    opened(task, folder, "fp16")
    start = time.monotonic()
    opened(task, folder, "fp16", engine_rebuild="never")
    print(f"{task}: {time.monotonic() - start:.1f} s")


def test_two_engines_run_in_two_threads_at_once(folder):
    networks = {task: opened(task, folder, "fp16") for task in DEFAULT_MODELS}
    expected = {task: network.outputs(*images_of(task)) for task, network in networks.items()}
    differences = []

    def work(task):
        for _ in range(200):
            for name, output in networks[task].outputs(*images_of(task)).items():
                if np.abs(output - expected[task][name]).max() > 1e-3 * np.abs(expected[task][name]).max():
                    differences.append((task, name))

    threads = [threading.Thread(target=work, args=(task,)) for task in networks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert differences == []


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("task", DEFAULT_MODELS)
def test_time_of_a_run_by_the_gpus_own_clock(task, precision, folder):
    """Prints it (-s), copies included, launched and recorded."""
    for graph in (False, True):
        execution = opened(task, folder, precision, engine_cuda_graph=graph)._runner._execution
        call, stream = execution._cuda.call, execution._stream
        begin, end = call("cudaEventCreate"), call("cudaEventCreate")
        times = []
        for _ in range(100):
            call("cudaEventRecord", begin, stream)
            if graph:
                call("cudaGraphLaunch", execution._recorded, stream)
            else:
                execution._enqueue()
            call("cudaEventRecord", end, stream)
            call("cudaStreamSynchronize", stream)
            times.append(call("cudaEventElapsedTime", begin, end))
        print(f"{task} {precision} {'recorded' if graph else 'launched'}: median {statistics.median(times):.2f} ms")
        assert statistics.median(times) > 0


def test_shipped_graphs_of_a_split_network_run_too(folder):
    manifest = find_model("default", "flow")
    if not manifest.parts:
        pytest.skip(f"{manifest.name} is one graph only")
    config = EngineConfig(engine_cache=folder)
    encoder, matcher = (tensorrt.open_engine(part, *SIZE, "fp32", config, Listener()) for part in manifest.parts)
    on_cpu = NetworkFlow(manifest, *SIZE, "cpu", 0)
    tensors = [on_cpu._prepare(image) for image in images_of("flow")]
    outputs = matcher.run(*(array for tensor in tensors for array in encoder.run(tensor)))
    for output, expected in zip(outputs, on_cpu.outputs(*images_of("flow")).values(), strict=True):
        assert np.median(np.abs(output[0] - expected)) < 1e-3
