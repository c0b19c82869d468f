"""Does a backend compute what the network computed when it was exported? Compare with the stored images and outputs."""

import zipfile
from dataclasses import dataclass

import numpy as np

from depth_pose_ros.engines.estimators import NetworkDepth, NetworkFlow
from depth_pose_ros.engines.manifest import Manifest
from depth_pose_ros.errors import ModelError

FLOW_LIMIT_PX = 0.1
DEPTH_LIMIT = 0.02
"""Mean errors that half precision stays under; a wrong kernel or layout is far above them."""


@dataclass(frozen=True)
class SelfCheck:
    """Outcome of a self-check.

    error: over the finite values; flow: mean end-point error in px, both directions; depth: mean relative error.
    limit: the largest error that passes.
    non_finite: how many output values are NaN or infinite.
    """

    model: str
    backend: str
    unit: str
    error: float
    limit: float
    non_finite: int

    @property
    def passed(self) -> bool:
        """Every value finite and the mean error under the limit."""
        return self.non_finite == 0 and self.error <= self.limit

    def __str__(self) -> str:
        verdict = "agrees" if self.passed else "DISAGREES"
        bad = f", {self.non_finite} values are not finite" if self.non_finite else ""
        return (
            f"{self.model} on {self.backend} {verdict} with its stored outputs: "
            f"mean error {self.error:.2g} {self.unit} (limit {self.limit:g}){bad}"
        )


def self_check(manifest: Manifest, backend: str = "auto", threads: int = 0) -> SelfCheck:
    """Run the stored images through a backend and compare with the stored outputs.

    ModelError when the stored pair is missing or unreadable, EngineError when the backend cannot run the network. A
    network that merely disagrees is an outcome, not an error.
    """
    stored = load_self_check(manifest)
    images = [stored[name] for name in manifest.inputs.names]
    height, width = images[0].shape[:2]
    network = (NetworkFlow if manifest.task == "flow" else NetworkDepth)(manifest, width, height, backend, threads)
    outputs = network.outputs(*images)
    non_finite = sum(int(np.size(output) - np.isfinite(output).sum()) for output in outputs.values())
    if manifest.task == "flow":
        errors = [np.linalg.norm(outputs[name] - stored[name], axis=0) for name in ("forward", "backward")]
        unit, limit = "px", FLOW_LIMIT_PX
    else:
        name = manifest.outputs.names[0]
        errors = [np.abs(outputs[name] - stored[name]) / np.abs(stored[name])]
        unit, limit = "relative", DEPTH_LIMIT
    error = float(np.mean([np.mean(e[np.isfinite(e)]) if np.isfinite(e).any() else np.inf for e in errors]))
    return SelfCheck(manifest.name, network.backend, unit, error, limit, non_finite)


def load_self_check(manifest: Manifest) -> dict[str, np.ndarray]:
    """The stored images (H, W, 3) uint8 BGR and outputs (C, h, w) float32, by the names of the network's own."""
    path = manifest.self_check
    if path is None:
        raise ModelError(f"{manifest.name} has no stored images for a self-check; export it again")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in (*manifest.inputs.names, *manifest.outputs.names)}
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read the self-check {path}: {error}; export the network again") from error
