"""Small networks whose outputs can be computed by hand, as model files: for tests of what opens and runs them."""

from dataclasses import replace

import numpy as np
import onnx

from depth_pose_ros.engines import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.manifest import Inputs, Manifest, ModelFile, Outputs, sha256_of

WIDTH, HEIGHT = 64, 32


def save_graph(path, nodes, constants, inputs, outputs):
    """An ONNX file with dynamic height and width; inputs have 3 channels, outputs map name -> channels."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(*node[:3], **(node[3] if len(node) > 3 else {})) for node in nodes],
        "test",
        [value(name, onnx.TensorProto.FLOAT, (1, 3, "height", "width")) for name in inputs],
        [value(name, onnx.TensorProto.FLOAT, (1, channels, None, None)) for name, channels in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


POOL = {"kernel_shape": [4, 4], "strides": [4, 4]}
CHANNELS = {"zero": np.int64([0]), "two": np.int64([2]), "three": np.int64([3]), "axis": np.int64([1])}


def manifest_of(path, task, inputs, outputs, **more):
    manifest = Manifest(
        path=path.with_suffix(".yaml"),
        name=path.stem,
        task=task,
        files={"fp32": ModelFile(path, sha256_of(path))},
        inputs=inputs,
        outputs=outputs,
        recommended_size=(WIDTH, HEIGHT),
        **more,
    )
    manifest.save()
    return manifest


def difference_model(folder):
    """Flow = 4x4 means of the first two channels of image_2 - image_1; backward is its negative."""
    path = folder / "difference.onnx"
    nodes = [
        ("Sub", ["image_2", "image_1"], ["difference"]),
        ("AveragePool", ["difference"], ["pooled"], POOL),
        ("Slice", ["pooled", "zero", "two", "axis"], ["forward"]),
        ("Neg", ["forward"], ["backward"]),
        ("Slice", ["pooled", "two", "three", "axis"], ["sigma"]),
    ]
    save_graph(path, nodes, CHANNELS, ("image_1", "image_2"), {"forward": 2, "backward": 2, "sigma": 1})
    inputs = Inputs(("image_1", "image_2"), multiple_of=4)
    return manifest_of(path, "flow", inputs, Outputs(("forward", "backward", "sigma"), 4))


def mean_model(folder):
    """Inverse depth = 2 * (4x4 mean of the third channel) + 0.5, the gain and offset being in the manifest."""
    path = folder / "mean.onnx"
    nodes = [
        ("AveragePool", ["image"], ["pooled"], POOL),
        ("Slice", ["pooled", "two", "three", "axis"], ["value"]),
    ]
    save_graph(path, nodes, CHANNELS, ("image",), {"value": 1})
    outputs = Outputs(("value",), 4, "inverse_depth", scale=2.0, offset=0.5, reference_focal=300.0)
    return manifest_of(path, "depth", Inputs(("image",), multiple_of=4), outputs)


def random_images(count, size):
    return [np.random.default_rng(i).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8) for i in range(count)]


def with_half_and_stored_images(manifest):
    """An fp16 twin (of the same content: the stand-in knows it by its name) and a self-check."""
    half = manifest.path.with_suffix(".fp16.onnx")
    half.write_bytes(manifest.files["fp32"].path.read_bytes())
    images = random_images(len(manifest.inputs.names), (WIDTH, HEIGHT))
    network = (NetworkFlow if manifest.task == "flow" else NetworkDepth)(manifest, WIDTH, HEIGHT, "cpu", 1)
    stored = manifest.path.with_suffix(".npz")
    np.savez(stored, **dict(zip(manifest.inputs.names, images)), **network.outputs(*images))
    files = {**manifest.files, "fp16": ModelFile(half, manifest.files["fp32"].sha256)}
    result = replace(manifest, files=files, self_check=stored)
    result.save()
    return result
