"""8-bit twins of a model's files for the CPU, made from the fp32 files and some images; no training.

Weights and activations of the convolutions become 8-bit integers (ONNX Runtime's static quantisation, QDQ form), each
channel with its own scale. Of a flow network only the encoder is quantised: matching compares differences that 8 bits
do not hold (on rendered worlds its error rose from 0.26 to 0.57 px, that of the encoder alone to 0.27), and the
brightness, on which the sub-pixel part is measured, stays as it is, too. The ranges of activations are means over the
images: with those of the most extreme image most values would share a few steps (rooms 0.70 px instead of 0.65).
A depth network's first convolution stays in fp32, which costs nothing: in 8 bits, pictures of hard contrast lose
(rendered streets in other light AbsRel 0.308 instead of 0.299; fp32 0.298). Weights keep to 7 bits, because the 8-bit
products of CPUs without VNNI saturate in pairs.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from depth_pose_ros.camera import network_size
from depth_pose_ros.engines import self_check
from depth_pose_ros.engines.estimators import ImageToTensor
from depth_pose_ros.engines.manifest import Manifest, ModelFile, load_manifest, model_path, sha256_of
from depth_pose_ros.engines.onnx_runtime import fold_constants
from depth_pose_ros.errors import EngineError, ModelError, SequenceError
from depth_pose_ros.sequences import open_sequence
from depth_pose_ros.share import share_path

COUNT = 50
"""Images of each source that the ranges of the activations are taken from."""


def quantise(manifest: Manifest, images: Iterator[np.ndarray], sources: Sequence[str] = ()) -> Manifest:
    """Write the int8 file of a model beside its fp32 one, and its manifest anew.

    images:  (H, W, 3) uint8 BGR of any size, like those that the network will see; large ones are reduced.
    sources: what they are, for the manifest.

    ModelError when there are no images, or when the result is not within the limits of the self-check (self_check.py).
    """
    graph = manifest.parts[0] if manifest.parts else manifest.graph
    if manifest.task == "flow" and not manifest.parts:
        raise ModelError(f"{manifest.name} has no encoder of its own to quantise; export it again")
    tensors = [_as_seen(manifest, image) for image in images]
    if not tensors:
        raise ModelError("there are no images to take the ranges of the activations from")
    full = graph.files["fp32"]
    full.verify()
    path = full.path.with_name(f"{graph.name}.int8.onnx")
    _quantise(full.path, path, next(iter(graph.inputs)), tensors, keep_first=manifest.task == "depth")
    file = {"int8": ModelFile(path, sha256_of(path))}
    section = "encoder" if manifest.parts else "files"
    training = {**manifest.training, "int8": {"images": len(tensors), "of": list(sources)}}
    changed = replace(manifest, training=training, **{section: {**getattr(manifest, section), **file}})
    try:
        self_check(changed, "cpu_int8")  # opening it proves it
    except EngineError as error:
        path.unlink()
        raise ModelError(f"the int8 file of {manifest.name} was not kept: {error}") from error
    changed.save()
    return changed


def _as_seen(manifest: Manifest, image: np.ndarray) -> np.ndarray:
    """The network's input for an image, at the size that a node would give it."""
    size = network_size(image.shape[1::-1], manifest.recommended_size, manifest.inputs.multiple_of)
    size = manifest.input_size(*size)
    way = cv2.INTER_AREA if size[0] < image.shape[1] else cv2.INTER_LINEAR
    return ImageToTensor(manifest.inputs, *size)(cv2.resize(image, size, interpolation=way))


def _quantise(full: Path, path: Path, name: str, tensors: list[np.ndarray], keep_first: bool) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._tensors = iter(tensors)

        def get_next(self) -> dict[str, np.ndarray] | None:
            tensor = next(self._tensors, None)
            return None if tensor is None else {name: tensor}

    with tempfile.TemporaryDirectory() as folder:
        folded = Path(folder) / full.name
        fold_constants(full, folded)
        model = onnx.load(folded)
    graph = model.graph
    single = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[0] == 1}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    kept = [node.name for node in convolutions if node.input[1] in single or (keep_first and node is convolutions[0])]

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it advises a pre-processing that our export has done
    try:
        quantize_static(
            model,
            str(path),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=kept,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"CalibMovingAverage": True},
        )
    finally:
        logger.setLevel(level)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose quantise``."""
    parser.add_argument("model", help="a name in models/, or the path of a manifest or ONNX file")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="SOURCE",
        help="folders of images, videos, bags, or pools of rendered samples (default: the drive shipped)",
    )
    parser.add_argument(
        "--count", type=int, default=COUNT, help=f"images of each source, evenly spread (default: {COUNT})"
    )


def main(arguments: argparse.Namespace) -> int:
    """``depth_pose quantise``: write the int8 file of a model."""
    manifest = load_manifest(model_path(arguments.model))
    drive = share_path("demo/street_drive")
    if not arguments.images and drive is None:
        raise SequenceError("demo/street_drive was not installed; name images with --images")
    sources = [Path(source) for source in arguments.images or (drive,)]
    images = (image for source in sources for image in images_of(source, arguments.count))
    manifest = quantise(manifest, images, [describe(source) for source in sources])
    files = [entry["int8"] for entry in (manifest.files, manifest.encoder) if "int8" in entry]
    print(f"{files[0].path}: {files[0].path.stat().st_size / 1e6:.1f} MB; auto takes it on a CPU from now on")
    return 0


def images_of(source: Path, count: int) -> Iterator[np.ndarray]:
    """(H, W, 3) uint8 BGR, evenly spread over a sequence or a pool of rendered samples."""
    samples = sorted(source.glob("*.npz")) if source.is_dir() else []
    if samples:
        for i in spread(len(samples), count):
            with np.load(samples[i]) as sample:
                yield np.ascontiguousarray(sample["images"][0].transpose(1, 2, 0))
        return
    sequence = open_sequence(str(source))
    for i in spread(len(sequence), count):
        yield sequence[i][1]


def describe(source: Path) -> str:
    """A source of images in words, for the manifest: how to render the pool again, or the name of anything else."""
    pools = []
    for path in sorted(source.glob("pool_*.json")):
        pool = json.loads(path.read_text(encoding="utf-8"))
        mix = ", ".join(f"{kind} {share:g}" for kind, share in pool["mix"].items())
        pools.append(f"worlds.pool, seed {pool['seed']}, {mix}")
    return "; ".join(pools) or source.name


def spread(length: int, count: int) -> np.ndarray:
    """At most ``count`` indices below ``length``, evenly spread."""
    return np.linspace(0, length - 1, min(length, count)).round().astype(int)
