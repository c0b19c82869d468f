"""Export a network to the files that the engines run: ONNX in fp32 and mixed fp16, a self-check pair, a manifest."""

import argparse
import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import torch
import yaml
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from depth_pose_ros.engines import self_check
from depth_pose_ros.engines.manifest import Graph, Inputs, Manifest, ModelFile, Outputs, load_manifest, sha256_of
from depth_pose_ros.errors import DepthPoseError, ModelError
from depth_pose_ros.networks.registry import NETWORKS, build_network, load_network, task_of
from depth_pose_ros.training.from_model import network_from_model, normalisation_after
from depth_pose_ros.training.onnx_graph import OPSET, check_onnx, simplify, store_half, to_mixed_half

FLOW_TOLERANCE_PX = 1e-3
DEPTH_TOLERANCE = 1e-4
"""How far ONNX Runtime may be from torch, for 99 % of the values. Not for all: a network that picks the best of nearly
equal matches may pick another one when the last bit changes, and random weights can make a sigmoid steep."""


class FlowGraph(nn.Module):
    """A flow network as one graph: two images in, both directions out, each image encoded once."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_1: Tensor, image_2: Tensor) -> tuple[Tensor, ...]:
        """Images (1, 3, H, W) -> forward, backward and, where the network has it, sigma."""
        return flow_outputs(self.network(image_1, image_2))


class EncoderGraph(nn.Module):
    """The part of a flow network that sees one image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Image (1, 3, H, W) -> its features."""
        return tuple(self.network.encode(image))


class MatcherGraph(nn.Module):
    """The part of a flow network that compares two images."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *features: Tensor) -> tuple[Tensor, ...]:
        """Features of the first image, then of the second -> forward, backward and, where there is one, sigma."""
        count = len(features) // 2
        return flow_outputs(self.network.match(features[:count], features[count:]))


def flow_outputs(outputs: Mapping[str, Tensor | None]) -> tuple[Tensor, ...]:
    """The outputs of a flow network in the order of its manifest."""
    return tuple(outputs[name] for name in ("forward", "backward", "sigma") if outputs[name] is not None)


def export_network(
    network: nn.Module,
    path: Path,
    provenance: Mapping[str, Any] | None = None,
    recommended_size: tuple[int, int] = (640, 192),
    licence: str = "",
    compact: bool = False,
) -> Manifest:
    """Write ``<path>.onnx``, ``<path>.fp16.onnx``, ``<path>.npz`` (self-check) and ``<path>.yaml``.

    A flow network is also written as two graphs, ``<path>.encoder.onnx`` and ``<path>.matcher.onnx`` (fp32, for CPUs).

    network: any of ``NETWORKS``, whose forward takes images (B, 3, H, W) float BGR in [0, 1].
    path: with or without a suffix; its stem is the model's name.
    provenance: how the weights came to be; goes into the manifest.
    compact: round the weights of convolutions to half precision, and store them in it: half the size, fp32 at work.

    All files pass :func:`check_onnx`; the fp32 files agree with torch, or ModelError says how far they are off and
    nothing is left behind.
    """
    task = task_of(network)
    path = path.with_suffix("") if path.suffix in (".onnx", ".yaml") else path
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = ("", ".encoder", ".matcher")
    precisions = ("", ".fp16", ".int8")
    endings = (".npz", ".yaml", *(f"{part}{precision}.onnx" for part in parts for precision in precisions))
    files = [path.with_name(path.name + ending) for ending in endings]
    for stale in files:
        stale.unlink(missing_ok=True)
    try:
        network = network.eval()
        if compact:
            network = rounded(network, 2 if task == "flow" else 1)
        return _export(network, task, path, provenance or {}, recommended_size, licence, compact)
    except DepthPoseError:
        for partial in files:
            partial.unlink(missing_ok=True)
        raise


def _export(
    network: nn.Module,
    task: str,
    path: Path,
    provenance: Mapping[str, Any],
    recommended_size: tuple[int, int],
    licence: str,
    compact: bool,
) -> Manifest:
    inputs = Inputs(
        ("image_1", "image_2") if task == "flow" else ("image",),
        multiple_of=network.multiple_of,
        trained_size=getattr(network, "trained_size", None),
    )
    images = example_images(network.multiple_of)[: len(inputs.names)]
    tensors = [torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0 for image in images]
    graph = FlowGraph(network) if task == "flow" else network
    with torch.no_grad():
        results = graph(*tensors)
    results = list(results) if task == "flow" else [results]
    names = ("forward", "backward", "sigma")[: len(results)] if task == "flow" else ("inverse_depth",)
    if not all(torch.isfinite(result).all() for result in results):
        raise ModelError(f"the network's outputs for the example images are not finite; {path.name} is not exported")

    stored = path.with_name(f"{path.name}.npz")
    np.savez_compressed(stored, **dict(zip(inputs.names, images)), **{k: r[0].numpy() for k, r in zip(names, results)})
    config = getattr(network, "config", None)
    # What it takes to build the network again from these files (from_model). Parameters of a single number are folded
    # into constants without a name in the graph.
    scalars = {name: value.item() for name, value in network.named_parameters() if value.ndim == 0}
    provenance = (
        {"network": type(network).__name__}
        | ({"config": asdict(config)} if config else {})
        | dict(provenance)
        | ({"scalars": scalars} if scalars else {})
    )
    manifest = Manifest(
        path=path.with_name(f"{path.name}.yaml"),
        name=path.name,
        task=task,
        files={},
        inputs=inputs,
        outputs=Outputs(
            names,
            network.stride,
            kind="" if task == "flow" else "inverse_depth",
            reference_focal=getattr(config, "reference_focal", None),
        ),
        recommended_size=recommended_size,
        features=network.features if task == "flow" else {},
        self_check=stored,
        training=json.loads(json.dumps(provenance, default=str)),  # tuples become lists, as YAML wants
        licence=licence,
    )
    manifest.check_size(*recommended_size)
    manifest = replace(manifest, files=_write(graph, manifest.graph, tensors, path, compact))
    if manifest.parts:
        encoder, matcher = manifest.parts
        with torch.no_grad():
            features = [feature for tensor in tensors for feature in network.encode(tensor)]
        manifest = replace(
            manifest,
            encoder=_write(EncoderGraph(network), encoder, tensors[:1], path, compact, fp16=False),
            matcher=_write(MatcherGraph(network), matcher, features, path, compact, fp16=False),
        )
    manifest.save()
    compare_with_torch(network, manifest, [images[0].shape[1::-1], recommended_size])
    for variant in variants(manifest):
        outcome = self_check(variant, "cpu")
        if not outcome.passed:
            raise ModelError(str(outcome))
    return manifest


def rounded(network: nn.Module, images: int) -> nn.Module:
    """A copy whose weights of convolutions, with the normalisation after them folded in, half precision holds exactly.

    images: how many the network takes.
    """
    network = copy.deepcopy(network)
    for convolution, norm in normalisation_after(network, images).items():
        folded = fuse_conv_bn_eval(network.get_submodule(convolution), network.get_submodule(norm))
        network.set_submodule(convolution, folded)
        network.set_submodule(norm, nn.Identity())
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.half().float()
    return network


def _write(
    module: nn.Module, graph: Graph, tensors: Sequence[Tensor], path: Path, compact: bool, fp16: bool = True
) -> dict[str, ModelFile]:
    """One graph in fp32 and, for GPUs, in fp16, simplified and checked; ``tensors`` are an example of its inputs."""
    full, half = (path.with_name(f"{graph.name}{ending}") for ending in (".onnx", ".fp16.onnx"))
    dimensions = {
        name: [f"{side}_{cell}" if cell > 1 else side for side in ("height", "width")]
        for name, cell in graph.inputs.items()
    }
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of every size that becomes a Python number; comparing sizes would show a frozen one.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(tensors),
            str(full),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_axes={name: dict(zip((2, 3), sides)) for name, sides in dimensions.items()}
            | {name: {2: f"{name}_height", 3: f"{name}_width"} for name in graph.outputs},
        )
    simplify(full)
    check_onnx(full)
    if fp16:
        onnx.save(to_mixed_half(onnx.load(full)), half)
        check_onnx(half, half=True)
    if compact:
        store_half(full)
        check_onnx(full)
    files = {"fp32": full, "fp16": half} if fp16 else {"fp32": full}
    return {precision: ModelFile(file, sha256_of(file)) for precision, file in files.items()}


def variants(manifest: Manifest) -> tuple[Manifest, ...]:
    """The model as it is opened on a CPU, and where that is as two graphs, also as one."""
    return (manifest, replace(manifest, encoder={}, matcher={}, features={})) if manifest.parts else (manifest,)


def compare_with_torch(network: nn.Module, manifest: Manifest, sizes: list[tuple[int, int]]) -> list[float]:
    """Difference of ONNX Runtime from torch at each (width, height), over 99 % of the values; the larger of `variants`.

    In px for flow, relative for inverse depth. ModelError when it is above the tolerance.
    """
    from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow

    open_network, tolerance, unit = (
        (NetworkFlow, FLOW_TOLERANCE_PX, "px")
        if manifest.task == "flow"
        else (NetworkDepth, DEPTH_TOLERANCE, "relative")
    )
    errors = []
    for width, height in sizes:
        images = example_images(manifest.inputs.multiple_of, width, height)[: len(manifest.inputs.names)]
        with torch.no_grad():
            wanted = network(*(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0 for image in images))
        error = 0.0
        for variant in variants(manifest):
            actual = open_network(variant, width, height, "cpu", 0).outputs(*images)
            if manifest.task == "flow":
                difference = [
                    np.linalg.norm(actual[key] - wanted[key][0].numpy(), axis=0) for key in ("forward", "backward")
                ]
            else:
                reference = wanted[0].numpy()
                difference = np.abs(actual[manifest.outputs.names[0]] - reference) / np.abs(reference)
            error = max(error, float(np.quantile(difference, 0.99)))
        if not error <= tolerance:
            raise ModelError(
                f"{manifest.name} at {width}x{height}: ONNX Runtime is {error:.2g} ({unit}) from torch, "
                f"allowed {tolerance:g}; a size may have been frozen into the graph"
            )
        errors.append(error)
    return errors


def example_images(multiple_of: int, width: int = 320, height: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Two (H, W, 3) uint8 BGR images of a textured plane seen by a camera that moves forward and turns.

    The size is at least the one given, and a multiple as the network wants it. The same for every call.
    """
    width, height = (-(-size // multiple_of) * multiple_of for size in (width, height))
    rng = np.random.default_rng(7)
    canvas = np.zeros((height, width, 3), np.float32)
    for cells in (4, 8, 16, 32, 64):
        noise = rng.normal(size=(cells, 2 * cells, 3)).astype(np.float32)
        canvas += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) / np.sqrt(cells)
    canvas = np.clip(128.0 + 55.0 * canvas, 0, 255)
    motion = cv2.getRotationMatrix2D((0.45 * width, 0.4 * height), 1.0, 1.04)
    motion[:, 2] += (0.01 * width, -0.01 * height)
    moved = cv2.warpAffine(canvas, motion, (width, height), borderMode=cv2.BORDER_REFLECT)
    return canvas.astype(np.uint8), np.clip(moved, 0, 255).astype(np.uint8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose export``."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        help="checkpoint of a training run, or the manifest (.yaml) of a model that is to be written anew",
    )
    parser.add_argument(
        "--network", choices=sorted(NETWORKS), help="instead of a checkpoint: this network with random weights"
    )
    parser.add_argument("--out", type=Path, required=True, help="where to write, e.g. models/flow_small.onnx")
    parser.add_argument(
        "--size", type=int, nargs=2, default=(640, 192), metavar=("W", "H"), help="input size to recommend (640 192)"
    )
    parser.add_argument("--provenance", type=Path, help="YAML file added to what the manifest says of the training")
    parser.add_argument("--licence", default="", help="licence of the weights, for the manifest")
    parser.add_argument(
        "--compact", action="store_true", help="round weights to half precision: files of half the size, fp32 at work"
    )


def main(arguments: argparse.Namespace) -> int:
    """``depth_pose export``: a checkpoint becomes a model that the engines run."""
    if (arguments.checkpoint is None) == (arguments.network is None):
        raise ModelError("give either a checkpoint or --network NAME")
    if arguments.checkpoint is not None and arguments.checkpoint.suffix == ".yaml":
        model = load_manifest(arguments.checkpoint)
        network, provenance = network_from_model(model), {**model.training}
        provenance.pop("int8", None)
    elif arguments.checkpoint is not None:
        network, provenance = load_network(arguments.checkpoint)
    else:
        network, provenance = build_network(arguments.network), {"network": arguments.network, "weights": "random"}
    if arguments.provenance is not None:
        try:
            provenance |= yaml.safe_load(arguments.provenance.read_text(encoding="utf-8")) or {}
        except (OSError, TypeError, ValueError, yaml.YAMLError) as error:
            raise ModelError(f"--provenance {arguments.provenance} is no YAML mapping: {error}") from error
    manifest = export_network(
        network, arguments.out, provenance, tuple(arguments.size), arguments.licence, arguments.compact
    )
    print(describe(manifest))
    return 0


def describe(manifest: Manifest) -> str:
    """A few lines on what was written."""
    lines = [f"{manifest.name}: {manifest.task}, manifest {manifest.path}"]
    files = [*manifest.files.items(), *manifest.encoder.items(), *manifest.matcher.items()]
    for precision, file in files:
        counts = check_onnx(file.path, half=precision == "fp16")
        size = file.path.stat().st_size / 1e6
        lines.append(
            f"  {precision}: {file.path.name}, {size:.1f} MB, {counts.total()} nodes, {counts['Conv']} convolutions"
        )
    return "\n".join(lines)
