"""8-bit files: made from the shipped flow network, near the fp32 network, refused when bad."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depth_pose_ros import engines
from depth_pose_ros.engines.manifest import load_manifest, model_path
from depth_pose_ros.engines.self_check import load_self_check
from depth_pose_ros.errors import EngineError, ModelError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from depth_pose_ros.training.quantise import images_of, quantise, spread


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
    made = quantise(flow, iter(images))
    assert made.encoder["int8"].path.stat().st_size < 0.4 * made.encoder["fp32"].path.stat().st_size
    assert load_manifest(flow.path).encoder == made.encoder
    height, width = images[0].shape[:2]
    fast, full = (engines.load_flow(flow.path, width, height, backend, 1) for backend in ("cpu_int8", "cpu"))
    assert "int8" in fast.backend and "int8" not in full.backend
    flows = [net.flow(*(net.features(image) for image in images)).forward for net in (fast, full)]
    difference = np.linalg.norm(flows[0] - flows[1], axis=2)
    assert 0 < difference.mean() < 0.3
    assert engines.self_check(made, "cpu_int8").passed


def test_auto_prefers_int8_on_a_cpu():
    backends = list(engines.BACKENDS)
    assert backends.index("cpu_int8") == backends.index("cpu") - 1


def test_what_cannot_be_quantised_is_refused(flow):
    with pytest.raises(ModelError, match="there are no images"):
        quantise(flow, iter([]))
    with pytest.raises(ModelError, match="no encoder of its own"):
        quantise(replace(flow, encoder={}, matcher={}, features={}), iter([]))
    assert not list(Path(flow.path).parent.glob("*.int8.onnx"))


def test_images_are_spread_over_a_sequence_and_over_a_pool(tmp_path):
    assert spread(80, 4).tolist() == [0, 26, 53, 79] and spread(2, 9).tolist() == [0, 1]
    for i in range(3):
        np.savez(tmp_path / f"room_{i}.npz", images=np.full((2, 3, 4, 6), i, np.uint8))
    found = list(images_of(tmp_path, 2))
    assert [image.shape for image in found] == [(4, 6, 3)] * 2 and [image[0, 0, 0] for image in found] == [0, 2]
