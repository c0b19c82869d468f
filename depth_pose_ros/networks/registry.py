"""The networks by name, and their checkpoints."""

import importlib
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depth_pose_ros.errors import ModelError


@dataclass(frozen=True)
class Entry:
    """Where a network's class is and what it is for (``flow`` or ``depth``)."""

    module: str
    task: str


NETWORKS = {
    "MatchingFlow": Entry("depth_pose_ros.networks.matching_flow", "flow"),
    "SmallDepth": Entry("depth_pose_ros.networks.small_depth", "depth"),
    "PaperFlow": Entry("depth_pose_ros.networks.paper_flow", "flow"),
    "PaperDepth": Entry("depth_pose_ros.networks.paper_depth", "depth"),
}
"""By class name. Each class takes its config dataclass (or None), keeps it in ``config``, and says ``stride`` and
``multiple_of``. A flow network also says the ``features`` that its ``encode`` gives and its ``match`` takes."""


def task_of(network: nn.Module) -> str:
    """``flow`` or ``depth``."""
    return NETWORKS[type(network).__name__].task


def build_network(name: str, config: Mapping[str, Any] | None = None) -> nn.Module:
    """A network by class name with random weights; ``config`` holds the fields of its config that differ from default.

    ModelError lists the names that exist, or the config's fields.
    """
    if name not in NETWORKS:
        raise ModelError(f"no network is called {name!r}; there are {', '.join(NETWORKS)}")
    module = importlib.import_module(NETWORKS[name].module)
    config_class = getattr(module, f"{name}Config")
    known = {field.name for field in fields(config_class)}
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in (config or {}).items()}
    if unknown := sorted(set(values) - known):
        raise ModelError(f"{name} has no setting {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    return getattr(module, name)(config_class(**values))


def save_network(network: nn.Module, path: Path, provenance: Mapping[str, Any] | None = None) -> None:
    """Write the weights with all that :func:`load_network` needs to build the network again."""
    provenance = {
        **(provenance or {}),
        "network": type(network).__name__,
        "config": asdict(network.config),
    }
    torch.save({"state_dict": network.state_dict(), "provenance": provenance}, path)


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """The network in a checkpoint of :func:`save_network` or of a training run, and where it comes from.

    The network is in evaluation mode. ModelError when the file is missing, holds anything but weights, or does not fit.
    """
    checkpoint = read_checkpoint(path)
    provenance = checkpoint.get("provenance")
    state = checkpoint.get("state_dict")
    if not isinstance(provenance, Mapping) or not isinstance(state, Mapping) or "network" not in provenance:
        raise ModelError(
            f"{path} is no checkpoint of depth_pose_ros: it lacks 'provenance' or 'state_dict'. "
            "For TrianFlow's files use depth_pose import-trianflow"
        )
    network = build_network(provenance["network"], provenance.get("config"))
    # A training run keeps the network beside its losses, as `network`.
    state = {key.removeprefix("network."): value for key, value in state.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{path} does not fit {provenance['network']}: {error}") from error
    return network.eval(), dict(provenance)


def read_checkpoint(path: Path) -> Mapping[str, Any]:
    """The mapping in a file of torch.save. It is read with ``weights_only``, so it cannot run code.

    ModelError when it is missing, unreadable or holds something else.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"no checkpoint at {path}") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        # torch explains at length; the line that says what the file holds comes late.
        reason = next((line.strip() for line in lines if "Unsupported" in line), lines[0]).split(". ")[0]
        raise ModelError(f"{path} is not a checkpoint that can be read safely (weights only): {reason}") from error
    if not isinstance(content, Mapping):
        raise ModelError(f"{path} holds a {type(content).__name__}, expected tensors by name")
    return content
