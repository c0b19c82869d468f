"""Start from a model as it is shipped: its ONNX file holds the weights, so no second copy of them is needed.

A frozen flow network runs as it is. A network that shall learn is built again in torch from what its manifest says of
it, and gets the weights back out of the graph: batch normalisation, which the export folded into the convolution before
it, becomes the identity plus a bias; single numbers such as temperatures, which the export folds into constants without
a name, are in the manifest. The stored images and outputs of the manifest prove that the result is the same network.
"""

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from depth_pose_ros.engines import NetworkFlow
from depth_pose_ros.engines.manifest import Manifest
from depth_pose_ros.errors import ModelError
from depth_pose_ros.networks.registry import build_network
from depth_pose_ros.training.onnx_graph import constants

TOLERANCE = 1e-3
"""Largest relative difference from the stored outputs: the same weights in another order of additions."""


class ModelFlow(nn.Module):
    """A flow model by its engine, behind the contract of a flow network in torch; it cannot learn."""

    def __init__(self, manifest: Manifest, backend: str = "auto") -> None:
        super().__init__()
        self.manifest, self.backend = manifest, backend
        self.stride, self.multiple_of = manifest.outputs.stride, manifest.inputs.multiple_of
        self.engine: NetworkFlow | None = None

    @torch.no_grad()
    def forward(self, image_1: Tensor, image_2: Tensor) -> dict[str, Tensor | None]:
        """Flow both ways of images (B, 3, H, W) in [0, 1]; see MatchingFlow."""
        height, width = image_1.shape[2:]
        if self.engine is None or (self.engine.width, self.engine.height) != (width, height):
            self.engine = NetworkFlow(self.manifest, width, height, self.backend, torch.get_num_threads())
        pairs = zip(*((i * 255.0).round().byte().permute(0, 2, 3, 1).cpu().numpy() for i in (image_1, image_2)))
        outputs = [self.engine.outputs(*(np.ascontiguousarray(image) for image in pair)) for pair in pairs]
        result: dict[str, Tensor | None] = {"sigma": None}
        for name in outputs[0]:
            result[name] = torch.from_numpy(np.stack([output[name] for output in outputs])).to(image_1)
        return result


def network_from_model(manifest: Manifest) -> nn.Module:
    """The torch network of a model, with its weights, in evaluation mode.

    ModelError when the manifest does not say which network it is, when a weight is not in the file, or when the output
    is not the one that is stored with the model.
    """
    description = manifest.training
    if "network" not in description:
        raise ModelError(f"the manifest of {manifest.name} does not say which network it is (training.network)")
    network = build_network(description["network"], description.get("config")).eval()
    file = manifest.files["fp32"]
    file.verify()
    graph = onnx.load(file.path).graph
    stored = constants(graph)
    values: dict[str, np.ndarray] = {name.removeprefix("network."): value for name, value in stored.items()}
    values |= {name: np.array(value, np.float32) for name, value in description.get("scalars", {}).items()}
    folded = normalisation_after(network, len(manifest.inputs.names))
    for node in graph.node:
        # By the node, because equal constants of several layers are kept once, under the name of one of them.
        for kind, name in zip(("weight", "bias"), node.input[1:3]):
            if node.op_type in ("Conv", "InstanceNormalization") and name in stored:
                values.setdefault(f"{module_path(node.name)}.{kind}", stored[name])
        if node.op_type != "Conv" or len(node.input) < 3 or (path := module_path(node.name)) not in folded:
            continue
        weight, bias = (stored[name] for name in node.input[1:3])
        norm = network.get_submodule(folded[path])
        ones = np.ones_like(bias)
        values |= {
            f"{path}.weight": weight,
            f"{folded[path]}.weight": ones,
            f"{folded[path]}.bias": bias,
            f"{folded[path]}.running_mean": 0.0 * ones,
            f"{folded[path]}.running_var": ones - np.float32(norm.eps),
        }
    state = network.state_dict()
    wanted = [name for name in state if not name.endswith("num_batches_tracked")]
    if missing := [name for name in wanted if name not in values]:
        raise ModelError(f"{file.path.name} does not hold {', '.join(missing[:4])} of {description['network']} as such")
    if misshapen := [name for name in wanted if values[name].shape != tuple(state[name].shape)]:
        raise ModelError(
            f"{file.path.name}: {', '.join(misshapen[:4])} do not have the shape of {description['network']}"
        )
    network.load_state_dict(state | {name: torch.from_numpy(values[name].copy()) for name in wanted})
    _compare(network, manifest)
    return network


def normalisation_after(network: nn.Module, images: int) -> dict[str, str]:
    """Names of the convolutions whose output goes straight into a batch normalisation, and of that normalisation.

    images: how many the network takes.
    """
    names = {module: name for name, module in network.named_modules()}
    made_by: dict[int, str] = {}
    found: dict[str, str] = {}
    kept = []  # tensors, so that none is freed and its id used again

    def remember(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(output)
        if isinstance(module, nn.Conv2d):
            made_by[id(output)] = names[module]
        elif id(inputs[0]) in made_by:
            found[made_by[id(inputs[0])]] = names[module]

    layers = [module for module in names if isinstance(module, (nn.Conv2d, nn.BatchNorm2d))]
    handles = [layer.register_forward_hook(remember) for layer in layers]
    size = 2 * network.multiple_of
    with torch.no_grad():
        network(*[torch.zeros(1, 3, size, size)] * images)
    for handle in handles:
        handle.remove()
    return found


def module_path(node: str) -> str:
    """``/layer_4/layer_4.0/conv1/conv1.0/Conv`` -> ``layer_4.0.conv1.0``: how torch names the nodes it exports."""
    parts: list[str] = []
    for part in node.strip("/").split("/")[:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts[-1] = part
        else:
            parts.append(part)
    return ".".join(parts).removeprefix("network.")


def _compare(network: nn.Module, manifest: Manifest) -> None:
    if manifest.self_check is None:
        raise ModelError(f"{manifest.name} has no stored pair, so its weights cannot be checked; export it again")
    with np.load(manifest.self_check) as stored:
        images = [
            torch.from_numpy(stored[name]).permute(2, 0, 1)[None].float() / 255.0 for name in manifest.inputs.names
        ]
        expected = {name: stored[name] for name in manifest.outputs.names}
    with torch.no_grad():
        outputs = network(*images)
    if not isinstance(outputs, dict):
        outputs = {manifest.outputs.names[0]: outputs}
    for name, value in expected.items():
        # Not the largest: a network that picks the best of nearly equal matches may pick another one.
        difference = np.quantile(np.abs(outputs[name][0].numpy() - value), 0.99)
        error = difference / np.abs(value).max()
        if not error < TOLERANCE:
            raise ModelError(
                f"{manifest.name}: the weights in its ONNX file give another {name} than is stored with it "
                f"(relative difference {error:.2g}); give a checkpoint instead"
            )
