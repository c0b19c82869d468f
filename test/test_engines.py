"""Network files, their manifests and the backends that run them, on small graphs made here whose truth is known."""

import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml

from depth_pose_ros import engines
from depth_pose_ros.engines.estimators import ImageToTensor
from depth_pose_ros.engines.manifest import Inputs, ModelFile, Outputs, load_manifest, sha256_of
from depth_pose_ros.errors import EngineError, ImageError, ModelError

pytest.importorskip("onnx", reason="builds its test graphs with onnx")
pytest.importorskip("onnxruntime")
from toy_models import CHANNELS, HEIGHT, POOL, WIDTH, difference_model, manifest_of, mean_model, save_graph


@pytest.fixture
def flow_model(tmp_path):
    return difference_model(tmp_path)


@pytest.fixture
def depth_model(tmp_path):
    return mean_model(tmp_path)


def random_image(seed):
    return np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def pooled(image):
    """4x4 means of an image in [0, 1], (H/4, W/4, 3)."""
    return (image / 255.0).reshape(HEIGHT // 4, 4, WIDTH // 4, 4, 3).mean((1, 3))


def test_flow_is_the_graphs_with_xy_last(flow_model):
    network = engines.load_flow(flow_model.path, backend="cpu", threads=1)
    image_1, image_2 = random_image(1), random_image(2)
    field = network.flow(network.features(image_1), network.features(image_2))
    expected = pooled(image_2) - pooled(image_1)
    np.testing.assert_allclose(field.forward, expected[..., :2], atol=1e-6)
    np.testing.assert_allclose(field.backward, -expected[..., :2], atol=1e-6)
    np.testing.assert_allclose(field.sigma, expected[..., 2], atol=1e-6)
    assert field.stride == 4
    assert field.forward.flags.c_contiguous


def test_threads_are_chosen_from_the_cores_that_the_process_may_use(flow_model, monkeypatch):
    from depth_pose_ros.engines import onnx_runtime

    for cores, threads in ((1, 1), (2, 2), (32, onnx_runtime.MOST_THREADS)):
        monkeypatch.setattr(onnx_runtime.os, "sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert onnx_runtime.default_threads() == threads
        runner = onnx_runtime.OnnxRuntimeRunner(flow_model.graph, WIDTH, HEIGHT)
        assert runner._session.get_session_options().intra_op_num_threads == threads
    runner = onnx_runtime.OnnxRuntimeRunner(flow_model.graph, WIDTH, HEIGHT, threads=3)
    assert runner._session.get_session_options().intra_op_num_threads == 3


def test_features_of_a_frame_survive_later_frames(flow_model):
    network = engines.load_flow(flow_model.path, threads=1)
    kept = network.features(random_image(1))
    network.features(random_image(3))
    field = network.flow(kept, network.features(random_image(2)))
    np.testing.assert_allclose(field.forward, (pooled(random_image(2)) - pooled(random_image(1)))[..., :2], atol=1e-6)


def test_depth_follows_the_manifests_mapping(depth_model):
    network = engines.load_depth(depth_model.path, threads=1)
    image = random_image(1)
    np.testing.assert_allclose(network.depth(image), 1.0 / (2.0 * pooled(image)[..., 2] + 0.5), rtol=1e-5)
    assert network.reference_focal == 300.0


@pytest.mark.parametrize("kind", ["depth", "inverse_depth"])
def test_depth_is_finite_and_positive_where_the_network_says_zero(depth_model, kind):
    replace(depth_model, outputs=replace(depth_model.outputs, kind=kind, scale=1.0, offset=-0.5)).save()
    depth = engines.load_depth(depth_model.path, threads=1).depth(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert np.isfinite(depth).all() and (depth > 0).all()


@pytest.mark.parametrize("factor, interpolation", [(2.0, cv2.INTER_LINEAR), (0.5, cv2.INTER_AREA)])
def test_images_are_brought_to_the_size_that_a_depth_network_was_trained_for(depth_model, factor, interpolation):
    trained = round(factor * WIDTH), round(factor * HEIGHT)
    replace(depth_model, inputs=replace(depth_model.inputs, trained_size=trained)).save()
    image = random_image(1)
    network = engines.load_depth(depth_model.path, WIDTH, HEIGHT, threads=1)
    assert network.input_size == trained and (network.width, network.height) == (WIDTH, HEIGHT)
    own = engines.load_depth(depth_model.path, *trained, threads=1)
    resized = cv2.resize(image, trained, interpolation=interpolation)
    expected = own.depth(resized, fx=50.0 * factor)
    if factor < 1.0:  # and back, linearly in what the network gives, the inverse depth
        expected = 1.0 / cv2.resize(1.0 / expected, (WIDTH // 4, HEIGHT // 4))
    np.testing.assert_allclose(network.depth(image, fx=50.0), expected, rtol=1e-5)
    with pytest.raises(ImageError, match=r"\(32, 64, 3\) uint8"):
        network.depth(image[:-1])
    with pytest.raises(ModelError, match="multiples of 4"):
        engines.load_depth(depth_model.path, WIDTH + 1, HEIGHT)


def test_input_size_has_the_shape_of_the_image_and_the_pixels_of_the_training():
    manifest = engines.find_model("depth_small", "depth")
    sizes = [manifest.input_size(*size) for size in ((320, 96), (512, 160), (160, 112), (640, 192), (640, 480))]
    assert sizes == [(320, 96), (320, 96), (208, 144), (320, 96), (208, 144)]


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_tensor_follows_channel_order_mean_and_std(order):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    image = random_image(5)
    tensor = ImageToTensor(Inputs(("image",), order, mean, std), WIDTH, HEIGHT)(image)
    ordered = image if order == "BGR" else image[..., ::-1]
    expected = ((ordered / 255.0 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(tensor[0], expected, atol=2e-6)
    assert tensor.dtype == np.float32


def test_tensor_equals_opencv_and_takes_a_view(flow_model):
    wide = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH + 10, 3), dtype=np.uint8)
    view = wide[:, 3 : 3 + WIDTH]
    tensor = ImageToTensor(flow_model.inputs, WIDTH, HEIGHT)(view)
    np.testing.assert_allclose(tensor, cv2.dnn.blobFromImage(np.ascontiguousarray(view), 1 / 255.0), atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((HEIGHT, WIDTH), np.uint8),
        np.zeros((HEIGHT, WIDTH + 4, 3), np.uint8),
        np.zeros((HEIGHT, WIDTH, 3)),
        None,
    ],
)
def test_image_that_does_not_fit_is_refused(depth_model, image):
    network = engines.load_depth(depth_model.path, threads=1)
    with pytest.raises(ImageError, match=r"\(32, 64, 3\) uint8"):
        network.depth(image)


def test_size_that_is_no_multiple_is_refused_with_a_near_one(flow_model):
    with pytest.raises(ModelError, match=r"66x32.*multiples of 4.*Nearest: 64x32"):
        engines.load_flow(flow_model.path, 66, 32)


def test_every_size_that_is_a_multiple_runs(flow_model):
    for width, height in ((64, 32), (32, 16), (68, 100)):
        network = engines.load_flow(flow_model.path, width, height, threads=1)
        kept = network.features(np.zeros((height, width, 3), np.uint8))
        assert network.flow(kept, kept).forward.shape == (height // 4, width // 4, 2)


def test_auto_says_why_it_stepped_down(flow_model):
    network = engines.load_flow(flow_model.path, threads=1)
    if network.backend != "onnxruntime CPUExecutionProvider":
        pytest.skip(f"a better backend works here: {network.backend}")
    assert [reason.split(":")[0] for reason in network.backend_reasons] == ["tensorrt", "cuda"]
    assert "CUDAExecutionProvider" in network.backend_reasons[1]
    assert engines.load_flow(flow_model.path, backend="cpu").backend_reasons == ()


def test_backend_asked_for_is_never_replaced(flow_model):
    with pytest.raises(EngineError, match="TensorRT"):
        engines.load_flow(flow_model.path, backend="tensorrt")
    with pytest.raises(EngineError, match="choose one of auto, tensorrt, cuda, cpu"):
        engines.load_flow(flow_model.path, backend="gpu")


def test_provider_that_onnx_runtime_replaced_silently_is_noticed(flow_model, monkeypatch):
    """onnxruntime-gpu lists CUDA and falls back to the CPU where its libraries are missing."""
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    original = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda path, options, providers: original(path, options, providers[-1:])
    )
    with pytest.raises(EngineError, match="asked for CUDAExecutionProvider but would run on CPUExecutionProvider"):
        engines.load_flow(flow_model.path, backend="cuda")
    network = engines.load_flow(flow_model.path, backend="auto")
    assert "asked for CUDAExecutionProvider" in network.backend_reasons[-1]


def test_provider_that_fails_in_a_run_is_not_replaced_silently(flow_model, monkeypatch):
    """ONNX Runtime would make a new session on the CPU and go on."""
    from onnxruntime.capi import _pybind_state

    class Failing:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

        def run(self, *arguments):
            raise _pybind_state.EPFail("CUDA failure 700: an illegal memory access was encountered")

    network = engines.load_flow(flow_model.path, backend="cpu", threads=1)
    session = network._runner._session
    monkeypatch.setattr(session, "_sess", Failing(session._sess))
    kept = network.features(random_image(1))
    with pytest.raises(EngineError, match=r"difference failed in onnxruntime .* CUDA failure 700"):
        network.flow(kept, kept)


def test_missing_onnxruntime_is_named(flow_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        engines.load_flow(flow_model.path, backend="cpu")


def test_outputs_that_are_not_finite_are_an_error_that_counts_them(tmp_path):
    path = tmp_path / "log.onnx"
    nodes = [("AveragePool", ["image"], ["pooled"], POOL), ("Log", ["pooled"], ["value"])]
    nodes.append(("Slice", ["value", "zero", "one", "axis"], ["depth"]))
    constants = {**CHANNELS, "one": np.int64([1])}
    save_graph(path, nodes, constants, ("image",), {"depth": 1})
    manifest = manifest_of(path, "depth", Inputs(("image",)), Outputs(("depth",), 4, "depth"))
    image = random_image(0)
    image[:4, :8] = 0  # two cells whose logarithm is -inf
    with pytest.raises(EngineError, match="gave 2 of 128 values of depth that are not finite"):
        engines.load_depth(manifest.path, backend="cpu", threads=1).depth(image)


def test_outputs_of_another_shape_than_promised_are_refused(flow_model):
    replace(flow_model, outputs=replace(flow_model.outputs, stride=8)).save()
    with pytest.raises(ModelError, match="output forward is"):
        engines.load_flow(flow_model.path, threads=1)


def test_names_that_differ_from_the_manifest_are_refused(flow_model):
    replace(flow_model, inputs=replace(flow_model.inputs, names=("left", "right"))).save()
    with pytest.raises(ModelError, match=r"takes \['image_1', 'image_2'\], its manifest says \['left', 'right'\]"):
        engines.load_flow(flow_model.path, backend="cpu")


def test_changed_or_missing_file_is_refused(flow_model):
    path = flow_model.files["fp32"].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="sha256"):
        engines.load_flow(flow_model.path)
    path.unlink()
    with pytest.raises(ModelError, match=r"difference\.onnx is missing"):
        engines.load_flow(flow_model.path)


def test_file_that_is_no_onnx_is_refused(flow_model):
    path = flow_model.files["fp32"].path
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    replace(flow_model, files={"fp32": ModelFile(path, sha256_of(path))}).save()
    with pytest.raises(ModelError, match="ONNX Runtime cannot load"):
        engines.load_flow(flow_model.path, backend="cpu")


def test_manifest_survives_a_round_trip(flow_model, depth_model):
    for manifest in (flow_model, depth_model):
        assert load_manifest(manifest.path) == manifest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a YAML mapping"),
        ("a: [", "cannot read"),
        ("task: flow", "no entry"),
        ("task: pose", "task is 'pose', expected one of flow, depth"),
    ],
)
def test_broken_manifest_is_named(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ModelError, match=message):
        engines.load_flow(path)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("inputs", {"names": ["a"], "channel_order": "BGR", "multiple_of": 4}, "takes 2 image"),
        ("inputs", {"names": ["a", "b"], "channel_order": "GRB", "multiple_of": 4}, "channel_order is 'GRB'"),
        ("inputs", {"names": ["a", "b"], "channel_order": "BGR", "multiple_of": 0}, "multiple_of is 0"),
        ("outputs", {"names": ["flow"], "stride": 4}, "must be forward, backward"),
        ("outputs", {"names": ["forward", "backward"], "stride": "x"}, "stride is 'x'"),
        ("files", {"fp16": {"file": "a", "sha256": "b"}}, "no entry fp32"),
        ("files", None, "manifest"),
        ("recommended_size", 640, "manifest"),
    ],
)
def test_wrong_entry_of_a_manifest_is_named(flow_model, entry, value, message):
    document = yaml.safe_load(flow_model.path.read_text())
    document[entry] = value
    flow_model.path.write_text(yaml.safe_dump(document))
    with pytest.raises(ModelError, match=message):
        engines.load_flow(flow_model.path)


def test_models_are_found_by_name_path_and_onnx_path(flow_model, depth_model, monkeypatch):
    monkeypatch.setattr(engines.manifest, "model_folders", lambda: [flow_model.path.parent])
    assert engines.available_models() == ["difference", "mean"]
    for model in ("difference", flow_model.path, str(flow_model.files["fp32"].path)):
        assert engines.model_path(model) == flow_model.path
    with pytest.raises(ModelError, match="no model is called 'differance'; available: difference, mean"):
        engines.load_flow("differance")
    with pytest.raises(ModelError, match="mean is a depth network; a flow network is needed"):
        engines.load_flow("mean")
    with pytest.raises(ModelError, match="does not exist"):
        engines.load_flow("nowhere/net.onnx")


def test_self_check_passes_fails_and_names_a_missing_file(flow_model):
    images = {"image_1": random_image(1), "image_2": random_image(2)}
    network = engines.load_flow(flow_model.path, threads=1)
    outputs = network.outputs(*images.values())
    stored = flow_model.path.with_suffix(".npz")
    manifest = replace(flow_model, self_check=stored)
    np.savez_compressed(stored, **images, **outputs)
    check = engines.self_check(manifest, "cpu", 1)
    assert check.passed and check.error < 1e-6 and check.non_finite == 0
    assert "agrees" in str(check)

    outputs["backward"] = outputs["backward"] + np.float32([[[0.3]], [[0.4]]])
    np.savez_compressed(stored, **images, **outputs)
    check = engines.self_check(manifest, "cpu", 1)
    assert not check.passed and check.error == pytest.approx(0.25, abs=1e-3)  # 0.5 px on one of two directions
    assert "DISAGREES" in str(check)

    stored.write_bytes(b"not a zip")
    with pytest.raises(ModelError, match="cannot read the self-check"):
        engines.self_check(manifest, "cpu", 1)
    with pytest.raises(ModelError, match="no stored images"):
        engines.self_check(flow_model)


def test_self_check_counts_values_that_are_not_finite(depth_model, monkeypatch):
    image = random_image(1)
    stored = depth_model.path.with_suffix(".npz")
    value = pooled(image)[None, :, :, 2].astype(np.float32)
    np.savez(stored, image=image, value=value)
    manifest = replace(depth_model, self_check=stored)
    assert engines.self_check(manifest, "cpu", 1).passed

    class Poisoned(engines.NetworkDepth):
        def outputs(self, *images):
            result = super().outputs(*images)
            result["value"][0, 0, :3] = np.nan
            return result

    monkeypatch.setattr(engines, "NetworkDepth", Poisoned)
    check = engines.self_check(manifest, "cpu", 1)
    assert check.non_finite == 3 and not check.passed


def test_importing_the_engines_loads_no_runtime():
    heavy = ("torch", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda")
    code = f"import sys, depth_pose_ros.engines.tensorrt; print([m for m in {heavy} if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
