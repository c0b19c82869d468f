"""What NVIDIA's own parser and builder make of our graphs: TensorRT-RTX builds without a GPU, with TensorRT's API.

``pip install tensorrt-rtx==1.4.*`` has the API of TensorRT 10, ``1.7.*`` that of TensorRT 11. Skipped without it.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from depth_pose_ros import cli
from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines import tensorrt
from depth_pose_ros.engines.listener import Listener
from depth_pose_ros.engines.manifest import DEFAULT_MODELS, ModelFile, find_model, sha256_of
from depth_pose_ros.errors import EngineError

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (about 100 MB)")
onnx = pytest.importorskip("onnx")
from toy_models import difference_model  # noqa: E402

SIZES = [(320, 96), (640, 192), (832, 256)]


def graphs_of(manifest):
    return {graph.name: graph for graph in (manifest.graph, *(manifest.parts or ()))}


MODELS = [find_model("default", task) for task in DEFAULT_MODELS]
SHIPPED = {name: (graph, manifest) for manifest in MODELS for name, graph in graphs_of(manifest).items()}
FILES = [
    (name, precision)
    for name, (graph, _) in SHIPPED.items()
    for precision in ("fp16", "fp32")
    if precision in graph.files
]


def fitting(size, multiple):
    return tuple(-(-side // multiple) * multiple for side in size)


def check(graph, precision, size, stride):
    """Parse; every convolution, sampling and output as it should be. -> how often each kind of layer occurs."""
    library = tensorrt.find_library()
    _builder, network, _parser = tensorrt.parse(library, graph, tensorrt.engine_key(graph, *size, precision, library))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    kinds = Counter(str(layer.type).rpartition(".")[2] for layer in layers)
    for layer in layers:
        if layer.type == trt.LayerType.CONVOLUTION:
            assert layer.get_output(0).dtype == (trt.float16 if precision == "fp16" else trt.float32), layer.name
        if layer.type == trt.LayerType.GRID_SAMPLE:
            layer.__class__ = trt.IGridSampleLayer
            assert layer.interpolation_mode == trt.InterpolationMode.LINEAR, layer.name
            assert layer.sample_mode == trt.SampleMode.FILL and not layer.align_corners, layer.name
            assert [layer.get_input(i).dtype for i in range(2)] == [trt.float32] * 2, layer.name
    outputs = {tensor.name: tensor for tensor in (network.get_output(i) for i in range(network.num_outputs))}
    assert set(graph.outputs) <= set(outputs)
    assert {tensor.dtype for tensor in outputs.values()} == {trt.float32}
    assert {network.get_input(i).dtype for i in range(network.num_inputs)} == {trt.float32}
    if stride is not None:
        for tensor in outputs.values():
            assert tuple(tensor.shape)[2:] == (size[1] // stride, size[0] // stride), tensor.name
    return kinds


@pytest.mark.parametrize(("name", "precision"), FILES)
def test_shipped_graphs_are_parsed_as_they_were_meant(name, precision):
    graph, manifest = SHIPPED[name]
    stride = None if name.endswith(".encoder") else manifest.outputs.stride
    convolutions = Counter(node.op_type for node in onnx.load(graph.files[precision].path).graph.node)["Conv"]
    for size in SIZES:
        kinds = check(graph, precision, fitting(size, manifest.inputs.multiple_of), stride)
        assert kinds["CONVOLUTION"] == convolutions > 0


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize(("name", "precision"), FILES)
def test_shipped_graphs_compile(name, precision, size, tmp_path):
    graph, manifest = SHIPPED[name]
    size = fitting(size, manifest.inputs.multiple_of)
    path = tensorrt.build_engine(graph, *size, precision, EngineConfig(engine_cache=str(tmp_path)), Listener())
    assert path.stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["PaperFlow", "PaperDepth"])
def test_the_papers_networks_are_parsed_and_compile(name, tmp_path):
    torch = pytest.importorskip("torch")
    from random_weights import he_weights

    from depth_pose_ros.networks.registry import build_network
    from depth_pose_ros.training.export import export_network

    torch.manual_seed(0)
    manifest = export_network(he_weights(build_network(name), seed=1), tmp_path / name.lower())
    for graph_name, graph in graphs_of(manifest).items():
        stride = None if graph_name.endswith(".encoder") else manifest.outputs.stride
        for precision in graph.files:
            for size in SIZES:
                size = fitting(size, manifest.inputs.multiple_of)
                check(graph, precision, size, stride)
                config = EngineConfig(engine_cache=str(tmp_path / "engines"))
                tensorrt.build_engine(graph, *size, precision, config, Listener())


def test_command_builds_an_engine_without_a_gpu(tmp_path, capsys):
    """Parser, builder, cache and command as they are; only running it needs a GPU."""
    model, cache = difference_model(tmp_path).path, tmp_path / "engines"
    options = ["--engine-cache", str(cache), "--engine-precision", "fp32", "--depth-model", "none"]
    build = ["build-engines", "--flow-model", str(model), *options]
    assert cli.main([*build, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert (
        "there is no TensorRT engine" in said
        and " layers, as TensorRT-RTX" in said
        and f"tensorrt_rtx {trt.__version__}" in said
    )
    assert not cache.exists()
    assert cli.main([*build, "--build-only"]) == 0
    said = capsys.readouterr().out
    (plan,) = cache.glob("*.plan")
    assert f"{plan} is ready, unchecked" in said and plan.name in said
    assert cli.main([*build, "--dry-run"]) == 0
    assert "is there" in capsys.readouterr().out
    assert cli.main(build) == 2  # wants to run it
    error = capsys.readouterr().err
    assert "no NVIDIA GPU can be used" in error or "cuda-python cannot be imported" in error


def save(path, nodes, constants=(), opset=17):
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "bad",
        [value("image", kind, (1, 3, "height", "width"))],
        [value("out", kind, (1, None, None, None))],
        list(constants),
    )
    domains = [onnx.helper.make_opsetid("", opset), onnx.helper.make_opsetid("own", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=domains, ir_version=8), path)
    graph = find_model("default", "depth").graph
    return replace(graph, name="bad", files={"fp32": ModelFile(path, sha256_of(path))}, outputs=("out",))


def test_sampling_that_is_not_linear_would_be_noticed(tmp_path):
    """The parser of TensorRT 10 takes "linear", as it is called from opset 20 on, for nearest; we stay at 17."""
    nodes = [
        onnx.helper.make_node("Transpose", ["image"], ["moved"], perm=[0, 2, 3, 1]),
        onnx.helper.make_node("Slice", ["moved", "zero", "two", "three"], ["grid"]),
        onnx.helper.make_node("GridSample", ["image", "grid"], ["out"], mode="nearest"),
    ]
    constants = [onnx.numpy_helper.from_array(np.int64([v]), n) for v, n in ((0, "zero"), (2, "two"), (3, "three"))]
    graph = save(tmp_path / "bad.onnx", nodes, constants)
    with pytest.raises(AssertionError, match="NEAREST"):
        check(graph, "fp32", (64, 64), 1)


def bad_nodes():
    node = onnx.helper.make_node
    yield "unknown operator", node("Det", ["image"], ["out"], "determinant"), "node 'determinant' (Det)"
    yield "custom operator", node("Warp", ["image"], ["out"], "warper", domain="own"), "node 'warper' (Warp)"


@pytest.mark.parametrize(("case", "node", "sentence"), list(bad_nodes()), ids=lambda value: str(value)[:16])
def test_bad_graph_is_refused_with_the_node_named(case, node, sentence, tmp_path):
    graph = save(tmp_path / "bad.onnx", [node])
    with pytest.raises(EngineError) as error:
        tensorrt.build_engine(graph, 64, 64, "fp32", EngineConfig(engine_cache=str(tmp_path)), Listener())
    assert "cannot take bad.onnx" in str(error.value) and sentence in str(error.value)


def test_file_that_is_no_onnx_is_refused(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    graph = replace(find_model("default", "depth").graph, files={"fp32": ModelFile(path, sha256_of(path))})
    with pytest.raises(EngineError, match=r"cannot take bad\.onnx"):
        tensorrt.build_engine(graph, 64, 64, "fp32", EngineConfig(engine_cache=str(tmp_path)), Listener())


def test_graph_that_cannot_have_this_size_is_refused(tmp_path):
    """A size that was frozen into the graph."""
    constant = onnx.numpy_helper.from_array(np.zeros((1, 3, 64, 32), np.float32), "frozen")
    graph = save(tmp_path / "bad.onnx", [onnx.helper.make_node("Add", ["image", "frozen"], ["out"])], [constant])
    with pytest.raises(EngineError, match=r"TensorRT-RTX .* cannot"):
        tensorrt.build_engine(graph, 64, 64, "fp32", EngineConfig(engine_cache=str(tmp_path)), Listener())


def test_listener_can_end_a_real_build(tmp_path, monkeypatch):
    class Leaving(Listener):
        def busy(self, text):
            raise EngineError("the node is being closed")

    monkeypatch.setattr(tensorrt, "TICK", 0.01)
    config = EngineConfig(engine_cache=str(tmp_path))
    with pytest.raises(EngineError, match="the node is being closed"):
        tensorrt.build_engine(find_model("default", "flow").graph, 640, 192, "fp32", config, Leaving())
    assert list(tmp_path.glob("*.plan")) == []


def test_plan_is_refused_in_words_without_a_gpu(tmp_path):
    """What a start on a machine whose driver broke says; skipped where there is a GPU."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is not installed")
    cuda = tensorrt.Cuda()
    try:
        cuda.gpu()
        pytest.skip("there is a GPU here")
    except EngineError:
        pass
    with pytest.raises(EngineError, match="cannot read it"):
        tensorrt.Execution(tensorrt.find_library(), cuda, b"plan", find_model("default", "depth").graph, 64, 64)
