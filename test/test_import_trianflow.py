"""Published checkpoints: every tensor lands where it belongs, and what does not fit is named."""

import argparse

import pytest
import torch

from depth_pose_ros.engines.manifest import load_manifest
from depth_pose_ros.errors import ModelError
from depth_pose_ros.training import import_trianflow as importer
from depth_pose_ros.training.import_trianflow import import_trianflow

PYRAMID = (3, 16, 32, 64, 96, 128, 196)
DECODER = ((None, 128), (128, 128), (256, 96), (224, 64), (160, 32))
FIRST = {6: 81, 5: 211, 4: 179, 3: 147, 2: 115}
CONTEXT = (34, 128, 128, 128, 96, 64, 32)
UP = (
    ((512, 256), (512, 256)),
    ((256, 128), (256, 128)),
    ((128, 64), (128, 64)),
    ((64, 32), (96, 32)),
    ((32, 16), (16, 16)),
)


def flow_shapes():
    """Names and shapes of the published FlowNet."""
    shapes = {}

    def conv(name, inputs, outputs):
        shapes[f"{name}.weight"] = (outputs, inputs, 3, 3)
        shapes[f"{name}.bias"] = (outputs,)

    for level in range(6):
        conv(f"fpyramid.conv{2 * level + 1}.0", PYRAMID[level], PYRAMID[level + 1])
        conv(f"fpyramid.conv{2 * level + 2}.0", PYRAMID[level + 1], PYRAMID[level + 1])
    for level, first in FIRST.items():
        for n, (inputs, outputs) in enumerate(DECODER):
            conv(f"pwc_model.conv{level}_{n}.0", inputs or first, outputs)
        conv(f"pwc_model.predict_flow{level}", 96, 2)
    for n in range(6):
        conv(f"pwc_model.dc_conv{n + 1}.0", CONTEXT[n], CONTEXT[n + 1])
    conv("pwc_model.dc_conv7", 32, 2)
    return shapes


def depth_shapes():
    """Names and shapes of the published DepthNet, with ResNet's unused classifier."""
    shapes = {}

    def norm(name, channels):
        shapes.update({f"{name}.{p}": (channels,) for p in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    resnet = "encoder.encoder."
    shapes[f"{resnet}conv1.weight"] = (64, 3, 7, 7)
    norm(f"{resnet}bn1", 64)
    inputs = 64
    for layer, outputs in enumerate((64, 128, 256, 512), start=1):
        for block in (0, 1):
            name = f"{resnet}layer{layer}.{block}"
            shapes[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            norm(f"{name}.bn1", outputs)
            shapes[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            norm(f"{name}.bn2", outputs)
            if inputs != outputs:
                shapes[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    shapes |= {f"{resnet}fc.weight": (1000, 512), f"{resnet}fc.bias": (1000,)}
    for level, convs in enumerate(UP):
        for n, (inputs, outputs) in enumerate(convs):
            shapes[f"decoder.upconvs.{level}.{n}.conv.conv.weight"] = (outputs, inputs, 3, 3)
            shapes[f"decoder.upconvs.{level}.{n}.conv.conv.bias"] = (outputs,)
    shapes |= {"decoder.dispconvs.0.conv.weight": (1, 16, 3, 3), "decoder.dispconvs.0.conv.bias": (1,)}
    return shapes


def fill(shapes, prefix=""):
    generator = torch.Generator().manual_seed(0)
    return {
        prefix + name: torch.rand(shape, generator=generator) if shape else torch.tensor(7)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def flow_state():
    return fill(flow_shapes())


@pytest.fixture(scope="module")
def whole_state():
    """As the joint stage writes it."""
    return fill(depth_shapes(), "depth_net.") | fill(flow_shapes(), "model_pose.model_flow.")


def save(path, state):
    torch.save({"iteration": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}}, path)
    return path


def test_published_layout_has_242_tensors(whole_state):
    assert len(whole_state) == 242


def test_every_tensor_lands_where_it_belongs(tmp_path, whole_state):
    flow, depth = import_trianflow(save(tmp_path / "kitti.pth", whole_state))
    published = {name.split("model_flow.")[-1].removeprefix("depth_net."): value for name, value in whole_state.items()}
    pairs = {
        "fpyramid.conv1.0.weight": flow.pyramid[0][0].weight,
        "fpyramid.conv12.0.bias": flow.pyramid[5][1].bias,
        "fpyramid.conv5.0.weight": flow.pyramid[2][0].weight,
        "pwc_model.conv6_0.0.weight": flow.decoders[0].convs[0].weight,
        "pwc_model.conv2_3.0.weight": flow.decoders[4].convs[3].weight,
        "pwc_model.predict_flow3.bias": flow.decoders[3].residual.bias,
        "pwc_model.dc_conv1.0.weight": flow.context[0].weight,
        "pwc_model.dc_conv7.weight": flow.context[6].weight,
        "encoder.encoder.conv1.weight": depth.encoder.conv1.weight,
        "encoder.encoder.layer3.0.downsample.1.running_var": depth.encoder.layer3[0].downsample[1].running_var,
        "decoder.upconvs.0.0.conv.conv.weight": depth.decoder[0].before.weight,
        "decoder.upconvs.3.1.conv.conv.weight": depth.decoder[3].after.weight,
        "decoder.dispconvs.0.conv.bias": depth.head.bias,
    }
    for name, tensor in pairs.items():
        assert torch.equal(published[name], tensor), name
    assert sum(p.numel() for p in flow.parameters()) == 5_134_324
    assert sum(p.numel() for p in depth.parameters()) == 14_327_217
    assert not flow.training and not depth.training


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model_flow.", "module.model_pose.model_flow.", "model_pose.model_flow."]
)
def test_prefixes_of_every_stage(tmp_path, flow_state, prefix):
    state = {prefix + name: value for name, value in flow_state.items()}
    flow, depth = import_trianflow(save(tmp_path / "flow.pth", state))
    assert depth is None
    assert torch.equal(flow.context[6].weight, flow_state["pwc_model.dc_conv7.weight"])


def test_bare_state_dict_and_files_without_batch_counters(tmp_path, whole_state):
    state = {name: value for name, value in whole_state.items() if not name.endswith("num_batches_tracked")}
    torch.save(state, tmp_path / "bare.pth")
    flow, depth = import_trianflow(tmp_path / "bare.pth")
    assert flow is not None and depth is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("pwc_model.conv4_2.0.bias"), r"FlowNet; missing: decoders\.2\.convs\.2\.bias"),
        (lambda s: s.update({"pose_net.conv1.weight": torch.zeros(1)}), r"do not have: pose_net\.conv1\.weight"),
        (lambda s: s.update({"fpyramid.conv13.0.bias": torch.zeros(1)}), r"unknown: pyramid\.6\.0\.bias"),
        (
            lambda s: s.update({"pwc_model.dc_conv7.bias": torch.zeros(3)}),
            r"of another shape: context\.6\.bias \(3,\) instead of \(2,\)",
        ),
        (
            lambda s: s.update({"fpyramid.conv1.0.bias": torch.full((16,), float("nan"))}),
            r"not finite: pyramid\.0\.0\.bias",
        ),
    ],
)
def test_tensor_that_does_not_fit_is_named(tmp_path, flow_state, change, message):
    state = dict(flow_state)
    change(state)
    with pytest.raises(ModelError, match=message):
        import_trianflow(save(tmp_path / "bad.pth", state))


def test_half_a_network_is_no_network(tmp_path, flow_state):
    state = {name: value for name, value in flow_state.items() if name.startswith("fpyramid")}
    with pytest.raises(ModelError, match=r"missing: decoders\.0\.convs\.0\.weight.* and \d+ more"):
        import_trianflow(save(tmp_path / "half.pth", state))


class Command:
    """A pickled call, as a hostile checkpoint would hold."""

    def __reduce__(self):
        return print, ("this must not run",)


def test_file_that_is_no_checkpoint_is_named_and_runs_nothing(tmp_path, capsys):
    path = tmp_path / "x.pth"
    with pytest.raises(ModelError, match="no checkpoint at"):
        import_trianflow(path)
    path.write_text("<html>Google Drive - Virus scan warning</html>")
    with pytest.raises(ModelError, match="not a checkpoint that can be read safely"):
        import_trianflow(path)
    torch.save({"model_state_dict": Command()}, path)
    with pytest.raises(ModelError, match="not a checkpoint that can be read safely"):
        import_trianflow(path)
    assert "must not run" not in capsys.readouterr().out
    torch.save({"iteration": 3}, path)
    with pytest.raises(ModelError, match="no state dict"):
        import_trianflow(path)
    torch.save({"model_state_dict": {}}, path)
    with pytest.raises(ModelError, match="no tensor of TrianFlow's"):
        import_trianflow(path)


def test_command_writes_a_model_and_says_whose_the_weights_are(tmp_path, flow_state, capsys):
    state = {name: 0.1 * (value - 0.5) for name, value in flow_state.items()}
    parser = argparse.ArgumentParser()
    importer.add_arguments(parser)
    path = save(tmp_path / "kitti_flow.pth", state)
    arguments = parser.parse_args([str(path), "--out", str(tmp_path / "models"), "--size", "320", "128"])
    assert importer.main(arguments) == 0
    manifest = load_manifest(tmp_path / "models" / "kitti_flow_flow.yaml")
    assert manifest.task == "flow" and manifest.recommended_size == (320, 128)
    assert manifest.training["imported_from"] == "kitti_flow.pth"
    assert "KITTI" in manifest.licence and manifest.licence in capsys.readouterr().out
