"""Import a published TrianFlow checkpoint into PaperFlow and PaperDepth.

The weights of Zhao et al. (CVPR 2020) are theirs, were trained on KITTI, NYUv2 or TUM, and come without a stated
licence of their own: importing them is for the user's own machine, nothing of them is shipped here.
"""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from depth_pose_ros.engines.manifest import sha256_of
from depth_pose_ros.errors import ModelError
from depth_pose_ros.networks.paper_depth import PaperDepth
from depth_pose_ros.networks.paper_flow import PaperFlow
from depth_pose_ros.networks.registry import read_checkpoint
from depth_pose_ros.training.export import describe, export_network

LICENCE = (
    "Weights by the authors of TrianFlow, who state no licence for them; trained on data sets with terms of their own "
    "(KITTI: CC BY-NC-SA). Check those before you pass these files on or use them in a product."
)

# Published name -> ours. Pyramid convolutions are numbered through, two per level; our decoders go from coarse to fine.
FLOW_RULES = (
    (r"fpyramid\.conv(\d+)\.0\.(weight|bias)", lambda n, p: f"pyramid.{(int(n) - 1) // 2}.{(int(n) - 1) % 2}.{p}"),
    (r"pwc_model\.conv([2-6])_([0-4])\.0\.(weight|bias)", lambda v, n, p: f"decoders.{6 - int(v)}.convs.{n}.{p}"),
    (r"pwc_model\.predict_flow([2-6])\.(weight|bias)", lambda v, p: f"decoders.{6 - int(v)}.residual.{p}"),
    (r"pwc_model\.dc_conv([1-6])\.0\.(weight|bias)", lambda n, p: f"context.{int(n) - 1}.{p}"),
    (r"pwc_model\.dc_conv7\.(weight|bias)", lambda p: f"context.6.{p}"),
)
DEPTH_RULES = (
    (r"encoder\.encoder\.(.+)", lambda name: f"encoder.{name}"),
    (
        r"decoder\.upconvs\.([0-4])\.([01])\.conv\.conv\.(weight|bias)",
        lambda level, n, p: f"decoder.{level}.{('before', 'after')[int(n)]}.{p}",
    ),
    (r"decoder\.dispconvs\.0\.conv\.(weight|bias)", lambda p: f"head.{p}"),
)
# Checkpoints of the whole method, of the flow stage alone, and of the PoseNet baseline differ in these prefixes.
PREFIXES = (
    ("model_pose.model_flow.", "flow", FLOW_RULES),
    ("model_flow.", "flow", FLOW_RULES),
    ("depth_net.", "depth", DEPTH_RULES),
    ("", "flow", FLOW_RULES),
)
DEAD = re.compile(r"depth_net\.encoder\.encoder\.fc\.(weight|bias)")
"""ResNet's classifier, which is stored and never used."""


def import_trianflow(path: Path) -> tuple[PaperFlow | None, PaperDepth | None]:
    """The networks that a checkpoint holds, in evaluation mode; None for one that it does not hold.

    Accepts the dictionary the original writes (``model_state_dict`` beside the optimiser's state) or a bare state dict,
    with or without ``module.`` prefixes, of any training stage. The file is read with ``weights_only``, so it cannot
    run code. ModelError names tensors that are unknown, missing, of another shape, or not finite.
    """
    groups: dict[str, dict[str, Tensor]] = {"flow": {}, "depth": {}}
    unknown = []
    for published, tensor in _read_state(path).items():
        if DEAD.fullmatch(published):
            continue
        target = _translate(published)
        if target is None:
            unknown.append(published)
        else:
            groups[target[0]][target[1]] = tensor
    if unknown:
        raise ModelError(f"{path} holds tensors that TrianFlow's FlowNet and DepthNet do not have: {_some(unknown)}")
    if not groups["flow"] and not groups["depth"]:
        raise ModelError(f"{path} holds no tensor of TrianFlow's FlowNet or DepthNet")
    flow = _fill(PaperFlow(), groups["flow"], path, "FlowNet") if groups["flow"] else None
    depth = _fill(PaperDepth(), groups["depth"], path, "DepthNet") if groups["depth"] else None
    return flow, depth


def _read_state(path: Path) -> Mapping[str, Tensor]:
    content = read_checkpoint(path)
    content = content.get("model_state_dict", content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no state dict: expected tensors by name, or such under 'model_state_dict'")
    return {str(name).replace("module.", ""): tensor for name, tensor in content.items()}


def _translate(published: str) -> tuple[str, str] | None:
    """(``flow`` or ``depth``, our name) of a published tensor name, or None."""
    for prefix, network, rules in PREFIXES:
        if not published.startswith(prefix):
            continue
        for pattern, name in rules:
            if match := re.fullmatch(pattern, published[len(prefix) :]):
                return network, name(*match.groups())
    return None


def _fill(network: nn.Module, state: dict[str, Tensor], path: Path, name: str) -> nn.Module:
    """Load the translated tensors, after naming everything that does not fit."""
    expected = network.state_dict()
    # Counters of batch normalisation that older torch versions do not write; they play no part in inference.
    state = {k: v for k, v in expected.items() if k.endswith("num_batches_tracked")} | state
    problems = []
    if missing := [key for key in expected if key not in state]:
        problems.append(f"missing: {_some(missing)}")
    if unknown := [key for key in state if key not in expected]:
        problems.append(f"unknown: {_some(unknown)}")
    shared = [key for key in expected if key in state]
    if misshapen := [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in shared
        if state[key].shape != expected[key].shape
    ]:
        problems.append(f"of another shape: {_some(misshapen)}")
    if broken := [key for key in shared if not torch.isfinite(state[key]).all()]:
        problems.append(f"not finite: {_some(broken)}")
    if problems:
        raise ModelError(f"{path} does not fit TrianFlow's {name}; {'; '.join(problems)}")
    network.load_state_dict(state)
    return network.eval()


def _some(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``depth_pose import-trianflow``."""
    parser.add_argument("checkpoint", type=Path, help="a published .pth file, e.g. kitti_odo.pth")
    parser.add_argument("--out", type=Path, required=True, help="folder to write <name>_flow.* and <name>_depth.* to")
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(832, 256),
        metavar=("W", "H"),
        help="input size it was trained at, to recommend (832 256: KITTI)",
    )


def main(arguments: argparse.Namespace) -> int:
    """``depth_pose import-trianflow``: a published checkpoint becomes models that the engines run."""
    flow, depth = import_trianflow(arguments.checkpoint)
    stem = arguments.checkpoint.stem
    provenance = {"imported_from": arguments.checkpoint.name, "sha256": sha256_of(arguments.checkpoint)}
    provenance["method"] = "TrianFlow (Zhao et al., CVPR 2020)"
    for network, task in ((flow, "flow"), (depth, "depth")):
        if network is not None:
            source = {**provenance, "network": type(network).__name__}
            manifest = export_network(network, arguments.out / f"{stem}_{task}", source, tuple(arguments.size), LICENCE)
            print(describe(manifest))
    print(LICENCE)
    return 0
