"""8-bit files: made from the shipped flow network, near the fp32 network, refused when bad."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depth_pose_ros import engines
from depth_pose_ros.config import EngineConfig
from depth_pose_ros.engines.manifest import load_manifest, model_path, sha256_of
from depth_pose_ros.engines.self_check import load_self_check
from depth_pose_ros.errors import EngineError, ModelError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from depth_pose_ros.training.quantise import describe, images_of, quantise, spread  # noqa: E402


@pytest.fixture
def flow(tmp_path):
    """The shipped flow model, copied, with images of its own stored pair to calibrate with."""
    for file in model_path("flow_small").parent.glob("flow_small.*"):
        shutil.copy(file, tmp_path)
    manifest = load_manifest(tmp_path / "flow_small.yaml")
    manifest = replace(manifest, encoder={"fp32": manifest.encoder["fp32"]}, recommended_size=(320, 96))
    manifest.save()
    return manifest


def test_quantised_flow_is_smaller_and_agrees(flow):
    with pytest.raises(EngineError, match="flow_small has no int8 file; `depth_pose quantise flow_small` makes one"):
        engines.load_flow(flow.path, backend="cpu_int8", threads=1)
    stored = load_self_check(flow)
    images = [stored[name] for name in flow.inputs.names]
    made = quantise(flow, iter(images), ["the stored pair"])
    assert made.encoder["int8"].path.stat().st_size < 0.4 * made.encoder["fp32"].path.stat().st_size
    again = load_manifest(flow.path)
    assert again.encoder == made.encoder
    assert again.training["int8"] == {"images": 2, "of": ["the stored pair"]}
    height, width = images[0].shape[:2]
    fast, full = (engines.load_flow(flow.path, width, height, backend, 1) for backend in ("cpu_int8", "cpu"))
    assert "int8" in fast.backend and "int8" not in full.backend
    assert "(flow_small.encoder.int8.onnx, flow_small.matcher.onnx)" in fast.runs_on
    flows = [net.flow(*(net.features(image) for image in images)).forward for net in (fast, full)]
    difference = np.linalg.norm(flows[0] - flows[1], axis=2)
    assert 0 < difference.mean() < 0.3
    assert engines.self_check(made, "cpu_int8").passed


def test_auto_prefers_int8_on_a_cpu_unless_it_disagrees(flow, tmp_path):
    backends = list(engines.BACKENDS)
    assert backends.index("cpu_int8") == backends.index("cpu") - 1
    stored = load_self_check(flow)
    made = quantise(flow, (stored[name] for name in flow.inputs.names))
    config = EngineConfig(engine_cache=str(tmp_path / "cache"))
    assert "int8" in engines.load_flow(flow.path, 320, 96, threads=1, engine=config).backend
    model = onnx.load(made.encoder["int8"].path)  # with kernels mirrored, as by a CPU that multiplies wrongly
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            mirrored = np.ascontiguousarray(onnx.numpy_helper.to_array(tensor)[..., ::-1])
            tensor.CopyFrom(onnx.numpy_helper.from_array(mirrored, tensor.name))
    onnx.save(model, made.encoder["int8"].path)
    bad = replace(made.encoder["int8"], sha256=sha256_of(made.encoder["int8"].path))
    replace(made, encoder={**made.encoder, "int8": bad}).save()
    network = engines.load_flow(flow.path, 320, 96, threads=1, engine=config)
    assert "int8" not in network.backend
    assert any(reason.startswith("cpu_int8: ") and "DISAGREES" in reason for reason in network.backend_reasons)


def test_what_cannot_be_quantised_is_refused(flow):
    folder = Path(flow.path).parent
    before = sorted(folder.iterdir())
    with pytest.raises(ModelError, match="there are no images"):
        quantise(flow, iter([]))
    with pytest.raises(ModelError, match="no encoder of its own"):
        quantise(replace(flow, encoder={}, matcher={}, features={}), iter([]))
    assert sorted(folder.iterdir()) == before


def test_images_are_spread_over_a_sequence_and_over_a_pool(tmp_path):
    assert spread(80, 4).tolist() == [0, 26, 53, 79] and spread(2, 9).tolist() == [0, 1]
    for i in range(3):
        np.savez(tmp_path / f"room_{i}.npz", images=np.full((2, 3, 4, 6), i, np.uint8))
    assert describe(tmp_path) == tmp_path.name
    (tmp_path / "pool_0003.json").write_text(json.dumps({"seed": 3, "mix": {"room": 0.75, "street": 0.25}}))
    assert describe(tmp_path) == "worlds.pool, seed 3, room 0.75, street 0.25"
    found = list(images_of(tmp_path, 2))
    assert [image.shape for image in found] == [(4, 6, 3)] * 2 and [image[0, 0, 0] for image in found] == [0, 2]
