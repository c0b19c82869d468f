"""What is done to an exported ONNX graph: simplify it, make a half-precision twin, check that runtimes will like it."""

import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper, shape_inference

from depth_pose_ros.engines.onnx_runtime import fold_constants
from depth_pose_ros.errors import ModelError

OPSET = 17
"""From 20 on GridSample's mode is called "linear", which older TensorRT parsers silently take for nearest."""

_SUPPORTED = (
    "Abs Add And ArgMax AveragePool BatchNormalization Cast Ceil Clip Concat ConstantOfShape Conv ConvTranspose "
    "CumSum Div Einsum Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements Gemm GlobalAveragePool Greater "
    "GreaterOrEqual GridSample HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu Less "
    "LessOrEqual Log MatMul Max MaxPool Min Mod Mul Neg Not Or PRelu Pad Pow Range Reciprocal ReduceMax ReduceMean "
    "ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid Sign Slice Softmax Softplus Split Sqrt Squeeze Sub Sum "
    "Tanh Tile TopK Transpose Unsqueeze Where Xor"
)
SUPPORTED_OPS = frozenset(_SUPPORTED.split())
"""Operators that ONNX Runtime and TensorRT 10 both run."""

HALF_OPS = frozenset(("Conv", "ConvTranspose", "Gemm"))
"""Always in half precision: they are nearly all of the time."""

HEAD_CHANNELS = 4
"""A convolution with no more outputs is a head: what it predicts is added to coordinates, in fp32."""

_FOLLOWING = (
    "AveragePool Clip Elu Expand Flatten InstanceNormalization LeakyRelu MaxPool Pad Relu Reshape Resize Slice "
    "Squeeze Transpose Unsqueeze"
)
FOLLOWING_OPS = frozenset(_FOLLOWING.split())
"""In half precision where their input is: they move or clip values, or (normalisation) keep their sums in fp32."""

AGREEING_OPS = frozenset(("Add", "Sub", "Mul", "Div", "MatMul"))
"""In half precision where every operand is, so that coordinates and flow, which start in fp32, stay there."""


def simplify(path: Path) -> None:
    """Fold constants and drop needless nodes (:func:`fold_constants`), in place; the sizes stay dynamic."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "simplified.onnx"
        fold_constants(path, target)
        model = onnx.load(target)
    # ONNX Runtime declares every domain it knows.
    used = {node.domain for node in model.graph.node}
    domains = [domain for domain in model.opset_import if domain.domain in used or domain.domain == ""]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    onnx.save(model, path)


def store_half(path: Path) -> None:
    """Store weights of convolutions as fp16 where that loses nothing (see ``rounded`` in export.py), in place.

    A Cast makes them fp32 again; runtimes fold it when they load the file, which has half the size. Weights that fp16
    does not hold exactly stay as they are.
    """
    model = onnx.load(path)
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    casts = []
    for name in dict.fromkeys(node.input[1] for node in model.graph.node if node.op_type == "Conv"):
        weights = numpy_helper.to_array(initializers[name])
        with np.errstate(over="ignore"):
            half = weights.astype(np.float16)
        if weights.dtype == np.float32 and np.array_equal(half.astype(np.float32), weights):
            initializers[name].CopyFrom(numpy_helper.from_array(half, f"{name}_half"))
            casts.append(helper.make_node("Cast", [f"{name}_half"], [name], f"Cast_{name}_half", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def constants(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """The constants of a graph by name, with those that :func:`store_half` stored as fp16 in fp32."""
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Cast" and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]].astype(np.float32)
    return found


def to_mixed_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A strongly typed copy whose convolutions and matrix products are fp16.

    Inputs and outputs stay fp32. So do sampling grids and all else that carries coordinates: at 832 pixels an fp16
    coordinate is up to a quarter of a pixel wrong. Softmax, exponentials and sums stay in fp32 too. Every tensor has
    one type, with Cast where it changes: TensorRT takes precision from the file (from version 11 from nowhere else).
    """
    model = shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    types |= {name: tensor.data_type for name, tensor in initializers.items()}
    if constants := [node.name for node in model.graph.node if node.op_type == "Constant"]:
        raise ModelError(f"simplify the graph before making it half precision: it has {len(constants)} Constant nodes")

    nodes: list[onnx.NodeProto] = []
    extra: dict[str, TensorProto] = {}
    half: set[str] = set()  # tensors that are fp16 now
    sampled: set[str] = set()  # fp32 outputs of GridSample, which go on in half precision, as they came
    predicted: set[str] = set()  # fp16 outputs of heads (flow, depth, sigma), which go on in fp32
    casts: dict[tuple[str, int], str] = {}

    def is_float(name: str) -> bool:
        return types.get(name) == TensorProto.FLOAT

    def as_type(name: str, wanted: int) -> str:
        """``name`` in the wanted precision: itself, a converted constant, or the output of a Cast."""
        if not name or not is_float(name) or (name in half) == (wanted == TensorProto.FLOAT16):
            return name
        if (name, wanted) not in casts:
            target = f"{name}_{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
            if name in initializers:
                array = numpy_helper.to_array(initializers[name])
                if np.abs(array).max(initial=0.0) > np.finfo(np.float16).max:
                    raise ModelError(f"constant {name} reaches {np.abs(array).max():g}, too large for half precision")
                extra[target] = numpy_helper.from_array(array.astype(np.float16), target)
            else:
                nodes.append(helper.make_node("Cast", [name], [target], f"Cast_{target}", to=wanted))
            casts[name, wanted] = target
        return casts[name, wanted]

    for original in model.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(original)
        operands = [name for name in node.input if is_float(name) and name not in initializers]
        is_half = [(name in half and name not in predicted) or name in sampled for name in operands]
        if node.op_type in HALF_OPS:
            in_half = True
        elif node.op_type == "Concat":
            # What is put beside features goes into a convolution with them.
            in_half = any(is_half)
        elif node.op_type in FOLLOWING_OPS:
            in_half = bool(is_half) and is_half[0]
        elif node.op_type in AGREEING_OPS:
            # x * x may overflow.
            in_half = bool(is_half) and all(is_half) and len(set(node.input)) > 1
        else:
            in_half = False
        wanted = TensorProto.FLOAT16 if in_half else TensorProto.FLOAT
        # Resize's scales are fp32 by definition.
        fixed = {1, 2} if node.op_type == "Resize" else set()
        for i, name in enumerate(original.input):
            if i not in fixed:
                node.input[i] = as_type(name, wanted)
        nodes.append(node)
        if in_half:
            half.update(name for name in node.output if is_float(name))
        if node.op_type == "GridSample":
            sampled.update(node.output)
        if node.op_type == "Conv" and initializers[original.input[1]].dims[0] <= HEAD_CHANNELS:
            predicted.update(node.output)

    # Outputs keep their names and fp32.
    for output in model.graph.output:
        if output.name in half:
            inner = f"{output.name}_inner"
            for node in nodes:
                for names in (node.input, node.output):
                    for i, name in enumerate(names):
                        if name == output.name:
                            names[i] = inner
            nodes.append(helper.make_node("Cast", [inner], [output.name], f"Cast_{output.name}", to=TensorProto.FLOAT))

    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in {**initializers, **extra}.items() if name in used]
    graph = helper.make_graph(nodes, model.graph.name, model.graph.input, model.graph.output, kept)
    result = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    onnx.checker.check_model(result, full_check=True)
    return result


def check_onnx(path: Path, half: bool = False) -> Counter:
    """Check an exported file for what runtimes stumble over; ModelError names the first thing found.

    Asked of it: opset 17; standard operators that ONNX Runtime and TensorRT run; fp32 inputs and outputs; dynamic
    height and width, named as in ``Graph``; GridSample bilinear, zeros, align_corners 0, in fp32; no cost volume
    written as slices; and with ``half`` every convolution in fp16. Returns how often each operator occurs.
    """
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path} is no valid ONNX file: {error}") from error
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != {"": OPSET}:
        raise ModelError(f"{path} needs operator sets {opsets}; expected the standard one at {OPSET} only")
    for node in model.graph.node:
        if node.domain or node.op_type not in SUPPORTED_OPS:
            raise ModelError(f"{path}: node {node.name} is {node.domain or 'ai.onnx'}:{node.op_type}, not supported")
    graph = shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}

    for value in (*graph.input, *graph.output):
        if types[value.name] != TensorProto.FLOAT:
            raise ModelError(f"{path}: {value.name} is {TensorProto.DataType.Name(types[value.name])}, expected FLOAT")
    for value in graph.input:
        shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        expected: list[int | str] = [1, 3, "height", "width"]
        if cell := re.fullmatch(r"height_(\d+)", str(shape[2])):
            expected = [1, shape[1], f"height_{cell[1]}", f"width_{cell[1]}"]  # features, one for so many pixels
        if shape != expected:
            raise ModelError(f"{path}: input {value.name} is {shape}, expected {expected}")
    for node in graph.node:
        if node.op_type == "GridSample":
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            mode = attributes.get("mode", b"bilinear"), attributes.get("padding_mode", b"zeros")
            if mode != (b"bilinear", b"zeros") or attributes.get("align_corners", 0) != 0:
                raise ModelError(f"{path}: {node.name} is {attributes}; expected bilinear, zeros, align_corners 0")
            if any(types[name] != TensorProto.FLOAT for name in node.input):
                raise ModelError(f"{path}: {node.name} samples in half precision; grids must be fp32")
        if half and node.op_type == "Conv" and any(types[name] != TensorProto.FLOAT16 for name in node.input):
            raise ModelError(f"{path}: {node.name} is not in half precision")
    counts = Counter(node.op_type for node in graph.node)
    # One ReduceMean or ReduceSum for each of 81 displacements is the slice form; networks have a few of their own.
    if counts["ReduceMean"] + counts["ReduceSum"] >= 40:
        raise ModelError(f"{path} writes its cost volume as slices; use networks.correlation.local_correlation")
    return counts
