"""The manifest of a network file: what goes in, what comes out, where it comes from. And where models are found.

A model is ``<name>.yaml`` beside its ONNX file(s) and, optionally, a stored pair of images with the outputs they must
give (``.npz``). The runtime knows this contract and not the architecture, so any network that keeps it can be used.

A flow network is one graph from two images to the flow, and may have the same as two graphs beside it: an encoder that
runs once for each image, and a matcher for the features of any two.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from depth_pose_ros.camera import size_of_area
from depth_pose_ros.errors import ModelError
from depth_pose_ros.share import share_folders

DEFAULT_MODELS = {"flow": "flow_small", "depth": "depth_small"}
"""What the model name ``default`` means, by task."""

INPUT_COUNT = {"flow": 2, "depth": 1}


@dataclass(frozen=True)
class ModelFile:
    """One ONNX file of a model."""

    path: Path
    sha256: str

    def verify(self) -> None:
        """ModelError when the file is missing or its bytes are not the ones the manifest was written for."""
        if not self.path.is_file():
            raise ModelError(f"{self.path} is missing; its manifest names it. Restore it or export the network again")
        actual = sha256_of(self.path)
        if actual != self.sha256:
            raise ModelError(
                f"{self.path} is not the file its manifest describes: sha256 is {actual[:12]}..., expected "
                f"{self.sha256[:12]}... (truncated download, git-lfs pointer or a newer export?). "
                "Restore it or export the network again"
            )


@dataclass(frozen=True)
class Inputs:
    """How an image becomes the network's input: ``(pixel / 255 - mean) / std`` in (1, 3, height, width) float32."""

    names: tuple[str, ...]
    channel_order: str = "BGR"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    multiple_of: int = 1
    """Width and height must be multiples of this."""
    trained_size: tuple[int, int] | None = None
    """(width, height) that a depth network was trained for: other images are brought to about as many pixels first."""


@dataclass(frozen=True)
class Outputs:
    """What the network's outputs mean.

    flow:  ``forward``, ``backward`` (1, 2, height / stride, width / stride) in pixels of the input, and optionally
           ``sigma`` (1, 1, ...).
    depth: one output (1, 1, height / stride, width / stride); ``scale * output + offset`` is the depth or its inverse,
           as ``kind`` says.
    """

    names: tuple[str, ...]
    stride: int
    kind: str = ""
    """``depth`` or ``inverse_depth``; empty for flow."""
    scale: float = 1.0
    offset: float = 0.0
    reference_focal: float | None = None
    """fx (px of the input) at which depth has the unit trained for; the true depth grows with fx. None: unknown."""


@dataclass(frozen=True)
class Graph:
    """One graph of a model: what a runner opens.

    name:    for messages and cached engines: of the model, with ``.encoder`` or ``.matcher`` where it is a part of one.
    files:   by precision: ``fp32`` always; ``fp16`` is a strongly typed mixed-precision file for GPUs; ``int8`` is one
             for CPUs, where it was made.
    inputs:  name -> image pixels per cell, 1 for an image. An input is (1, channels, ceil(height / n), ceil(width / n))
             float32; the file calls its free dimensions ``height`` and ``width`` for n = 1, else ``height_n``,
             ``width_n``.
    outputs: names, in the order in which :meth:`Runner.run` returns them.
    """

    name: str
    files: Mapping[str, ModelFile]
    inputs: Mapping[str, int]
    outputs: tuple[str, ...]

    def dimensions(self, width: int, height: int) -> dict[str, int]:
        """The free dimensions of the inputs by name, for an image of width x height."""
        sizes: dict[str, int] = {}
        for cell in self.inputs.values():
            ending = f"_{cell}" if cell > 1 else ""
            sizes |= {f"height{ending}": -(-height // cell), f"width{ending}": -(-width // cell)}
        return sizes


@dataclass(frozen=True)
class Manifest:
    """One model, as its YAML file describes it."""

    path: Path
    name: str
    task: str
    files: Mapping[str, ModelFile]
    """By precision; see Graph."""
    inputs: Inputs
    outputs: Outputs
    recommended_size: tuple[int, int]
    """(width, height)"""
    encoder: Mapping[str, ModelFile] = field(default_factory=dict)
    """Image -> features, by precision; empty where the model is one graph only. Its input is called ``image``."""
    matcher: Mapping[str, ModelFile] = field(default_factory=dict)
    """Features of two images -> outputs, by precision."""
    features: Mapping[str, int] = field(default_factory=dict)
    """Outputs of the encoder, name -> image pixels per cell. The matcher takes them all with ``_1`` added to the name
    for the first image, then all with ``_2`` for the second."""
    self_check: Path | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""

    @property
    def graph(self) -> Graph:
        """The model as one graph."""
        return Graph(self.name, self.files, dict.fromkeys(self.inputs.names, 1), self.outputs.names)

    @property
    def parts(self) -> tuple[Graph, Graph] | None:
        """Encoder and matcher of a flow network, where it has them."""
        if not self.features:
            return None
        taken = {f"{name}_{image}": cell for image in (1, 2) for name, cell in self.features.items()}
        return (
            Graph(f"{self.name}.encoder", self.encoder, {"image": 1}, tuple(self.features)),
            Graph(f"{self.name}.matcher", self.matcher, taken, self.outputs.names),
        )

    @property
    def is_quantised(self) -> bool:
        """Whether there is an int8 file of the model, or of its encoder."""
        return "int8" in self.files or "int8" in self.encoder

    def check_size(self, width: int, height: int) -> None:
        """ModelError unless the network takes images of this size."""
        multiple = self.inputs.multiple_of
        if width < multiple or height < multiple or width % multiple or height % multiple:
            near = [max(multiple, round(size / multiple) * multiple) for size in (width, height)]
            raise ModelError(
                f"{self.name} cannot run at {width}x{height}: width and height must be multiples of {multiple}. "
                f"Nearest: {near[0]}x{near[1]}; recommended: {self.recommended_size[0]}x{self.recommended_size[1]}"
            )

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the network's input for images of width x height.

        Theirs; or, where the manifest tells what the network was trained for, about as many pixels in their shape.
        """
        trained = self.inputs.trained_size
        return size_of_area((width, height), trained, self.inputs.multiple_of) if trained else (width, height)

    def save(self) -> None:
        """Write the YAML file at ``path``; file names are written relative to it."""
        inputs, outputs = self.inputs, self.outputs
        split: dict[str, Any] = {}
        if self.parts:
            split = {"encoder": _files_document(self.encoder), "matcher": _files_document(self.matcher)}
            split["features"] = dict(self.features)
        document: dict[str, Any] = {
            "name": self.name,
            "task": self.task,
            "files": _files_document(self.files),
            **split,
            "inputs": {
                "names": list(inputs.names),
                "channel_order": inputs.channel_order,
                "mean": list(inputs.mean),
                "std": list(inputs.std),
                "multiple_of": inputs.multiple_of,
                **({"trained_size": list(inputs.trained_size)} if inputs.trained_size else {}),
            },
            "outputs": {"names": list(outputs.names), "stride": outputs.stride},
            "recommended_size": list(self.recommended_size),
            "self_check": self.self_check.name if self.self_check else None,
            "licence": self.licence,
            "training": dict(self.training),
        }
        if self.task == "flow":
            document["outputs"]["unit"] = "pixels of the input"
        else:
            document["outputs"] |= {"kind": outputs.kind, "scale": outputs.scale, "offset": outputs.offset}
            document["outputs"]["reference_focal"] = outputs.reference_focal
        self.path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=False), encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def load_manifest(path: Path) -> Manifest:
    """Read and check ``<name>.yaml``. ModelError says which entry is missing or wrong; the ONNX file is not read."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"no manifest at {path}; a model is <name>.onnx with <name>.yaml beside it") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ModelError(f"cannot read the manifest {path}: {error}") from error
    if not isinstance(document, dict):
        raise ModelError(f"the manifest {path} is not a YAML mapping")

    try:
        task = _one_of(document["task"], ("flow", "depth"), "task")
        inputs, outputs = document["inputs"], document["outputs"]
        files = _files(path.parent, document, "files")
        features = {str(k): _positive(v, f"features.{k}") for k, v in (document.get("features") or {}).items()}
        names = tuple(str(name) for name in inputs["names"])
        if len(names) != INPUT_COUNT[task]:
            raise ValueError(f"a {task} network takes {INPUT_COUNT[task]} image(s), inputs.names is {list(names)}")
        output_names = tuple(str(name) for name in outputs["names"])
        if task == "flow" and output_names not in (("forward", "backward"), ("forward", "backward", "sigma")):
            raise ValueError(
                f"outputs.names of a flow network must be forward, backward[, sigma]; it is {list(output_names)}"
            )
        if task == "depth" and len(output_names) != 1:
            raise ValueError(f"a depth network has one output; outputs.names is {list(output_names)}")
        focal = outputs.get("reference_focal")
        self_check = document.get("self_check")
        return Manifest(
            path=path,
            name=str(document["name"]),
            task=task,
            files=files,
            encoder=_files(path.parent, document, "encoder") if features else {},
            matcher=_files(path.parent, document, "matcher") if features else {},
            features=features,
            inputs=Inputs(
                names=names,
                channel_order=_one_of(inputs["channel_order"], ("BGR", "RGB"), "inputs.channel_order"),
                mean=_floats(inputs.get("mean", (0, 0, 0)), 3, "inputs.mean"),
                std=_floats(inputs.get("std", (1, 1, 1)), 3, "inputs.std"),
                multiple_of=_positive(inputs["multiple_of"], "inputs.multiple_of"),
                trained_size=_pair(inputs["trained_size"], "inputs.trained_size")
                if inputs.get("trained_size")
                else None,
            ),
            outputs=Outputs(
                names=output_names,
                stride=_positive(outputs["stride"], "outputs.stride"),
                kind=_one_of(outputs["kind"], ("depth", "inverse_depth"), "outputs.kind") if task == "depth" else "",
                scale=float(outputs.get("scale", 1.0)),
                offset=float(outputs.get("offset", 0.0)),
                reference_focal=None if focal is None else float(focal),
            ),
            recommended_size=_pair(document["recommended_size"], "recommended_size"),
            self_check=path.parent / str(self_check) if self_check else None,
            training=document.get("training") or {},
            licence=str(document.get("licence", "")),
        )
    except KeyError as error:
        raise ModelError(f"the manifest {path} has no entry {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the manifest {path} is wrong: {error}") from error


def model_folders() -> list[Path]:
    """Where named models are looked for: ``models/`` of the source checkout, then of the installed share folders."""
    return [folder for share in share_folders() if (folder := share / "models").is_dir()]


def available_models() -> list[str]:
    """Names of the models that :func:`model_path` finds, sorted."""
    return sorted({path.stem for folder in model_folders() for path in folder.glob("*.yaml")})


def model_path(model: str | Path) -> Path:
    """The manifest of a model given by name, or by the path of its manifest or ONNX file.

    ModelError lists the names that exist.
    """
    given = Path(model).expanduser()
    if given.suffix in (".yaml", ".yml", ".onnx"):
        path = given.with_suffix(".yaml") if given.suffix == ".onnx" else given
        if not path.is_file():
            raise ModelError(f"no model at {given}: {path} does not exist (each ONNX file has its manifest beside it)")
        return path
    for folder in model_folders():
        if (folder / f"{model}.yaml").is_file():
            return folder / f"{model}.yaml"
    known = ", ".join(available_models()) or "none"
    raise ModelError(f"no model is called {str(model)!r}; available: {known}. A path to a manifest (.yaml) works too")


def find_model(model: str | Path, task: str) -> Manifest:
    """The manifest of a model for one task (``flow`` or ``depth``); ``default`` is the one the package ships."""
    manifest = load_manifest(model_path(DEFAULT_MODELS[task] if model == "default" else model))
    if manifest.task != task:
        raise ModelError(f"{manifest.name} is a {manifest.task} network; a {task} network is needed here")
    return manifest


def _files(folder: Path, document: Mapping[str, Any], entry: str) -> dict[str, ModelFile]:
    files = {
        str(precision): ModelFile(folder / str(file["file"]), str(file["sha256"]).lower())
        for precision, file in document[entry].items()
    }
    if "fp32" not in files:
        raise ValueError(f"{entry} has no entry fp32")
    return files


def _files_document(files: Mapping[str, ModelFile]) -> dict[str, dict[str, str]]:
    return {precision: {"file": file.path.name, "sha256": file.sha256} for precision, file in files.items()}


def _one_of(value: Any, allowed: tuple[str, ...], name: str) -> str:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(allowed)}")
    return value


def _positive(value: Any, name: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} is {value!r}, expected a positive integer")
    return value


def _pair(values: Any, name: str) -> tuple[int, int]:
    width, height = (_positive(value, name) for value in values[:2])
    return width, height


def _floats(values: Any, count: int, name: str) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ValueError(f"{name} is {values!r}, expected {count} numbers")
    return tuple(float(value) for value in values)
