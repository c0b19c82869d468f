"""Exported files: equal to torch at every size, of the form that runtimes like, refused when they are not."""

import argparse
from dataclasses import replace

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import TensorProto, helper
from random_weights import he_weights

from depth_pose_ros import engines
from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.manifest import find_model, load_manifest, sha256_of
from depth_pose_ros.engines.onnx_runtime import fold_constants
from depth_pose_ros.errors import ModelError
from depth_pose_ros.networks.matching_flow import MatchingFlow
from depth_pose_ros.networks.paper_depth import PaperDepth, PaperDepthConfig
from depth_pose_ros.networks.paper_flow import PaperFlow, PaperFlowConfig
from depth_pose_ros.networks.registry import build_network, load_network, save_network
from depth_pose_ros.networks.small_depth import SmallDepth
from depth_pose_ros.training import export
from depth_pose_ros.training.from_model import network_from_model
from depth_pose_ros.training.onnx_graph import check_onnx, to_mixed_half

SMALL_FLOW = PaperFlowConfig(
    pyramid=(6, 8, 10, 12, 14, 18), decoder=(16, 14, 12, 10, 8), context=(12, 14, 12, 10, 8, 6)
)
SMALL_DEPTH = PaperDepthConfig(encoder=(8, 8, 12, 16, 20), decoder=(16, 12, 10, 8, 6))
NETWORKS = {
    "MatchingFlow": lambda: he_weights(MatchingFlow(), seed=2),
    "PaperFlow": lambda: he_weights(PaperFlow(SMALL_FLOW), seed=3),
    "SmallDepth": lambda: he_weights(SmallDepth(), seed=1),
    "PaperDepth": lambda: he_weights(PaperDepth(SMALL_DEPTH), seed=1),
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """(network, manifest) of each network."""
    network = NETWORKS[request.param]()
    path = tmp_path_factory.mktemp("models") / f"{request.param}.onnx"
    return network, export.export_network(network, path, {"seed": 1, "sizes": ((192, 128),)}, licence="Apache-2.0")


def engine_of(manifest, width, height):
    return (NetworkFlow if manifest.task == "flow" else NetworkDepth)(manifest, width, height, "cpu", 1)


@pytest.mark.parametrize("size", [(320, 96), (640, 192), (832, 256)])
def test_onnx_runtime_equals_torch(exported, size):
    network, manifest = exported
    multiple = network.multiple_of
    width, height = (-(-side // multiple) * multiple for side in size)
    images = export.example_images(multiple, width, height)[: len(manifest.inputs.names)]
    actual = engine_of(manifest, width, height).outputs(*images)
    with torch.no_grad():
        wanted = network(*(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255 for image in images))
    if manifest.task == "depth":
        np.testing.assert_allclose(actual["inverse_depth"], wanted[0].numpy(), rtol=1e-4)
        return
    for name in ("forward", "backward"):
        error = np.linalg.norm(actual[name] - wanted[name][0].numpy(), axis=0)
        # Random features match badly: a few cells have two best matches that differ in the last bit.
        allowed = 0.99 if isinstance(network, MatchingFlow) else 1.0
        assert np.quantile(error, allowed) < 1e-3


def test_files_are_as_runtimes_like_them(exported):
    _, manifest = exported
    full = check_onnx(manifest.files["fp32"].path)
    half = check_onnx(manifest.files["fp16"].path, half=True)
    assert full["Conv"] == half["Conv"] > 0
    if manifest.task == "flow":
        assert full["GridSample"] > 0 and full["MatMul"] >= 5
    assert manifest.files["fp16"].path.stat().st_size < 0.65 * manifest.files["fp32"].path.stat().st_size


def test_compact_files_are_half_as_large_and_compute_the_same_in_fp32(tmp_path):
    network = he_weights(SmallDepth(), seed=1)
    manifest = export.export_network(network, tmp_path / "depth", compact=True)  # compares with torch
    size = {name: file.path.stat().st_size for name, file in manifest.files.items()}
    assert size["fp32"] < 1.05 * size["fp16"]
    rounded = export.rounded(network, 1)
    again = network_from_model(manifest)
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, actual, unrounded = (net(image) for net in (rounded, again, network))
    assert (actual / exact - 1).abs().max() < 1e-4 and 1e-5 < (actual / unrounded - 1).abs().max() < 0.02
    # What is given to TensorRT: no weights behind a Cast.
    fold_constants(manifest.files["fp32"].path, tmp_path / "folded.onnx")
    graph = onnx.load(tmp_path / "folded.onnx").graph
    stored = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert {stored[node.input[1]] for node in graph.node if node.op_type == "Conv"} == {TensorProto.FLOAT}


def test_two_graphs_compute_what_one_does_for_any_two_images(exported):
    _, manifest = exported
    if manifest.task == "depth":
        assert manifest.parts is None
        return
    width, height = 336, 112
    two, one = (engine_of(variant, width, height) for variant in export.variants(manifest))
    images = export.example_images(manifest.inputs.multiple_of, width, height)
    kept = [two.features(image) for image in images]  # once each, and then in any order
    for first, second in ((0, 1), (1, 0), (1, 1)):
        actual = two.flow(kept[first], kept[second])
        wanted = one.flow(one.features(images[first]), one.features(images[second]))
        for name in ("forward", "backward", "sigma"):
            if (array := getattr(wanted, name)) is not None:
                # Relative too: random weights give flow of hundreds of pixels. Not all, as above.
                error = np.abs(getattr(actual, name) - array) / np.maximum(1.0, np.abs(array))
                assert np.quantile(error, 0.99) < 1e-4
    assert [part.name.split(".")[-1] for part in manifest.parts] == ["encoder", "matcher"]
    for part in manifest.parts:
        assert check_onnx(part.files["fp32"].path)["Conv"] > 0
        assert "fp16" not in part.files  # GPUs run the whole


def test_shipped_flow_is_the_same_as_one_graph_and_as_two():
    manifest = find_model("default", "flow")
    assert manifest.parts is not None
    street = manifest.path.parent.parent / "demo" / "street_drive" / "images"
    images = [cv2.resize(cv2.imread(str(street / f"{i:06d}.jpg")), (320, 96)) for i in (10, 11)]
    two, one = (engine_of(variant, 320, 96).outputs(*images) for variant in export.variants(manifest))
    for name in ("forward", "backward"):
        error = np.abs(two[name] - one[name])
        assert np.quantile(error, 0.99) < 1e-4  # a tie between two best cells may fall differently
        assert np.abs(one[name]).max() > 5.0


def test_half_precision_file_computes_the_same(exported):
    network, manifest = exported
    if isinstance(network, MatchingFlow):
        pytest.skip("with random features the best of nearly equal matches changes with every rounding")
    half = replace(manifest, files={"fp32": manifest.files["fp16"]}, encoder={}, matcher={}, features={})
    check = engines.self_check(half, "cpu", 1)
    assert check.passed, check


def test_a_model_can_be_built_again_and_trained_on(exported):
    network, manifest = exported
    again = network_from_model(manifest)
    images = [torch.rand(1, 3, 128, 192, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    with torch.no_grad():
        a, b = (n(*images[: len(manifest.inputs.names)]) for n in (network, again))
    a, b = (x["forward"] if isinstance(x, dict) else x for x in (a, b))
    assert np.quantile((a - b).abs().numpy(), 0.99) < 1e-3 * a.abs().max()
    assert all(p.requires_grad for p in again.parameters())


def test_a_model_whose_weights_are_not_those_of_its_stored_pair(exported, tmp_path):
    _, manifest = exported
    with np.load(manifest.self_check) as stored:
        values = dict(stored)
    values[manifest.outputs.names[0]] = 1.5 * values[manifest.outputs.names[0]]
    np.savez(tmp_path / "pair.npz", **values)
    with pytest.raises(ModelError, match="than is stored with it"):
        network_from_model(replace(manifest, self_check=tmp_path / "pair.npz"))


def test_self_check_pair_is_small_and_passes(exported):
    _, manifest = exported
    assert manifest.self_check.stat().st_size < 400_000
    check = engines.self_check(manifest, "cpu", 1)
    assert check.passed and check.error < 1e-3


def test_manifest_says_what_it_is(exported):
    network, manifest = exported
    assert load_manifest(manifest.path) == manifest
    assert manifest.inputs.channel_order == "BGR"
    assert manifest.inputs.multiple_of == network.multiple_of
    assert manifest.outputs.stride == network.stride
    assert manifest.training["network"] == type(network).__name__
    assert (manifest.training["seed"], manifest.training["sizes"]) == (1, [[192, 128]])
    assert manifest.licence == "Apache-2.0"
    for file in (*manifest.files.values(), *manifest.encoder.values(), *manifest.matcher.values()):
        assert file.sha256 == sha256_of(file.path)
    if isinstance(network, SmallDepth):
        assert manifest.outputs.reference_focal == network.config.reference_focal


def test_engine_loads_the_export_by_its_path(exported):
    network, manifest = exported
    image = export.example_images(network.multiple_of)[0]
    height, width = image.shape[:2]
    if manifest.task == "depth":
        depth = engines.load_depth(manifest.files["fp32"].path, width, height, threads=1).depth(image)
        image = cv2.resize(image, manifest.input_size(width, height))
        with torch.no_grad():
            inverse = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)[0, 0].numpy()
        np.testing.assert_allclose(depth, 1.0 / inverse, rtol=1e-4)
    else:
        flow = engines.load_flow(manifest.path, width, height, threads=1)
        field = flow.flow(flow.features(image), flow.features(image))
        assert field.forward.shape == (height // network.stride, width // network.stride, 2)
        assert (field.sigma is not None) == isinstance(network, MatchingFlow)


def test_network_that_gives_nan_is_not_exported(tmp_path):
    network = NETWORKS["PaperDepth"]()
    network.head.bias.data[:] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        export.export_network(network, tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


def test_size_frozen_into_the_graph_is_noticed_and_nothing_stays(tmp_path):
    class Frozen(PaperDepth):
        def disparity(self, image):
            result = super().disparity(image)
            column = torch.linspace(0.5, 1.0, int(image.shape[3]))  # int(): a constant in the graph
            return result * torch.nn.functional.interpolate(column[None, None, None], size=image.shape[2:])

    network = he_weights(Frozen(SMALL_DEPTH), seed=1)
    Frozen.__name__ = "PaperDepth"
    with pytest.raises(ModelError, match="frozen"):
        export.export_network(network, tmp_path / "frozen", recommended_size=(640, 192))
    assert list(tmp_path.iterdir()) == []


# Checks of a file, each shown to bite


def save(path, nodes, opset=17, height="height", initializers=()):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "bad",
        [value("image", TensorProto.FLOAT, (1, 3, height, "width"))],
        [value("out", TensorProto.FLOAT, (1, "channels", "rows", "columns"))],
        list(initializers),
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def sample(**attributes):
    nodes = [
        helper.make_node("Transpose", ["image"], ["moved"], perm=[0, 2, 3, 1]),
        helper.make_node("Slice", ["moved", "zero", "two", "three"], ["grid"]),
        helper.make_node("GridSample", ["image", "grid"], ["out"], "sampler", **attributes),
    ]
    constants = [onnx.numpy_helper.from_array(np.int64([v]), n) for v, n in ((0, "zero"), (2, "two"), (3, "three"))]
    return nodes, constants


def test_check_accepts_the_good_grid_sample(tmp_path):
    nodes, constants = sample(mode="bilinear", padding_mode="zeros", align_corners=0)
    assert check_onnx(save(tmp_path / "good.onnx", nodes, initializers=constants))["GridSample"] == 1


@pytest.mark.parametrize("attribute", [{"mode": "nearest"}, {"padding_mode": "border"}, {"align_corners": 1}])
def test_check_refuses_other_grid_samples(tmp_path, attribute):
    nodes, constants = sample(**{"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0, **attribute})
    with pytest.raises(ModelError, match=r"sampler.*expected bilinear, zeros, align_corners 0"):
        check_onnx(save(tmp_path / "bad.onnx", nodes, initializers=constants))


def test_check_refuses_opset_20_static_sizes_and_unknown_operators(tmp_path):
    relu = [helper.make_node("Relu", ["image"], ["out"])]
    with pytest.raises(ModelError, match="'': 20"):
        check_onnx(save(tmp_path / "opset.onnx", relu, opset=20))
    with pytest.raises(ModelError, match="expected \\[1, 3, 'height', 'width'\\]"):
        check_onnx(save(tmp_path / "static.onnx", relu, height=96))
    with pytest.raises(ModelError, match=r"ai\.onnx:Det"):
        check_onnx(save(tmp_path / "det.onnx", [helper.make_node("Det", ["image"], ["out"])]))
    (tmp_path / "text.onnx").write_text("not a protobuf")
    with pytest.raises(ModelError, match="no valid ONNX"):
        check_onnx(tmp_path / "text.onnx")


def test_check_refuses_a_cost_volume_of_slices(tmp_path):
    means = [helper.make_node("ReduceMean", ["image"], [f"mean_{i}"], axes=[1]) for i in range(81)]
    nodes = [*means, helper.make_node("Concat", [f"mean_{i}" for i in range(81)], ["out"], axis=1)]
    with pytest.raises(ModelError, match="cost volume as slices"):
        check_onnx(save(tmp_path / "slices.onnx", nodes))


def test_check_refuses_a_full_precision_file_as_half(exported):
    _, manifest = exported
    with pytest.raises(ModelError, match="not in half precision"):
        check_onnx(manifest.files["fp32"].path, half=True)


def test_half_precision_keeps_what_it_must_in_fp32(exported):
    network, manifest = exported
    model = onnx.shape_inference.infer_shapes(onnx.load(manifest.files["fp16"].path), strict_mode=True)
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    for node in graph.node:
        if node.op_type in ("GridSample", "Softmax", "Exp", "Sigmoid"):
            assert types[node.output[0]] == TensorProto.FLOAT, node.name
    for value in (*graph.input, *graph.output):
        assert types[value.name] == TensorProto.FLOAT
    if isinstance(network, PaperFlow):  # its features stay in half precision through the whole cost volume
        assert all(types[node.output[0]] == TensorProto.FLOAT16 for node in graph.node if node.op_type == "MatMul")


def test_constant_too_large_for_half_precision_is_named(tmp_path):
    weight = np.zeros((4, 3, 1, 1), np.float32)
    weight[0] = 1e6
    constants = [onnx.numpy_helper.from_array(weight, "huge")]
    nodes = [helper.make_node("Conv", ["image", "huge"], ["out"])]
    with pytest.raises(ModelError, match=r"huge reaches 1e\+06, too large"):
        to_mixed_half(onnx.load(save(tmp_path / "huge.onnx", nodes, initializers=constants)))


# Checkpoints and the command line


def test_checkpoint_builds_the_same_network_again(tmp_path):
    network = NETWORKS["PaperFlow"]()
    save_network(network, tmp_path / "net.ckpt", {"steps": 5})
    again, provenance = load_network(tmp_path / "net.ckpt")
    assert again.config == network.config and provenance["steps"] == 5
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), network.state_dict().values()))


def test_checkpoint_of_a_training_run_keeps_the_network_beside_other_things(tmp_path):
    network = NETWORKS["PaperDepth"]()
    save_network(network, tmp_path / "net.ckpt")
    content = torch.load(tmp_path / "net.ckpt", weights_only=True)
    content["state_dict"] = {f"network.{key}": value for key, value in content["state_dict"].items()}
    torch.save({**content, "optimizer_states": [{}], "global_step": 5}, tmp_path / "run.ckpt")
    again, _ = load_network(tmp_path / "run.ckpt")
    assert torch.equal(again.head.weight, network.head.weight)


class Command:
    """A pickled call, as a hostile checkpoint would hold."""

    def __reduce__(self):
        return print, ("this must not run",)


def test_checkpoint_that_does_not_fit_is_named(tmp_path, capsys):
    path = tmp_path / "x.ckpt"
    with pytest.raises(ModelError, match="no checkpoint at"):
        load_network(path)
    path.write_bytes(b"garbage")
    with pytest.raises(ModelError, match="not a checkpoint that can be read safely"):
        load_network(path)
    torch.save({"state_dict": Command(), "provenance": {}}, path)
    with pytest.raises(ModelError, match=r"weights only.*print"):
        load_network(path)
    assert "must not run" not in capsys.readouterr().out
    torch.save({"model_state_dict": {}}, path)
    with pytest.raises(ModelError, match="import-trianflow"):
        load_network(path)
    save_network(NETWORKS["PaperFlow"](), path)
    content = torch.load(path, weights_only=True)
    content["state_dict"].pop("context.0.weight")
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"context\.0\.weight"):
        load_network(path)
    with pytest.raises(ModelError, match="no network is called 'RAFT'; there are MatchingFlow"):
        build_network("RAFT")
    with pytest.raises(ModelError, match="PaperFlow has no setting width"):
        build_network("PaperFlow", {"width": 3})


def run(*argv):
    parser = argparse.ArgumentParser()
    export.add_arguments(parser)
    return export.main(parser.parse_args([str(a) for a in argv]))


def test_command_exports_a_checkpoint(tmp_path, capsys):
    save_network(NETWORKS["PaperDepth"](), tmp_path / "net.ckpt", {"steps": 5})
    (tmp_path / "more.yaml").write_text("hours: 0.5\n")
    out = tmp_path / "models" / "tiny.onnx"
    assert run(tmp_path / "net.ckpt", "--out", out, "--provenance", tmp_path / "more.yaml", "--size", 320, 96) == 0
    assert "tiny: depth" in capsys.readouterr().out
    document = yaml.safe_load(out.with_suffix(".yaml").read_text())
    assert document["training"]["hours"] == 0.5 and document["training"]["network"] == "PaperDepth"
    assert document["recommended_size"] == [320, 96]
    assert sorted(p.name for p in out.parent.iterdir()) == ["tiny.fp16.onnx", "tiny.npz", "tiny.onnx", "tiny.yaml"]


def test_command_wants_one_source_and_a_fitting_size(tmp_path):
    with pytest.raises(ModelError, match="either a checkpoint or --network"):
        run("--out", tmp_path / "x")
    save_network(NETWORKS["PaperDepth"](), tmp_path / "net.ckpt")
    with pytest.raises(ModelError, match="multiples of 32"):
        run(tmp_path / "net.ckpt", "--out", tmp_path / "x", "--size", 640, 180)
